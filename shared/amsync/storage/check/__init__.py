"""Finding out what is wrong with a data directory, without changing it.

Not here: repairing, and how findings are shown (`amsync fsck`).
"""

from amsync.storage.check.check import Check, Totals
from amsync.storage.check.holder import Holder
from amsync.storage.check.problems import KINDS, Kind, Problem, Severity

__all__ = ["KINDS", "Check", "Holder", "Kind", "Problem", "Severity", "Totals"]

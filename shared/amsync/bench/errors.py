"""What can end a run of a benchmark."""

from amsync.errors import AmsyncError


class BenchError(AmsyncError):
    """A server can't be had, or it did not do what a workload needs; the message says which."""


class WrongDelivery(BenchError):
    """What clients got is not what was sent.

    Attributes:
        problems: Each client's lack or excess, and each lost connection.
    """

    def __init__(self, doing: str, problems: list[str]) -> None:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" * (len(problems) > 3))
        super().__init__(f"{doing}: {shown}")
        self.problems = problems


class NotDelivered(WrongDelivery):
    """What is missing has not come in all the time it had; nothing else is wrong."""

"""How much room a file system has: for us, not for root."""

import math
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes and inodes of a file system; where inodes have no bound both counts are 0."""

    size_bytes: float
    free_bytes: float
    inodes: float
    free_inodes: float


UNKNOWN = Space(math.nan, math.nan, math.nan, math.nan)


def space_of(directory: Path) -> Space:
    """Look at the file system of a directory. Blocking, for as long as a network file system does.

    Raises:
        OSError: It can't be looked at.
    """
    found = os.statvfs(directory)
    return Space(
        found.f_blocks * found.f_frsize,
        found.f_bavail * found.f_frsize,
        found.f_files,
        found.f_favail,
    )

"""Who seems to hold a data directory, by what the lock file says; no lock is tried.

Not here: holding (`amsync.storage.volume`). The text stays after a kill -9, so a process of this
machine is looked up; of another machine nothing is known.
"""

import json
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """A server that seems to hold the directory.

    Attributes:
        pid: Its process, on its own machine.
        host: Name of that machine.
        is_alive: There is a process of this number on this machine; None if it is another one.
    """

    pid: int
    host: str
    is_alive: bool | None


def holder_of(text: bytes) -> Holder | None:
    """Read the text of `.amsync/lock`; None if it names nobody who may still be there."""
    try:
        fields = json.loads(text)
        if fields.get("has_stopped"):
            return None
        pid, host = int(fields["pid"]), str(fields["host"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if host not in (socket.gethostname(), socket.gethostname()[:100]):
        return Holder(pid, host, None)
    return Holder(pid, host, True) if _runs(pid) else None


def _runs(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True

"""What a figure depends on besides the servers: the machine and its disk."""

import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from amsync.version import __version__

_RECORD_BYTES = 300


def describe() -> dict[str, Any]:
    """The machine and the moment, without names of machines, users and folders."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "amsync": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def fsync_seconds(directory: Path, tries: int, interval_seconds: float) -> float:
    """Median time of a small append and its fsync in this directory, once per interval.

    At the same pace as changes come in: a disk that has just synced is faster.
    """
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(tries):
            time.sleep(interval_seconds)
            began = time.perf_counter()
            file.write(bytes(_RECORD_BYTES))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return median(times)

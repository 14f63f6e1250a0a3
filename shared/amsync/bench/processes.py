"""CPU and memory of a server's process tree, read from /proc; also for each role in a cluster.

Not on other systems than Linux: figures are None there.
"""

import contextlib
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_TICK_SLACK_SECONDS = 0.03

ROLES = ("gateway", "worker", "redis")
"""What a process of a cluster can be; the figures of one server in one process have none."""


@dataclass(frozen=True, slots=True)
class _Process:
    ticks: int
    """Of it and of its ended children."""
    role: str = ""
    threads: dict[str, int] = field(default_factory=dict)
    """Nanoseconds on a CPU, by thread."""


@dataclass(frozen=True, slots=True)
class CpuClock:
    """What each process of a tree had used at one moment; `since` tells a difference."""

    processes: dict[int, _Process]

    def since(self, before: "CpuClock", role: str | None = None) -> float:
        """Seconds of CPU that were used from `before` until this one, by all or by one role.

        From the scheduler's nanoseconds. Those of a thread that has ended meanwhile are lost:
        then the clock ticks of the process, which keep them, say more.
        """
        return sum(
            _difference(process, before.processes.get(pid, _Process(0)))
            for pid, process in self.processes.items()
            if role is None or process.role == role
        )

    @property
    def roles(self) -> list[str]:
        """Those that there are."""
        found = {process.role for process in self.processes.values()}
        return [role for role in ROLES if role in found]


def _difference(now: _Process, before: _Process) -> float:
    exact = sum(spent - before.threads.get(one, 0) for one, spent in now.threads.items()) / 1e9
    rough = (now.ticks - before.ticks) / _TICKS_PER_SECOND
    return rough if rough > exact + _TICK_SLACK_SECONDS or not now.threads else exact


class ProcessTree:
    """A process and all that it has started, as of each call."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def clock(self) -> CpuClock | None:
        """How much CPU time all of them have used; None if that can't be told."""
        processes = {pid: _read(pid) for pid in self._pids()}
        found = {pid: process for pid, process in processes.items() if process is not None}
        return CpuClock(found) if self._pid in found else None

    def memory_bytes(self) -> int | None:
        """Memory of all of them; pages that several processes share are divided among them."""
        return sum(self.memory_by_role().values()) or None

    def memory_by_role(self) -> dict[str, int]:
        """The same for each role; "" is what has none. Empty if it can't be told."""
        sizes: dict[str, int] = {}
        for pid in self._pids():
            if (size := _memory(pid)) is not None:
                role = _role(pid)
                sizes[role] = sizes.get(role, 0) + size
        return sizes

    def kill(self) -> None:
        """End all of them at once, the first one first."""
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _pids(self) -> list[int]:
        parents = _parents()
        tree = [self._pid]
        for pid in tree:
            tree += [child for child, parent in parents.items() if parent == pid]
        return tree


def _parents() -> dict[int, int]:
    parents = {}
    if _PROC.is_dir():
        for name in os.listdir(_PROC):  # noqa: PTH208 - names only
            if name.isdecimal() and (stat := _stat(int(name))):
                parents[int(name)] = int(stat[1])
    return parents


def _role(pid: int) -> str:
    """By the command that it was started with."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    program = Path(words[0].partition(" ")[0]).name
    if program in ("redis-server", "valkey-server"):
        return "redis"
    return next((role for role in ROLES if role in words[1:5]), "")


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on: the second may hold blanks."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _read(pid: int) -> _Process | None:
    stat = _stat(pid)
    if stat is None:
        return None
    threads = {}
    try:
        for thread in (_PROC / str(pid) / "task").iterdir():
            threads[thread.name] = int((thread / "schedstat").read_text().split()[0])
    except (OSError, IndexError):
        threads = {}  # one has ended just now, or this kernel does not count: ticks must do
    return _Process(sum(int(stat[at]) for at in range(11, 15)), _role(pid), threads)


def _memory(pid: int) -> int | None:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "Pss":
                return int(rest.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return None

"""A file system in memory that lies: it forgets what was not fsynced, and more.

Implements `amsync.storage.FileSystem`. Bytes survive a crash after fsync of their file, names
after fsync of their directory; a failed fsync loses the bytes for good, as in Linux. Every
mutating call is a boundary: `crash_at` stops the machine before the call of that number (a
write is cut in half), and `restart` brings it back with what was durable, or with a seeded
choice of the rest: names that came and went then survive in any order, renames too.

`machine` is the same disk as another machine sees it over a network file system: names that one
machine has made are hidden from the others for `name_delay_seconds` of `now`, as attribute
caching does, unless they run into them; locks may be unknown, or known to one machine only.
"""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, cast

from amsync.storage.files import Entry, FileStat, FileSystem, HeldLock, LockHeld, WritableFile


class MachineDown(BaseException):
    """The simulated machine is down; no code under test may swallow this."""


class _File:
    def __init__(self) -> None:
        self.data = b""
        self.durable = b""
        self.poisoned = False
        self.modified_ns = 0


class _Directory:
    def __init__(self) -> None:
        self.entries: dict[str, _File | _Directory] = {}
        self.durable: dict[str, _File | _Directory] = {}
        # For each name who gave it a new meaning when, and what it meant before.
        self.history: dict[str, list[tuple[float, str, _File | _Directory | None]]] = {}
        self.met: set[tuple[str, str]] = set()


@dataclass
class _Holder:
    machine: str
    is_shared: bool


_Node = _File | _Directory

THE_DISK = "the disk itself"
"""Who looks if nobody else does; nothing is hidden from it."""

KEEP_NOTHING = "nothing"
KEEP_EVERYTHING = "everything"


class MemoryFileSystem:
    """See the module.

    Attributes:
        operations: Mutating calls so far.
        crash_at: The number of the call that stops the machine, or None.
        fault: Asked before every mutating call with (operation, path); an errno makes the call
            fail (a write after half of its bytes).
        log: (operation, path) of every mutating call.
        reads: Reading calls so far.
        now: Seconds, moved by the test.
        name_delay_seconds: See the module.
        is_network: What `is_networked` answers.
        locks: "all" where every machine sees every lock, "own" where each sees its own, "none".
    """

    def __init__(self) -> None:
        self._root = _Directory()
        self._lock = threading.RLock()
        self._held: dict[Path, list[_Holder]] = {}
        self._down = False
        self._generation = 0
        self.operations = 0
        self.crash_at: int | None = None
        self.fault: Callable[[str, Path], int | None] | None = None
        self.log: list[tuple[str, Path]] = []
        self.reads = 0
        self.now = 0.0
        self.name_delay_seconds = 60.0
        self.is_network = False
        self.locks = "all"
        self._viewer = THE_DISK

    def machine(self, name: str) -> FileSystem:
        """The disk as another machine sees it."""
        return cast(FileSystem, _Machine(self, name))

    def restart(self, keep: str | Random = KEEP_NOTHING) -> None:
        """Lose power (or only the process, with KEEP_EVERYTHING) and come back."""
        with self._lock:
            if keep != KEEP_EVERYTHING:
                self._settle(self._root, keep if isinstance(keep, Random) else None, set())
            self._held.clear()
            self._down = False
            self._generation += 1
            self.crash_at = None
            self.fault = None

    def restart_process(self, keep: str | Random) -> None:
        """Lose a machine's power, or a process; other machines don't see its names sooner."""
        with self._lock:
            histories = self._histories(self._root)
            self.restart(keep)
            for directory, history in histories:
                directory.history = history

    def _histories(self, directory: _Directory) -> list[tuple[_Directory, dict[str, Any]]]:
        found = [(directory, dict(directory.history))]
        for node in directory.entries.values():
            if isinstance(node, _Directory):
                found += self._histories(node)
        return found

    def _settle(self, directory: _Directory, random: Random | None, seen: set[int]) -> None:
        kept = dict(directory.durable)
        if random is not None:
            for name in sorted(directory.entries.keys() | directory.durable.keys()):
                node = directory.entries.get(name)
                if node is not directory.durable.get(name) and random.random() < 0.5:
                    if node is None:
                        del kept[name]
                    else:
                        kept[name] = node
        directory.entries = kept
        directory.durable = dict(kept)
        directory.history.clear()
        for node in kept.values():
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, _Directory):
                self._settle(node, random, seen)
            else:
                extra = node.data[len(node.durable) :]
                if random is None or node.poisoned or not extra:
                    node.data = node.durable
                else:
                    node.data = node.durable + extra[: random.randint(0, len(extra))]
                node.durable = node.data
                node.poisoned = False

    def _enter(self, operation: str, path: Path) -> int | None:
        self._check()
        self.operations += 1
        self.log.append((operation, path))
        if self.crash_at is not None and self.operations >= self.crash_at:
            self._down = True
            if operation != "write":
                raise MachineDown
        return self.fault(operation, path) if self.fault is not None else None

    def _begin(self, operation: str, path: Path) -> None:
        error = self._enter(operation, path)
        if error is not None:
            raise OSError(error, os.strerror(error), str(path))

    def _check(self) -> None:
        if self._down:
            raise MachineDown

    def _find(self, path: Path) -> _Node:
        self._check()
        node: _Node = self._root
        for name in path.parts[1:]:
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
            found = self._seen(node, name)
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
            node = found
        return node

    def _seen(self, directory: _Directory, name: str) -> _Node | None:
        """What a name means to whoever looks."""
        node = directory.entries.get(name)
        if node is None or self._viewer == THE_DISK or (self._viewer, name) in directory.met:
            return node
        for at, machine, before in reversed(directory.history.get(name, ())):
            if machine == self._viewer or self.now - at >= self.name_delay_seconds:
                break
            node = before
        return node

    def _set(self, directory: _Directory, name: str, node: _Node) -> None:
        change = (self.now, self._viewer, directory.entries.get(name))
        directory.history.setdefault(name, []).append(change)
        directory.met = {(viewer, met) for viewer, met in directory.met if met != name}
        directory.entries[name] = node

    def _meet(self, directory: _Directory, path: Path) -> None:
        # The server said that the name is taken, so the machine looks it up anew.
        directory.met.add((self._viewer, path.name))
        raise FileExistsError(errno.EEXIST, "File exists", str(path))

    def _directory(self, path: Path) -> _Directory:
        node = self._find(path)
        if not isinstance(node, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(path))
        return node

    def _file(self, path: Path) -> _File:
        node = self._find(path)
        if not isinstance(node, _File):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        return node

    def create(self, path: Path) -> WritableFile:
        with self._lock:
            self._begin("create", path)
            parent = self._directory(path.parent)
            if path.name in parent.entries:
                self._meet(parent, path)
            file = _File()
            file.modified_ns = self.operations
            self._set(parent, path.name, file)
            return _Handle(self, path, file)

    def read(self, path: Path) -> bytes:
        with self._lock:
            self.reads += 1
            return self._file(path).data

    def stat(self, path: Path) -> FileStat:
        with self._lock:
            self.reads += 1
            node = self._find(path)
            if isinstance(node, _Directory):
                return FileStat(0, 0, True)
            return FileStat(len(node.data), node.modified_ns, False)

    def list_directory(self, path: Path) -> list[Entry]:
        with self._lock:
            self.reads += 1
            directory = self._directory(path)
            seen = [(name, self._seen(directory, name)) for name in sorted(directory.entries)]
            return [Entry(name, isinstance(node, _Directory)) for name, node in seen if node]

    def rename(self, source: Path, target: Path) -> None:
        with self._lock:
            self._begin("rename", source)
            node = self._file(source)
            parent = self._directory(target.parent)
            if isinstance(parent.entries.get(target.name), _Directory):
                raise IsADirectoryError(errno.EISDIR, "Is a directory", str(target))
            del self._directory(source.parent).entries[source.name]
            self._set(parent, target.name, node)

    def unlink(self, path: Path) -> None:
        with self._lock:
            self._begin("unlink", path)
            self._file(path)
            del self._directory(path.parent).entries[path.name]

    def make_directory(self, path: Path) -> None:
        with self._lock:
            self._begin("make_directory", path)
            parent = self._directory(path.parent)
            if path.name in parent.entries:
                self._meet(parent, path)
            self._set(parent, path.name, _Directory())

    def remove_directory(self, path: Path) -> None:
        with self._lock:
            self._begin("remove_directory", path)
            if self._directory(path).entries:
                raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
            del self._directory(path.parent).entries[path.name]

    def fsync_file(self, path: Path) -> None:
        with self._lock:
            self._fsync(path, self._file(path))

    def fsync_directory(self, path: Path) -> None:
        with self._lock:
            self._begin("fsync_directory", path)
            directory = self._directory(path)
            directory.durable = dict(directory.entries)

    def lock(self, path: Path, *, shared: bool = False) -> HeldLock:
        with self._lock:
            directory = self._directory(path.parent)
            if not shared and path.name not in directory.entries:
                self.create(path).close()
            # Opening asks the server, so the name is known from now on.
            directory.met.add((self._viewer, path.name))
            holders = self._held.setdefault(path, [])
            for holder in holders:
                is_seen = self.locks == "all" or holder.machine == self._viewer
                if self.locks != "none" and is_seen and not (shared and holder.is_shared):
                    raise LockHeld(self.read(path))
            holder = _Holder(self._viewer, shared)
            lock = _Lock(self, path, self._file(path), holder)
            holders.append(holder)
            return lock

    def is_networked(self, path: Path) -> bool:
        return self.is_network

    def machine_id(self) -> str:
        return self._viewer

    def kill(self, machine: str) -> None:
        """The processes of a machine are gone; what they wrote is as it was."""
        with self._lock:
            for holders in self._held.values():
                holders[:] = [holder for holder in holders if holder.machine != machine]

    def put(self, path: Path, data: bytes) -> None:
        """Place a durable file, as if it had always been there; for arranging a test."""
        with self._lock:
            node = self._root
            for name in path.parts[1:-1]:
                child = node.entries.setdefault(name, _Directory())
                assert isinstance(child, _Directory)
                node.durable[name] = child
                node = child
            file = _File()
            file.data = file.durable = data
            file.modified_ns = self.operations
            node.entries[path.name] = node.durable[path.name] = file

    def tree(self, root: Path) -> dict[str, bytes]:
        """All files below a directory, by relative path."""
        found: dict[str, bytes] = {}
        with self._lock:
            for entry in self.list_directory(root):
                path = root / entry.name
                if entry.is_directory:
                    inner = self.tree(path)
                    found |= {f"{entry.name}/{name}": data for name, data in inner.items()}
                else:
                    found[entry.name] = self.read(path)
        return found

    def durable_tree(self) -> dict[Path, bytes]:
        """All files, with their bytes, as a power failure now would leave them at the worst.

        Nothing is changed, and a machine that is down may be asked too.
        """
        found: dict[Path, bytes] = {}

        def below(directory: _Directory, path: Path) -> None:
            for name, node in directory.durable.items():
                if isinstance(node, _Directory):
                    below(node, path / name)
                else:
                    found[path / name] = node.durable

        with self._lock:
            below(self._root, Path("/"))
        return found

    def _fsync(self, path: Path, file: _File) -> None:
        error = self._enter("fsync", path)
        if error is not None:
            file.poisoned = True
            raise OSError(error, os.strerror(error), str(path))
        if not file.poisoned:
            file.durable = file.data

    def _write(self, path: Path, file: _File, data: bytes) -> None:
        error = self._enter("write", path)
        half = self._down or error is not None
        file.data += data[: len(data) // 2] if half else data
        file.modified_ns = self.operations
        if self._down:
            raise MachineDown
        if error is not None:
            raise OSError(error, os.strerror(error), str(path))


class _Handle:
    def __init__(self, files: MemoryFileSystem, path: Path, file: _File) -> None:
        self._files = files
        self._path = path
        self._file = file
        self._generation = files._generation

    def _check(self) -> None:
        if self._generation != self._files._generation:
            raise MachineDown

    def write(self, data: bytes) -> None:
        with self._files._lock:
            self._check()
            self._files._write(self._path, self._file, data)

    def fsync(self) -> None:
        with self._files._lock:
            self._check()
            self._files._fsync(self._path, self._file)

    def close(self) -> None:
        self._check()


class _Lock:
    def __init__(self, files: MemoryFileSystem, path: Path, file: _File, holder: _Holder) -> None:
        self.is_enforced = files.locks != "none"
        self._files, self._path, self._file, self._holder = files, path, file, holder
        self._generation = files._generation

    def write(self, content: bytes) -> None:
        with self._files._lock:
            if self._generation == self._files._generation:
                self._files._begin("overwrite", self._path)
                self._file.data = self._file.durable = content

    def release(self) -> None:
        with self._files._lock:
            holders = self._files._held.get(self._path, [])
            if self._generation == self._files._generation:
                holders[:] = [holder for holder in holders if holder is not self._holder]


class _Machine:
    """All calls of a `MemoryFileSystem`, made by another machine."""

    def __init__(self, files: MemoryFileSystem, name: str) -> None:
        self._files, self._name = files, name

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._files, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with self._files._lock:
                before, self._files._viewer = self._files._viewer, self._name
                try:
                    return method(*arguments, **named)
                finally:
                    self._files._viewer = before

        return call

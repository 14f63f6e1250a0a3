"""The file operations that storage uses, as a port, and their real implementation.

Not here: what is written where, and in which order (`durable`, `wal`, `documents`).

Everything on the volume goes through `FileSystem`, so that tests can run the shipped code over
a store that loses what was not fsynced (tests/support/memfs.py). All methods raise OSError;
`storage_errors` turns it into this package's errors.
"""

import errno
import fcntl
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from amsync.errors import StorageError, StorageFull

LOCAL_FILE_SYSTEMS = (
    *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "overlay"),
    *("ramfs", "reiserfs", "tmpfs", "ufs", "xfs", "zfs"),
)
"""File systems that one machine alone mounts: its kernel's locks and caches are the truth."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a directory."""

    name: str
    is_directory: bool


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size in bytes and time of the last change in nanoseconds."""

    size_bytes: int
    modified_ns: int
    is_directory: bool


class LockHeld(Exception):
    """Another holder has the lock; `args[0]` is what it wrote into the file."""


class WritableFile(Protocol):
    """A new file that is open for appending."""

    def write(self, data: bytes) -> None:
        """Append all of `data` or raise; after an error any part of it may be in the file."""
        ...

    def fsync(self) -> None:
        """Make the content durable; says nothing about the file's name."""
        ...

    def close(self) -> None:
        """Give the descriptor back; makes nothing durable."""
        ...


class HeldLock(Protocol):
    """A lock on a file, held until released or until the process dies."""

    @property
    def is_enforced(self) -> bool:
        """The system keeps others out; False where the file system knows no locks."""
        ...

    def write(self, content: bytes) -> None:
        """Replace the content of the locked file in place, durably.

        Not atomic: a reader may see a part. In place, because other machines go on seeing a
        file that was replaced under its name for as long as they cache names.
        """
        ...

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        ...


class FileSystem(Protocol):
    """What storage asks of a file system. Paths are absolute. Thread-safe."""

    def create(self, path: Path) -> WritableFile:
        """Make a new file for appending; FileExistsError if the name is taken (O_EXCL)."""
        ...

    def read(self, path: Path) -> bytes:
        """Read a whole file; FileNotFoundError if there is none, or something else."""
        ...

    def stat(self, path: Path) -> FileStat:
        """Size and time; FileNotFoundError if there is nothing."""
        ...

    def list_directory(self, path: Path) -> list[Entry]:
        """All names of a directory, sorted."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing an existing target file at once."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        ...

    def make_directory(self, path: Path) -> None:
        """Make one directory; FileExistsError if the name is taken."""
        ...

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        ...

    def fsync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        ...

    def fsync_file(self, path: Path) -> None:
        """Make the content of an existing file durable, whoever wrote it."""
        ...

    def lock(self, path: Path, *, shared: bool = False) -> HeldLock:
        """Take a lock on a file: exclusive, made if missing; or shared, of a file that exists.

        Raises:
            LockHeld: Somebody else has it, in this process or another.
        """
        ...

    def is_networked(self, path: Path) -> bool:
        """Tell whether other machines may have this file system mounted; True if unknown."""
        ...

    def machine_id(self) -> str:
        """Name this start of this machine; processes with equal ones share their locks."""
        ...


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError inside the block into StorageError or StorageFull."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"could not {action} {path}: {reason}; make room, writing resumes by itself"
            ) from error
        raise StorageError(f"could not {action} {path}: {reason}") from error


def path_exists(files: FileSystem, path: Path) -> bool:
    """Tell whether there is a file or directory of this name. Raises OSError."""
    try:
        files.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def list_names(files: FileSystem, path: Path) -> list[Entry]:
    """List a directory; one that is missing is empty. Raises OSError."""
    try:
        return files.list_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


class RealFileSystem:
    """`FileSystem` over the operating system."""

    def create(self, path: Path) -> WritableFile:
        """Make a new file for appending."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return _RealFile(os.open(path, flags, 0o644))

    def read(self, path: Path) -> bytes:
        """Read a whole file; what is none counts as missing, since a pipe would never answer."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOENT
            raise OSError(number, "Not a regular file", str(path))
        with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
            return file.read()

    def stat(self, path: Path) -> FileStat:
        """Size and time."""
        found = path.stat()
        return FileStat(found.st_size, found.st_mtime_ns, stat.S_ISDIR(found.st_mode))

    def list_directory(self, path: Path) -> list[Entry]:
        """All names of a directory, sorted."""
        with os.scandir(path) as entries:
            return sorted(
                (Entry(entry.name, entry.is_dir()) for entry in entries),
                key=lambda entry: entry.name,
            )

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing an existing target file."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make one directory."""
        path.mkdir()

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def fsync_file(self, path: Path) -> None:
        """Make the content of an existing file durable."""
        self._fsync_path(path, 0)

    def fsync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        self._fsync_path(path, os.O_DIRECTORY)

    def _fsync_path(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        try:
            _fsync(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, path: Path, *, shared: bool = False) -> HeldLock:
        """Take a flock; the kernel gives it back when the process dies."""
        flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        is_enforced = True
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            content = os.pread(descriptor, 1_000, 0)
            os.close(descriptor)
            raise LockHeld(content) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            is_enforced = False
        return _RealLock(descriptor, is_enforced)

    def is_networked(self, path: Path) -> bool:
        """Look the mount up; only file systems known to be of one machine are not networked."""
        try:
            mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return sys.platform != "darwin"
        return file_system_of(mounts, path.resolve()) not in LOCAL_FILE_SYSTEMS

    def machine_id(self) -> str:
        """The kernel's id of this boot, or else the host's name."""
        with suppress(OSError):
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return socket.gethostname()


def file_system_of(mounts: str, path: Path) -> str | None:
    """Find the type of the file system that holds a path, in the text of a mountinfo file."""
    best, found = Path(), None
    for line in mounts.splitlines():
        mount, separator, source = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = Path(_OCTAL.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        # A later mount on the same point hides the earlier one.
        if path.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, found = point, source.split(" ")[0]
    return found


def _fsync(descriptor: int) -> None:
    # macOS: fsync leaves the data in the drive's cache; F_FULLFSYNC does not.
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


class _RealFile:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            if written == 0:
                raise OSError(errno.EIO, "write took no bytes")
            view = view[written:]

    def fsync(self) -> None:
        _fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class _RealLock:
    def __init__(self, descriptor: int, is_enforced: bool) -> None:
        self._descriptor = descriptor
        self.is_enforced = is_enforced

    def write(self, content: bytes) -> None:
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
        _fsync(self._descriptor)

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

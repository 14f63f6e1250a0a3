"""A directory as a distrusting bystander reads it.

Not here: what the files mean. Paths are tuples of names below the root. Invariants: nothing is
opened for writing; no symbolic link below the root is followed, also when one is put in place
in the middle of a call; what is neither a file nor a folder is never opened for reading; no more
bytes are read than the caller allows.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

Parts = tuple[str, ...]

_PIECE_BYTES = 16 * 1024 * 1024
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class What(Enum):
    """What a name stands for."""

    FILE = auto()
    FOLDER = auto()
    SYMLINK = auto()
    SPECIAL = auto()
    """A pipe, a socket, a device."""


@dataclass(frozen=True, slots=True)
class Name:
    """One name in a folder."""

    name: str
    what: What


class TooLarge(Exception):
    """A file has more bytes than the caller allows; `args[0]` is their number."""


class Tree:
    """See the module. Must be closed."""

    def __init__(self, root: Path) -> None:
        """Open the root, which may be reached by a symbolic link. Raises OSError."""
        self._root = os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._root)

    def list(self, folder: Parts) -> list[Name]:
        """All names in a folder, sorted. Raises OSError."""
        with self._folder(folder) as descriptor, os.scandir(descriptor) as entries:
            return sorted(
                (Name(entry.name, _what(entry)) for entry in entries), key=lambda each: each.name
            )

    def read(self, file: Parts, limit_bytes: int) -> bytes:
        """Read a whole file.

        Raises:
            TooLarge: It has more than `limit_bytes`.
            OSError: It can't be read, or is no file.
        """
        with self._folder(file[:-1]) as folder:
            # A pipe without a writer would keep us waiting for one.
            descriptor = os.open(file[-1], _FLAGS | os.O_NONBLOCK, dir_fd=folder)
        try:
            return _read(descriptor, limit_bytes)
        finally:
            os.close(descriptor)

    def has_file(self, file: Parts) -> bool:
        """Tell whether there is a regular file of this name. Raises OSError."""
        try:
            with self._folder(file[:-1]) as folder:
                found = os.stat(file[-1], dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(found.st_mode)

    @contextlib.contextmanager
    def _folder(self, parts: Parts) -> Iterator[int]:
        descriptor = os.dup(self._root)
        try:
            for name in parts:
                below = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


def _read(descriptor: int, limit_bytes: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "it is no file")
    if found.st_size > limit_bytes:
        raise TooLarge(found.st_size)
    pieces: list[bytes] = []
    left = limit_bytes + 1  # it may be growing
    while left > 0 and (piece := os.read(descriptor, min(left, _PIECE_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise TooLarge(limit_bytes + 1)
    return b"".join(pieces)


def _what(entry: "os.DirEntry[str]") -> What:
    try:
        if entry.is_symlink():
            return What.SYMLINK
        if entry.is_dir(follow_symlinks=False):
            return What.FOLDER
        if entry.is_file(follow_symlinks=False):
            return What.FILE
    except OSError:
        return What.FILE  # reading it will say why
    return What.SPECIAL


def shown(parts: Parts) -> str:
    """A path as text for people and JSON: relative, bytes that are not UTF-8 as `\\xff`."""
    raw = "/".join(parts).encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace") or "."

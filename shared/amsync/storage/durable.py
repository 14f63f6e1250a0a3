"""Writing whole files so that they are there after a crash, or not at all.

Not here: what the files mean. Invariant: a file under its final name is complete, because it
is written in `.amsync/tmp`, fsynced, renamed, and its directory fsynced; automerge-repo reads
every file that it finds in a document's folder, so no half file may ever stand there.
"""

import contextlib
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from amsync.errors import ReadBackDiffers, StorageError
from amsync.storage.files import Entry, FileSystem, list_names, storage_errors

KNOWN_DIRECTORIES = 65_536
"""Directories remembered as durable; the memory starts afresh when it is full."""

_ROOT = "."


class DurableFiles:
    """Durable writes and removals below one root. Thread-safe.

    Args of the constructor:
        root: The data directory; must exist and be durable itself.
        scratch: Where unfinished files stand; on the same file system.
        owner: Part of the names of unfinished files, unique to this opening of the volume.
    """

    def __init__(self, files: FileSystem, root: Path, scratch: Path, owner: str) -> None:
        self._files = files
        self._root = root
        self._scratch = scratch
        self._owner = owner
        self._numbers = count(1)
        self._known_lock = threading.Lock()
        # By the text of their way from the root: there are two or three for each document, and
        # a `Path` takes 400 bytes more.
        self._known = {_ROOT}

    def ensure_directory(self, path: Path) -> None:
        """Make a directory and its parents up to the root, durably.

        The parent of one that exists is fsynced too: a process that was killed may have made
        it without coming to that.

        Raises:
            StorageError, StorageFull
        """
        name = self._name(path)
        with self._known_lock:
            if name in self._known:
                return
        self.ensure_directory(path.parent)
        with storage_errors("make directory", path):
            with contextlib.suppress(FileExistsError):
                self._files.make_directory(path)
            self._files.fsync_directory(path.parent)
        with self._known_lock:
            if len(self._known) >= KNOWN_DIRECTORIES:
                self._known = {_ROOT}
            self._known.add(name)

    def _name(self, path: Path) -> str:
        try:
            return str(path.relative_to(self._root))
        except ValueError:
            raise StorageError(f"{path} is not below {self._root}") from None

    def write(self, path: Path, data: bytes) -> None:
        """Write a whole file durably, replacing one of that name, and read it back.

        Raises:
            StorageError, StorageFull: The file is there whole or not at all, perhaps not
                durably; nothing may be deleted that it was to replace.
            ReadBackDiffers: The same; somebody else may have written it at the same time.
        """
        try:
            self._write(path, data)
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            # Somebody has removed a directory that we know of.
            with self._known_lock:
                self._known = {_ROOT}
            self._write(path, data)

    def _write(self, path: Path, data: bytes) -> None:
        self.ensure_directory(path.parent)
        self.ensure_directory(self._scratch)
        draft = self._scratch / f"{self._owner}-{next(self._numbers)}"
        with storage_errors("write", path):
            try:
                file = self._files.create(draft)
                try:
                    file.write(data)
                    file.fsync()
                finally:
                    file.close()
                self._files.rename(draft, path)
            except OSError:
                with contextlib.suppress(OSError):
                    self._files.unlink(draft)
                raise
            self._files.fsync_directory(path.parent)
            if self._files.read(path) != data:
                raise ReadBackDiffers(f"{path} reads back other bytes than were written")

    def move(self, source: Path, target: Path) -> None:
        """Move a file durably, by copy: it is whole under one of the names at any instant.

        A rename between directories may lose both names on a file system without a journal.

        Raises:
            StorageError, StorageFull
        """
        with storage_errors("read", source):
            data = self._files.read(source)
        self.write(target, data)
        self.remove([source])

    def remove(self, paths: Sequence[Path], also: Sequence[Path] = ()) -> None:
        """Remove files durably; ones that are gone already are fine.

        Args:
            paths: The files.
            also: Directories in which an earlier call may have removed files, and then failed.

        Raises:
            StorageError, StorageFull
        """
        for path in paths:
            with storage_errors("remove", path), contextlib.suppress(FileNotFoundError):
                self._files.unlink(path)
        for parent in dict.fromkeys([*(path.parent for path in paths), *also]):
            with storage_errors("fsync", parent), contextlib.suppress(FileNotFoundError):
                self._files.fsync_directory(parent)

    def remove_empty_directory(self, path: Path) -> None:
        """Remove a directory if it is empty; anything else is left as it is.

        Not durably: an empty directory that comes back harms nobody.
        """
        with self._known_lock:
            self._known.discard(self._name(path))
        with contextlib.suppress(OSError):
            self._files.remove_directory(path)

    def clear_scratch(self) -> None:
        """Remove what a killed process left unfinished.

        Only for the sole holder of the volume.

        Raises:
            StorageError
        """
        with storage_errors("clear", self._scratch):
            leftover: list[Entry] = list_names(self._files, self._scratch)
            for entry in leftover:
                if not entry.is_directory:
                    # A full disk may not even let go of a file.
                    with contextlib.suppress(OSError):
                        self._files.unlink(self._scratch / entry.name)

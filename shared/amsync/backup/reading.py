"""Reading a backup, which may have been damaged, or made by somebody hostile.

Nothing is extracted: names in an archive are only compared, and links are not followed. What it
says of sizes is believed within bounds: a few kilobytes can stand for any number of zeros.
"""

import errno
import gzip
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol, cast

from amsync.backup.manifest import (
    MOST_DOCUMENT_BYTES,
    NAME,
    Manifest,
    ManifestDamaged,
    Stored,
)
from amsync.errors import AmsyncError, InvalidDocument
from amsync.ids import DocumentId
from amsync.storage.codec import ChunkCodec
from amsync.storage.importer import SUFFIX

MOST_PROBLEMS = 20
"""Named by an error; more are counted."""

GZIP = b"\x1f\x8b"

Progress = Callable[[int, int], None]


class BackupDamaged(InvalidDocument):
    """What is in a backup is not what its manifest says."""


class Backup(Protocol):
    """A backup that can be read more than once."""

    manifest: Manifest

    def documents(self) -> Iterator[tuple[DocumentId, bytes]]:
        """Saved documents that the manifest names, in any order; what is not there is left out.

        Raises:
            BackupDamaged: It can't be read on.
            OSError
        """


def open_backup(path: Path) -> Backup:
    """Open a folder or an archive and read its manifest.

    Raises:
        BackupDamaged, OSError
    """
    try:
        return _Folder(path) if path.is_dir() else _Archive(path)
    except ManifestDamaged as error:
        raise BackupDamaged(f"{path}: {error}") from error


def verify(backup: Backup, codec: ChunkCodec, progress: Progress) -> None:
    """Read all of it, load each document, and compare it with the manifest.

    Args:
        backup: An open one.
        codec: The engine.
        progress: Told after each document how many of how many are done.

    Raises:
        BackupDamaged: Names what is wrong.
        OSError
    """
    missing = dict(backup.manifest.documents)
    total = len(missing)
    problems: list[str] = []
    for document_id, saved in backup.documents():
        stored = missing.pop(document_id, None)
        if stored is None:
            problems.append(f"{document_id} is there twice")
            continue
        try:
            check_document(stored, saved, codec)
        except InvalidDocument as error:
            problems.append(str(error))
        progress(total - len(missing), total)
    problems += [f"{document_id} is missing" for document_id in missing]
    if problems:
        more = len(problems) - MOST_PROBLEMS
        listed = "; ".join(problems[:MOST_PROBLEMS]) + (f"; and {more:,} more" if more > 0 else "")
        raise BackupDamaged(f"the backup is damaged: {listed}")


def check_document(stored: Stored, saved: bytes, codec: ChunkCodec) -> None:
    """Compare a saved document with what a manifest says of it.

    Raises:
        BackupDamaged
    """
    name = stored.document_id
    if not stored.is_of(saved):
        raise BackupDamaged(f"{name} has other bytes than were saved")
    try:
        found = codec.inspect(saved)
    except AmsyncError as error:
        raise BackupDamaged(f"{name} does not load: {error}") from error
    if (found.heads, found.change_count) != (stored.heads, stored.change_count):
        raise BackupDamaged(f"{name} holds another history than the manifest says")


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with closing(_open_file(path / NAME)) as file:
                self.manifest = Manifest.unpack(file)
        except FileNotFoundError:
            raise BackupDamaged(f"{path} is no backup: it has no {NAME}") from None

    def documents(self) -> Iterator[tuple[DocumentId, bytes]]:
        for each in self.manifest.documents.values():
            try:
                with closing(_open_file(self._path / f"{each.document_id}{SUFFIX}")) as file:
                    saved = file.read(each.size_bytes + 1)
            except FileNotFoundError:
                continue
            yield each.document_id, saved


class _Archive:
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._tar() as tar:
            for name, file in _files(tar):
                if name == NAME:
                    self.manifest = Manifest.unpack(file)
                    return
        raise BackupDamaged(f"{path} is no backup, or was cut off: it has no {NAME}")

    def documents(self) -> Iterator[tuple[DocumentId, bytes]]:
        known = {f"{name}{SUFFIX}": each for name, each in self.manifest.documents.items()}
        with self._tar() as tar:
            for name, file in _files(tar):
                if stored := known.get(name):
                    yield stored.document_id, file.read(stored.size_bytes + 1)

    @contextmanager
    def _tar(self) -> Iterator[tarfile.TarFile]:
        try:
            with (
                _opened(self._path) as file,
                tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as tar,
            ):
                yield tar
        except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise BackupDamaged(f"{self._path} is no backup, or damaged: {error}") from error


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """The tar, whether it is compressed or not."""
    with path.open("rb") as file:
        is_compressed = file.read(len(GZIP)) == GZIP
    return gzip.open(path) if is_compressed else path.open("rb")


class _Bounded:
    """A file of which so much is read at once as a backup may have, and no more.

    tarfile reads a long name, or further headers, as long as they say they are.
    """

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MOST_DOCUMENT_BYTES + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it has a part of {size:,} bytes")
        return self._file.read(size)


def _files(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        # What a link's file would be is another member; and nobody has made a sparse one.
        if member.isreg() and not member.issparse() and (file := tar.extractfile(member)):
            yield member.name, file


def _open_file(path: Path) -> BinaryIO:
    """Open a plain file; links are not followed, and pipes not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BackupDamaged(f"{path} is a symbolic link") from None
        raise
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise BackupDamaged(f"{path} is no file")
    return file

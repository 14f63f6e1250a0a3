"""Making a backup: under another name until it is whole, verified and durable.

Not here: reading documents. `<name>.unfinished` is ours, and locked: what an earlier run has left
there is replaced, and what an interrupted one leaves is removed.
"""

import datetime
import fcntl
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Literal, Protocol

from amsync.backup.manifest import MOST_DOCUMENT_BYTES, NAME, Manifest, Stored, Unsaved
from amsync.backup.reading import Progress, open_backup, verify
from amsync.errors import DocumentExists, InvalidDocument
from amsync.ids import DocumentId
from amsync.storage import RealFileSystem
from amsync.storage.codec import ChunkCodec
from amsync.storage.importer import SUFFIX

_Mode = Literal["x", "x:gz"]
ARCHIVES: dict[str, _Mode] = {".tar": "x", ".tar.gz": "x:gz", ".tgz": "x:gz"}
UNFINISHED = ".unfinished"


class _Form(Protocol):
    def add(self, name: str, data: bytes) -> None: ...

    def close(self) -> None: ...


class BackupWriter:
    """Takes documents in; see `new_backup`.

    Attributes:
        manifest: Of the whole, once it has ended.
    """

    manifest: Manifest

    def __init__(self, form: _Form, codec: ChunkCodec, origin: Mapping[str, object]) -> None:
        self._form, self._codec, self._origin = form, codec, origin
        self._began = _now()
        self._documents: dict[DocumentId, Stored] = {}
        self._unsaved: list[Unsaved] = []

    def add(self, document_id: DocumentId, saved: bytes) -> Stored:
        """Write one document, once.

        Raises:
            InvalidDocument: It does not load, or is too large.
            OSError: It could not be written; the backup can't go on.
        """
        if len(saved) > MOST_DOCUMENT_BYTES:
            raise InvalidDocument(f"a backup takes at most {MOST_DOCUMENT_BYTES:,} bytes of each")
        found = self._codec.inspect(saved)
        stored = Stored.of(document_id, saved, found.heads, found.change_count)
        self._form.add(f"{document_id}{SUFFIX}", saved)
        self._documents[document_id] = stored
        return stored

    def lacks(self, document_id: DocumentId, problem: str) -> None:
        """Note that a document is not in the backup, or not whole."""
        self._unsaved.append(Unsaved(document_id, problem))

    def end(self) -> None:
        """Write the manifest: no document follows."""
        self.manifest = Manifest(self._began, _now(), self._origin, self._documents, self._unsaved)
        self._form.add(NAME, b"".join(self.manifest.pack()))


@contextmanager
def new_backup(
    path: Path,
    codec: ChunkCodec,
    origin: Mapping[str, object],
    progress: Progress = lambda _done, _total: None,
) -> Iterator[BackupWriter]:
    """Make a backup: an archive if the name ends in .tar, .tar.gz or .tgz, else a folder.

    When the block ends well, all of it is read again and compared (`progress` is told), and gets
    its name. Otherwise nothing is left.

    Raises:
        DocumentExists: There is something of that name, or another process is making it.
        BackupDamaged: It reads back as something else.
        OSError: It can't be written.
    """
    if path.is_symlink() or (path.exists() and not _is_empty_folder(path)):
        raise DocumentExists(f"{path} is there already")
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = _archive_suffix(path)
    draft = path.with_name(path.name.removesuffix(suffix) + UNFINISHED + suffix)
    with _alone(draft):
        _remove(draft)
    form = _Archive(draft, ARCHIVES[suffix]) if suffix else _Folder(draft)
    with _alone(draft), _removing(draft):
        with closing(form):
            writer = BackupWriter(form, codec, origin)
            yield writer
            writer.end()
        verify(open_backup(draft), codec, progress)
        _keep(draft)
        draft.rename(path)
        RealFileSystem().fsync_directory(path.parent)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir()

    def add(self, name: str, data: bytes) -> None:
        (self._path / name).write_bytes(data)

    def close(self) -> None:
        pass


class _Archive:
    def __init__(self, path: Path, mode: _Mode) -> None:
        # GNU tar's format takes every size, and needs no second header.
        self._tar = tarfile.TarFile.open(path, mode, format=tarfile.GNU_FORMAT)
        self._time = int(datetime.datetime.now(datetime.UTC).timestamp())

    def add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(data), self._time, 0o640
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()


def _archive_suffix(path: Path) -> str:
    return next((suffix for suffix in ARCHIVES if path.name.endswith(suffix)), "")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _keep(draft: Path) -> None:
    """Make sure that all of it is on disk."""
    for path in [*draft.iterdir(), draft] if draft.is_dir() else [draft]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _alone(draft: Path) -> Iterator[None]:
    """Hold the lock of a draft, if there is one and its file system has locks."""
    with ExitStack() as stack:
        with suppress(OSError):
            descriptor = os.open(draft, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DocumentExists(f"{draft} is being made by another process") from None
        yield


@contextmanager
def _removing(draft: Path) -> Iterator[None]:
    try:
        yield
    finally:
        _remove(draft)


def _remove(draft: Path) -> None:
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft)
    else:
        draft.unlink(missing_ok=True)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")

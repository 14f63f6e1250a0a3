"""Document folders in the layout of automerge-repo's NodeFS adapter, tombstones, quarantine.

Not here: the WAL, and when to compact or delete. Source of the layout: PROTOCOL 6.1; names of
files are never verified by any reader, so any unique name works, and contents in any order.

    <root>/<id[:2]>/<id[2:]>/snapshot/<sha256 of the heads' hex text>
    <root>/<id[:2]>/<id[2:]>/incremental/<sha256 of the bytes>
    <root>/.amsync/tombstones/<id>
    <root>/.amsync/quarantine/<number>-[<worker>-]<name>, with <number>-<name>.json beside it

Invariants: no file is overwritten by other content, only inputs that the caller names are
removed, and a tombstone is durable before anything of its document goes. Writers of one
document take turns (the store's duty); readers need no lock.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import InvalidDocumentId, StorageError
from amsync.ids import DocumentId, parse_document_id
from amsync.storage.files import list_names, path_exists, storage_errors
from amsync.storage.volume import CONTROL_DIRECTORY, Volume

RELISTS = 20
"""A reader lists again when a file vanished under it; more often than this is an error."""

QUARANTINED_NAME = 180
"""Characters of a file's name that are kept in quarantine; its note has all of its path."""

_KINDS = ("incremental", "snapshot")


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One file of a document, with its content."""

    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredSize:
    """One file of a document, with its size."""

    path: Path
    is_snapshot: bool
    size_bytes: int


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A file in quarantine.

    Attributes:
        path: Below the data directory.
        document_id: Of which document it was a file, if that is known.
        bytes: Its size.
        quarantined_at: In seconds since 1970, if that is known.
        reason: Why it is there, if that is known.
    """

    path: str
    document_id: DocumentId | None
    bytes: int
    quarantined_at: float | None
    reason: str | None


class DocumentFiles:
    """The document folders of one volume.

    Raises:
        StorageError: From the constructor: the quarantine can't be listed.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._root = volume.root
        self._files = volume.files
        self._durable = volume.durable
        self._tombstones = volume.control / "tombstones"
        self._quarantine = volume.control / "quarantine"
        self._quarantine_lock = threading.Lock()
        with storage_errors("list", self._quarantine):
            names = [entry.name for entry in list_names(self._files, self._quarantine)]
        self.quarantined_count = sum(not name.endswith(".json") for name in names)
        """Files in quarantine, also those of earlier openings."""
        self._quarantined_ids: set[DocumentId] | None = None
        self.written: set[Path] | None = None
        """Names of files written from now on, if somebody wants to tell them from others'."""

    def folder(self, document_id: DocumentId) -> Path:
        """Return a document's folder; the id must be canonical, or it must not get here."""
        return self._root / document_id[:2] / document_id[2:]

    def read(self, document_id: DocumentId) -> list[StoredBlob]:
        """Read every file of a document, snapshots first; empty if there is none.

        Raises:
            StorageError: A file could not be read, or files vanish all the time.
        """
        listed: list[Path] = []
        found: dict[Path, StoredBlob] = {}
        for _ in range(RELISTS):
            before, listed = listed, self.paths(document_id)
            found = {path: blob for path, blob in found.items() if path in listed}
            missing = False
            for path in listed:
                if path in found:
                    continue
                with storage_errors("read", path):
                    try:
                        found[path] = StoredBlob(path, self._files.read(path))
                    except (FileNotFoundError, IsADirectoryError):
                        missing = True
            if not missing:
                return [found[path] for path in listed]
            if listed == before:
                # Listed twice and never there: a link that leads nowhere, as editors make them.
                for path in listed:
                    if path not in found:
                        self._volume.findings.add("unreadable", path, "is listed but not there")
                return [found[path] for path in listed if path in found]
        raise StorageError(f"files of {self.folder(document_id)} vanish while being read")

    def sizes(self, document_id: DocumentId) -> list[StoredSize]:
        """List the files of a document with their sizes.

        Raises:
            StorageError
        """
        found: list[StoredSize] = []
        with storage_errors("list", self.folder(document_id)):
            for path in self._paths(document_id):
                with contextlib.suppress(FileNotFoundError):
                    size = self._files.stat(path).size_bytes
                    found.append(StoredSize(path, path.parent.name == "snapshot", size))
        return found

    def paths(self, document_id: DocumentId) -> list[Path]:
        """List the files of a document, snapshots first.

        Raises:
            StorageError
        """
        with storage_errors("list", self.folder(document_id)):
            return self._paths(document_id)

    def ids(self) -> Iterator[DocumentId]:
        """Find the ids of all documents that have a file; everything foreign is passed over.

        Raises:
            StorageError
        """
        return self.ids_after("", "", lambda _: True)

    def ids_after(
        self, prefix: str, after: str, is_wanted: Callable[[DocumentId], bool]
    ) -> Iterator[DocumentId]:
        """Find the ids behind `after` that begin with `prefix` and are wanted, sorted, as `ids`.

        Reads the folders of documents only as it comes to them.

        Raises:
            StorageError
        """
        with storage_errors("list", self._root):
            firsts = [
                each.name for each in list_names(self._files, self._root) if each.is_directory
            ]
        for first in firsts:
            if len(first) != 2 or first < after[:2] or first[: len(prefix)] != prefix[:2]:
                continue
            with storage_errors("list", self._root / first):
                rests = list_names(self._files, self._root / first)
            for rest in rests:
                name = first + rest.name
                if name <= after or not name.startswith(prefix) or not rest.is_directory:
                    continue
                document_id = _canonical(name)
                if document_id and is_wanted(document_id) and self.paths(document_id):
                    yield document_id

    def quarantined(self) -> list[str]:
        """Names of all files in quarantine, oldest first. Raises StorageError."""
        with storage_errors("list", self._quarantine):
            names = [entry.name for entry in list_names(self._files, self._quarantine)]
        return [name for name in names if not name.endswith(".json")]

    def quarantined_file(self, name: str) -> QuarantinedFile | None:
        """What is known of a file in quarantine; None if it is there no more.

        Raises:
            StorageError
        """
        path = self._quarantine / name
        note_path = self._quarantine / f"{name}.json"
        at = None
        with storage_errors("read", path):
            try:
                size_bytes = self._files.stat(path).size_bytes
            except FileNotFoundError:
                return None
            with contextlib.suppress(FileNotFoundError):
                at = self._files.stat(note_path).modified_ns / 1e9
            reason, document_id = self._read_note(note_path)
        shown = str(path.relative_to(self._root))
        return QuarantinedFile(shown, document_id, size_bytes, at, reason)

    def write_incremental(self, document_id: DocumentId, blob: bytes) -> Path:
        """Write chunks as one file, durably; return its path.

        Raises:
            StorageError, StorageFull
        """
        name = hashlib.sha256(blob).hexdigest()
        return self._write(document_id, "incremental", name, blob)

    def write_whole(self, document_id: DocumentId, saved: bytes) -> Path:
        """Write a saved document whose heads need not be known as one file, durably.

        Raises:
            StorageError, StorageFull
        """
        name = hashlib.sha256(saved).hexdigest()
        return self._write(document_id, "snapshot", name, saved)

    def write_snapshot(
        self, document_id: DocumentId, snapshot: bytes, heads: Sequence[bytes]
    ) -> Path:
        """Write a saved document as one file, durably; return its path.

        Raises:
            StorageError, StorageFull
        """
        name = hashlib.sha256("".join(head.hex() for head in heads).encode()).hexdigest()
        return self._write(document_id, "snapshot", name, snapshot)

    def replace(
        self,
        document_id: DocumentId,
        snapshot: bytes,
        heads: Sequence[bytes],
        superseded: Sequence[Path],
        may_remove: Callable[[], bool] | None = None,
    ) -> Path | None:
        """Write a snapshot that is proved to hold all of `superseded`, then remove exactly these.

        Returns:
            The snapshot's path; None if they stay, because `may_remove`, asked when the snapshot
            is written, said no.

        Raises:
            StorageError, StorageFull: Nothing was removed, or not all.
        """
        path = self.write_snapshot(document_id, snapshot, heads)
        if may_remove is not None and not may_remove():
            return None
        self._durable.remove([old for old in superseded if old != path])
        return path

    def quarantine(self, path: Path, why: str) -> Path | None:
        """Move a file out of the way, whole, and report it; None if it is gone already.

        Raises:
            StorageError, StorageFull: It may stand where it was.
        """
        with self._quarantine_lock:
            with storage_errors("quarantine", path):
                if not path_exists(self._files, path):
                    return None
                taken = {entry.name for entry in list_names(self._files, self._quarantine)}
            number = 1 + max(
                (int(head) for name in taken if (head := name.partition("-")[0]).isdecimal()),
                default=0,
            )
            kept = path.name[:QUARANTINED_NAME]
            if self._volume.member is not None:  # another worker may take the same number
                kept = f"{self._volume.owner}-{kept}"
            target = self._quarantine / f"{number:06d}-{kept}"
            fields = {"path": str(path.relative_to(self._root)), "why": why}
            note = self._quarantine / f"{target.name}.json"
            self._durable.write(note, (json.dumps(fields, indent=1) + "\n").encode())
            try:
                self._durable.move(path, target)
            except StorageError:
                with contextlib.suppress(StorageError):
                    self._durable.remove([note])
                raise
            self.quarantined_count += 1
            if self._quarantined_ids is not None and (name := self._id_of(path)) is not None:
                self._quarantined_ids.add(name)
        self._volume.findings.add("quarantined", path, why)
        return target

    def has_quarantined(self, document_id: DocumentId) -> bool:
        """Tell whether a file of this document is in quarantine.

        Raises:
            StorageError
        """
        with self._quarantine_lock:
            if self._quarantined_ids is None:
                with storage_errors("read", self._quarantine):
                    self._quarantined_ids = set(self._quarantined())
            return document_id in self._quarantined_ids

    def _quarantined(self) -> Iterator[DocumentId]:
        for entry in list_names(self._files, self._quarantine):
            if entry.name.endswith(".json"):
                _, found = self._read_note(self._quarantine / entry.name)
                if found is not None:
                    yield found

    def _read_note(self, path: Path) -> tuple[str | None, DocumentId | None]:
        """Why a file is in quarantine, and of which document it was; None for what is not known."""
        reason = document_id = None
        # One that can't be read must not cost any document but its own.
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError, OSError):
            note = json.loads(self._files.read(path))
            reason = str(note["why"]) if "why" in note else None
            document_id = self._id_of(self._root / note["path"])
        return reason, document_id

    def _id_of(self, path: Path) -> DocumentId | None:
        """The document that a file in its folder belongs to."""
        parts = path.relative_to(self._root).parts
        return _canonical(parts[0] + parts[1]) if len(parts) == 4 else None

    def delete(self, document_id: DocumentId) -> None:
        """Delete a document for good: tombstone first, then its files.

        Raises:
            StorageError, StorageFull: It may be deleted already; deleting again is harmless.
        """
        # Also when it is there: it may not have been fsynced.
        self._durable.write(self._tombstones / document_id, b"")
        self.remove_deleted(document_id)

    def remove_deleted(self, document_id: DocumentId) -> None:
        """Remove every file of a document whose tombstone is durable.

        Raises:
            StorageError, StorageFull
        """
        folder = self.folder(document_id)
        with storage_errors("delete", folder):
            kinds = [entry for entry in list_names(self._files, folder) if entry.is_directory]
            # sync-state holds what automerge-repo knew of its peers about this document.
            kinds = [entry for entry in kinds if entry.name in (*_KINDS, "sync-state")]
            for kind in kinds:
                entries = list_names(self._files, folder / kind.name)
                files = [entry for entry in entries if not entry.is_directory]
                self._durable.remove(
                    [folder / kind.name / entry.name for entry in files],
                    also=[folder / kind.name],
                )
                self._durable.remove_empty_directory(folder / kind.name)
        if kinds:
            self._durable.remove_empty_directory(folder)

    def tombstones(self) -> set[DocumentId]:
        """Find the ids of all deleted documents.

        Raises:
            StorageError
        """
        with storage_errors("list", self._tombstones):
            entries = list_names(self._files, self._tombstones)
        return {name for entry in entries if (name := _canonical(entry.name)) is not None}

    def is_deleted(self, document_id: DocumentId) -> bool:
        """Tell whether a document has a tombstone on disk.

        Raises:
            StorageError
        """
        with storage_errors("look for", self._tombstones / document_id):
            return path_exists(self._files, self._tombstones / document_id)

    def _paths(self, document_id: DocumentId) -> list[Path]:
        # Incrementals are listed before snapshots: a compaction between the two listings can
        # then hide nothing, because its snapshot was there before the first input went
        # (test_load_during_compaction_sees_every_chunk).
        folder = self.folder(document_id)
        found = [
            folder / kind / entry.name
            for kind in _KINDS
            for entry in list_names(self._files, folder / kind)
            if not entry.is_directory
        ]
        return sorted(found, key=lambda path: path.parent.name, reverse=True)

    def _write(self, document_id: DocumentId, kind: str, name: str, blob: bytes) -> Path:
        # A file of this name with other content may be torn, or another encoding of the same
        # changes; either way it is not ours to replace.
        folder = self.folder(document_id) / kind
        path = folder / name
        for attempt in range(RELISTS):
            with storage_errors("read", path):
                if not path_exists(self._files, path) or self._files.read(path) == blob:
                    break
            again = b"%d" % attempt + hashlib.sha256(blob).digest()
            path = folder / hashlib.sha256(again).hexdigest()
        else:
            raise StorageError(f"every name for a file in {folder} is taken by other content")
        # Also when it is there with the same bytes: it may not have been fsynced.
        self._durable.write(path, blob)
        written = self.written  # which another thread may be about to forget
        if written is not None:
            written.add(path)
        return path


def _canonical(name: str) -> DocumentId | None:
    if name == CONTROL_DIRECTORY:
        return None
    try:
        document_id = parse_document_id(name)
    except InvalidDocumentId:
        return None
    return document_id if document_id == name else None

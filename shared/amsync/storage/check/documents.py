"""One document of a data directory: whether all that is stored of it loads together.

Not here: where documents are (`check`). Memory is bounded by one document. Invariant: what is
reported was seen twice, so that a server or another program at work in the folder is not taken
for damage.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from amsync.errors import InvalidDocument
from amsync.ids import DocumentId
from amsync.storage.check.log import WAL
from amsync.storage.check.lookout import Lookout
from amsync.storage.check.problems import Problem, Severity
from amsync.storage.check.tree import Parts, Tree, What
from amsync.storage.codec import BlobFault, ChunkCodec, Examination
from amsync.storage.documents import RELISTS

DOCUMENT_BYTES = 1024**3
"""Bytes of one document's files that are read; more are a finding."""

# In this order: a compaction between the two listings then hides nothing (see `DocumentFiles`).
_KINDS = ("incremental", "snapshot")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document is stored.

    Attributes:
        document_id: None if its folder's name is no document id.
        folder: Its folder, if it has one.
        flat_files: Flat files of it; more than one if they spell its id differently.
        chunks: From the log.
        is_partial: Part of the log could not be read.
    """

    document_id: DocumentId | None
    folder: Parts | None = None
    flat_files: tuple[Parts, ...] = ()
    chunks: Sequence[bytes] = ()
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found of a document.

    Attributes:
        problems: Findings.
        change_count: Different changes, without those that wait.
        file_count: Files in its folder and flat files.
        file_bytes: Of all files.
    """

    problems: tuple[Problem, ...]
    change_count: int
    file_count: int
    file_bytes: int


class DocumentCheck:
    """Examines documents one by one."""

    def __init__(self, tree: Tree, codec: ChunkCodec, limit_bytes: int = DOCUMENT_BYTES) -> None:
        self._tree = tree
        self._codec = codec
        self._limit_bytes = limit_bytes

    def examine(self, place: Place) -> Examined:
        """Examine a document; twice if it seems bad."""
        first = self._examine(place)
        is_bad = any(each.severity is not Severity.NOTE for each in first.problems)
        return self._examine(place) if is_bad else first

    def has_chunk_folders(self, folder: Parts) -> bool:
        """Tell whether a folder looks like a document's, whatever its name."""
        names = Lookout(self._tree).entries(folder)
        return any(each.name in _KINDS and each.what is What.FOLDER for each in names)

    def file_count(self, place: Place) -> int:
        """Count the files of a document, in its folder and flat ones, without reading them."""
        return sum(1 for _ in self._files(Lookout(self._tree), place))

    def _examine(self, place: Place) -> Examined:
        for _ in range(RELISTS):
            look = Lookout(self._tree)
            files = list(self._files(look, place))
            blobs = self._read(look, place, files)
            if not look.has_vanished:
                break
        else:
            detail = "its files vanish all the time"
            look.note("unreadable", place.folder or (), detail, place.document_id)
        origins: list[Parts] = [each for each, _ in blobs] + [WAL for _ in place.chunks]
        data = [each for _, each in blobs] + list(place.chunks)
        change_count = self._judge(look, place, origins, data)
        return Examined(
            problems=tuple(look.drain()),
            change_count=change_count,
            file_count=len(files),
            file_bytes=sum(len(each) for _, each in blobs),
        )

    def _files(self, look: Lookout, place: Place) -> Iterator[Parts]:
        folder = place.folder
        for each in look.entries(folder, place.document_id) if folder else ():
            assert folder is not None
            parts = (*folder, each.name)
            if each.name == "sync-state":
                continue  # automerge-repo's own
            if each.name not in _KINDS:
                what = "a folder" if each.what is What.FOLDER else "a file"
                look.note("foreign_file", parts, f"{what} in a document", place.document_id)
            elif each.what is not What.FOLDER:
                look.note("in_the_way", parts, "a folder should be here", place.document_id)
            else:
                yield from self._chunk_files(look, parts, place.document_id)
        yield from (each for each in place.flat_files if self._tree.has_file(each))

    def _chunk_files(
        self, look: Lookout, folder: Parts, document_id: DocumentId | None
    ) -> Iterator[Parts]:
        for each in look.entries(folder, document_id):
            if each.what is What.FILE:
                yield (*folder, each.name)
            else:
                parts = (*folder, each.name)
                look.note("in_the_way", parts, "a folder among files of changes", document_id)

    def _read(
        self, look: Lookout, place: Place, files: Sequence[Parts]
    ) -> list[tuple[Parts, bytes]]:
        blobs: list[tuple[Parts, bytes]] = []
        left = self._limit_bytes
        for file in files:
            data = look.read(file, left, place.document_id)
            if data is None:
                continue
            left -= len(data)
            blobs.append((file, data))
            if not data and file not in place.flat_files:
                look.note("empty_file", file, "a file without bytes", place.document_id)
        return blobs

    def _judge(
        self, look: Lookout, place: Place, origins: Sequence[Parts], data: Sequence[bytes]
    ) -> int:
        whole = place.folder or (place.flat_files[0] if place.flat_files else WAL)
        document_id = place.document_id
        try:
            found = self._codec.examine(data)
        except InvalidDocument as error:
            self._blame(look, place, origins, data)
            look.note("unloadable_document", whole, f"the engine fails on it: {error}", document_id)
            return 0
        for fault in found.faults:
            self._note_fault(look, place, origins[fault.index], fault)
        self._note_empty_flat_files(look, place, origins, data)
        if look.is_blind or place.is_partial:
            return found.change_count  # what seems missing may be where we could not look
        if found.orphan_count:
            detail = f"{found.orphan_count:,} changes wait for others that are not stored"
            look.note("waiting_changes", whole, detail, document_id)
        if _nothing_loads(found) and any(fault.is_chunk for fault in found.faults):
            look.note("unloadable_document", whole, "nothing of it loads", document_id)
        return found.change_count

    def _note_fault(self, look: Lookout, place: Place, origin: Parts, fault: BlobFault) -> None:
        kind = "torn_file"
        if origin == WAL:
            kind = "bad_wal_chunk"
        elif origin in place.flat_files:
            kind = "torn_flat_file"
        elif fault.is_conflict:
            kind = "conflicting_file"
        elif not fault.is_chunk:
            kind = "not_a_chunk"
        detail = fault.why
        if fault.good_count:
            plural = "changes load" if fault.good_count > 1 else "change loads"
            detail = f"{fault.good_count:,} {plural}; the rest does not: {fault.why}"
        look.note(kind, origin, detail, place.document_id)

    def _note_empty_flat_files(
        self, look: Lookout, place: Place, origins: Sequence[Parts], data: Sequence[bytes]
    ) -> None:
        for origin, blob in zip(origins, data, strict=True):
            if not blob and origin in place.flat_files:
                look.note("torn_flat_file", origin, "it has no bytes", place.document_id)

    def _blame(
        self, look: Lookout, place: Place, origins: Sequence[Parts], data: Sequence[bytes]
    ) -> None:
        """Find the files on which the engine fails also when they are alone."""
        for index, (origin, blob) in enumerate(zip(origins, data, strict=True)):
            try:
                self._codec.examine([blob])
            except InvalidDocument as error:
                fault = BlobFault(index, str(error), 0, is_chunk=True, is_conflict=False)
                self._note_fault(look, place, origin, fault)


def _nothing_loads(found: Examination) -> bool:
    return found.change_count == 0 and found.orphan_count == 0

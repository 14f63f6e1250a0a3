"""Taking in the flat `<docid>.automerge` files of the R server.

Not here: merging; a file is written into the document's folder and is thereby part of the
document. Invariants: originals are untouched; a file is taken in once per (size, time of
change); a bad file is reported and left where it is; a deleted document stays deleted.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import InvalidDocument, InvalidDocumentId, StorageError, VolumeLost
from amsync.ids import DocumentId, parse_document_id
from amsync.storage.codec import ChunkCodec, ChunkInfo
from amsync.storage.documents import DocumentFiles, StoredBlob
from amsync.storage.files import storage_errors
from amsync.storage.volume import Volume

SUFFIX = ".automerge"

Each = Callable[[Callable[["FlatFile"], None], Iterable["FlatFile"]], None]

log = logging.getLogger("amsync.storage")


@dataclass(frozen=True, slots=True)
class FlatFile:
    """A flat file that is new or changed.

    Attributes:
        path: The file, which stays as it is.
        document_id: From its name.
        state: What tells whether it changes later.
    """

    path: Path
    document_id: DocumentId
    state: dict[str, int]


def find_flat_files(volume: Volume, documents: DocumentFiles) -> Iterator[FlatFile]:
    """Find every flat file that is new or changed; those of deleted documents are passed over.

    Raises:
        StorageError
    """
    with storage_errors("list", volume.root):
        entries = volume.files.list_directory(volume.root)
    for entry in entries:
        # ".automerge" alone is the default name of a data directory, not a document.
        if entry.is_directory or not entry.name.endswith(SUFFIX) or entry.name == SUFFIX:
            continue
        path = volume.root / entry.name
        try:
            document_id = parse_document_id(entry.name.removesuffix(SUFFIX))
        except InvalidDocumentId as error:
            volume.findings.add("foreign_name", path, str(error))
            continue
        try:
            found = volume.files.stat(path)
        except OSError as error:  # a link that leads nowhere, say
            volume.findings.add("bad_import", path, error.strerror or type(error).__name__)
            continue
        state = {"size_bytes": found.size_bytes, "modified_ns": found.modified_ns}
        with storage_errors("read", path):
            is_known = _known_state(volume, path) == state
        if not is_known and not documents.is_deleted(document_id):
            yield FlatFile(path, document_id, state)


def read_flat_file(volume: Volume, codec: ChunkCodec, flat: FlatFile) -> tuple[bytes, ChunkInfo]:
    """Read a flat file and check it whole.

    Raises:
        InvalidDocument: It can't be taken in.
        StorageError
    """
    with storage_errors("read", flat.path):
        blob = volume.files.read(flat.path)
    info = codec.inspect(blob)
    if not info.change_count and not info.orphan_count:
        raise InvalidDocument("holds no change")
    return blob, info


def import_flat_file(
    volume: Volume, documents: DocumentFiles, codec: ChunkCodec, flat: FlatFile
) -> None:
    """Take a flat file into its document's folder; a bad one is reported and left alone.

    Raises:
        StorageError, StorageFull: The volume could not be written; calling again continues.
    """
    try:
        blob, info = read_flat_file(volume, codec, flat)
    except (InvalidDocument, StorageError) as error:
        volume.findings.add("bad_import", flat.path, str(error))
        return
    if info.orphan_count:
        documents.write_incremental(flat.document_id, blob)
    else:
        documents.write_snapshot(flat.document_id, blob, info.heads)
    volume.durable.write(_marker(volume, flat.path), json.dumps(flat.state).encode())


class FlatFiles:
    """The flat files of one volume: taken in, or shown until they can be.

    Attributes:
        shown: Files that count as part of their documents though they are not taken in.
    """

    def __init__(self, volume: Volume, documents: DocumentFiles, codec: ChunkCodec) -> None:
        self.shown: dict[DocumentId, FlatFile] = {}
        self._volume, self._documents, self._codec = volume, documents, codec

    def take_in(self, each: Each) -> None:
        """Take in every file that is new or changed; `each` runs a call for each of them.

        Raises:
            StorageError: They can't be listed.
            VolumeLost
        """
        found = list(find_flat_files(self._volume, self._documents))
        if found:
            log.info("taking in flat files", extra={"count": len(found)})
        each(self._take_in, found)

    def _take_in(self, flat: FlatFile) -> None:
        try:
            import_flat_file(self._volume, self._documents, self._codec, flat)
        except VolumeLost:
            raise
        except StorageError as error:
            # Shown as it is, and taken in by a later start.
            self._volume.findings.add("import_failed", flat.path, str(error))
            self.shown[flat.document_id] = flat

    def show(self) -> None:
        """Show what the next server would take in, without doing it; a volume is only read."""
        for flat in find_flat_files(self._volume, self._documents):
            try:
                read_flat_file(self._volume, self._codec, flat)
            except (InvalidDocument, StorageError) as error:
                self._volume.findings.add("bad_import", flat.path, str(error))
            else:
                self.shown[flat.document_id] = flat

    def blobs(self, document_id: DocumentId) -> list[StoredBlob]:
        """Read a file that is shown.

        Raises:
            StorageError
        """
        flat = self.shown.get(document_id)
        if flat is None:
            return []
        with storage_errors("read", flat.path):
            return [StoredBlob(flat.path, self._volume.files.read(flat.path))]


def _marker(volume: Volume, path: Path) -> Path:
    return volume.control / "imported" / path.name


def _known_state(volume: Volume, path: Path) -> object:
    try:
        return json.loads(volume.files.read(_marker(volume, path)))
    except (OSError, ValueError):  # then it is taken in again, which changes nothing
        return None

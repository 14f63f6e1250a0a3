"""Taking in the flat `<docid>.automerge` files of the R server.

Not here: merging; a file is written into the document's folder and is thereby part of the
document. Invariants: originals are untouched; a file is taken in once per (size, time of
change); a bad file is reported and left where it is; a deleted document stays deleted.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import InvalidDocument, InvalidDocumentId, StorageError
from amsync.ids import DocumentId, parse_document_id
from amsync.storage.codec import ChunkCodec, ChunkInfo
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import storage_errors
from amsync.storage.volume import Volume

SUFFIX = ".automerge"


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


def _marker(volume: Volume, path: Path) -> Path:
    return volume.control / "imported" / path.name


def _known_state(volume: Volume, path: Path) -> object:
    try:
        return json.loads(volume.files.read(_marker(volume, path)))
    except (OSError, ValueError):  # then it is taken in again, which changes nothing
        return None

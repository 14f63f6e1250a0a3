"""Taking in the flat `<docid>.automerge` files of the R server.

Not here: merging; a file is written into the document's folder and is thereby part of the
document. Invariants: originals are untouched; a file is taken in once per (size, time of
change); a bad file is reported and left where it is; a deleted document stays deleted.
"""

import json
from pathlib import Path

from amsync.errors import InvalidDocument, InvalidDocumentId, StorageError
from amsync.ids import DocumentId, parse_document_id
from amsync.storage.codec import ChunkCodec
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import storage_errors
from amsync.storage.volume import Volume

SUFFIX = ".automerge"


def import_flat_files(volume: Volume, documents: DocumentFiles, codec: ChunkCodec) -> int:
    """Take in every flat file that is new or changed; return how many were. Idempotent.

    Raises:
        StorageError, StorageFull: The volume could not be read or written. What was taken in
            stays; calling again continues.
    """
    with storage_errors("list", volume.root):
        entries = volume.files.list_directory(volume.root)
    count = 0
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
        if not documents.is_deleted(document_id):
            count += _import_file(volume, documents, codec, path, document_id)
    return count


def _import_file(
    volume: Volume,
    documents: DocumentFiles,
    codec: ChunkCodec,
    path: Path,
    document_id: DocumentId,
) -> bool:
    marker = volume.control / "imported" / path.name
    with storage_errors("read", path):
        found = volume.files.stat(path)
        state = {"size_bytes": found.size_bytes, "modified_ns": found.modified_ns}
        try:
            if json.loads(volume.files.read(marker)) == state:
                return False
        except (FileNotFoundError, ValueError):
            pass
    try:
        with storage_errors("read", path):
            blob = volume.files.read(path)
        info = codec.inspect(blob)
    except (InvalidDocument, StorageError) as error:
        volume.findings.add("bad_import", path, str(error))
        return False
    if not info.change_count and not info.orphan_count:
        volume.findings.add("bad_import", path, "holds no change")
        return False
    if info.orphan_count:
        documents.write_incremental(document_id, blob)
    else:
        documents.write_snapshot(document_id, blob, info.heads)
    volume.durable.write(marker, json.dumps(state).encode())
    return True

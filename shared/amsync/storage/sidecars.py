"""What the engine wants to find beside a document's snapshot, so that it need not open it.

    <root>/.amsync/graph/<id[:2]>/<id[2:]>

A cache: the engine checks what it is given against the snapshot, and goes without one that is
missing or wrong. So nothing here may fail anything else.
"""

import contextlib

from amsync.errors import StorageError
from amsync.ids import DocumentId
from amsync.storage.files import path_exists
from amsync.storage.volume import Volume

FOLDER = "graph"


class Sidecars:
    """The sidecars of one volume's documents. Thread-safe."""

    def __init__(self, volume: Volume) -> None:
        self._files, self._durable = volume.files, volume.durable
        self._root = volume.control / FOLDER

    def read(self, document_id: DocumentId) -> bytes | None:
        """The document's sidecar, if there is one that can be read."""
        path = self._root / document_id[:2] / document_id[2:]
        try:
            return self._files.read(path) if path_exists(self._files, path) else None
        except OSError:
            return None

    def write(self, document_id: DocumentId, data: bytes) -> None:
        """Write it, or leave it."""
        with contextlib.suppress(StorageError):
            self._durable.write(self._root / document_id[:2] / document_id[2:], data)

    def remove(self, document_id: DocumentId) -> None:
        """Remove it, or leave it."""
        path = self._root / document_id[:2] / document_id[2:]
        with contextlib.suppress(StorageError, OSError):
            if path_exists(self._files, path):
                self._durable.remove([path])
                self._durable.remove_empty_directory(path.parent)

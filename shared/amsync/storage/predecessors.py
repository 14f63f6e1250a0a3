"""What earlier openings of the volume have left in their WALs, and may show only later.

Not here: what is done with it (`store`). A machine may go on for a minute seeing a directory of
a network file system as it was, so what another one wrote last is looked for twice: when the
volume is opened, and again when nothing is hidden any more.

Invariants: a segment of a predecessor is read durably (fsynced by ourselves) before anything of
it is served; none is removable before the second look.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

from amsync.ids import DocumentId
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import list_names, storage_errors
from amsync.storage.volume import HIDDEN_SECONDS, Volume
from amsync.storage.wal import Segment, list_segments, read_segment

RESCAN_SECONDS = 5.0 + HIDDEN_SECONDS
"""When to look again: the TTL of a lease, and what names that are hidden still take to show."""


class Predecessors:
    """See the module. Thread-safe.

    Args of the constructor:
        wal: The folder of all incarnations.
        own: The one that this opening writes, which is passed over.
    """

    def __init__(self, volume: Volume, documents: DocumentFiles, wal: Path, own: Path) -> None:
        self._volume, self._documents = volume, documents
        self._wal, self._own = wal, own
        self._lock = threading.Lock()
        self._sizes: dict[Path, int] = {}
        self.directories: set[Path] = set()
        """Folders of other incarnations; they go when they are empty."""
        self._shown: dict[DocumentId, frozenset[Path]] = {}
        if self.are_hidden:
            documents.written = set()

    @property
    def are_hidden(self) -> bool:
        """Something may not have shown up yet."""
        return self._volume.hold is not None and self._volume.hold.is_unseen

    def segments(self) -> Iterator[Segment]:
        """Read every segment that is new, or longer than when it was read before.

        Raises:
            StorageError
        """
        files = self._volume.files
        with storage_errors("list", self._wal):
            folders = {self._wal / entry.name for entry in list_names(files, self._wal)}
        self.directories |= folders - {self._own}
        for path in list_segments(files, self._wal):
            if path.parent == self._own:
                continue
            with storage_errors("read", path):
                size = files.stat(path).size_bytes
            if self._sizes.get(path) == size:
                continue
            if self._volume.hold is not None:
                self._make_durable(path)
            segment = read_segment(files, path)
            if segment.fault is not None:
                self._volume.findings.add("bad_record", path, segment.fault)
            self._sizes[path] = size
            yield segment

    def _make_durable(self, path: Path) -> None:
        # A killed process may have left records that it never fsynced; what we are about to
        # serve must not depend on them.
        with storage_errors("fsync", path):
            self._volume.durable.ensure_directory(path.parent)
            self._volume.files.fsync_file(path)
            self._volume.files.fsync_directory(path.parent)

    def note_load(self, document_id: DocumentId, paths: frozenset[Path]) -> None:
        """Remember with which files a document was given out, while some may be hidden."""
        if self.are_hidden:
            with self._lock:
                known = self._shown.get(document_id)
                self._shown[document_id] = paths if known is None else known & paths

    def outdated(self) -> set[DocumentId]:
        """Find documents that were given out without a file, or in spite of a tombstone.

        Raises:
            StorageError
        """
        with self._lock:
            shown = dict(self._shown)
        own = self._documents.written or set()
        return {
            document_id
            for document_id, paths in shown.items()
            if not paths.union(own).issuperset(self._documents.paths(document_id))
            or self._documents.is_deleted(document_id)
        }

    def all_seen(self) -> None:
        """Nothing is hidden any more, and all of it was taken."""
        if self._volume.hold is not None:
            self._volume.hold.all_seen()
        with self._lock:
            self._shown.clear()
        self._documents.written = None

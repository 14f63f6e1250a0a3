"""What earlier openings of the volume have left in their WALs, and may show only later.

Not here: what is done with it (`store`). A machine may go on for a minute seeing a directory of
a network file system as it was, so what another one wrote last is looked for twice: when the
volume is opened, and again when nothing is hidden any more.

Invariants: a segment of a predecessor is read durably (fsynced by ourselves) before anything of
it is served; none is removable before the second look.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from amsync.errors import StorageError
from amsync.ids import DocumentId
from amsync.storage.documents import DocumentFiles
from amsync.storage.files import list_names, storage_errors
from amsync.storage.volume import HIDDEN_SECONDS, Volume
from amsync.storage.wal import Segment, is_gone, list_segments, read_segment

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
        self._loading: dict[DocumentId, int] = {}
        self.is_watching = self.are_hidden
        """Files of documents that are given out may not have shown up yet."""
        if self.is_watching:
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
            try:
                with storage_errors("read", path):
                    size = files.stat(path).size_bytes
                if self._sizes.get(path) == size:
                    continue
                if self._volume.hold is not None:
                    self._make_durable(path)
                segment = read_segment(files, path)
            except StorageError as error:
                if is_gone(error):  # its opening has written it out; the listing is an old one
                    continue
                raise
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

    def begin_load(self, document_id: DocumentId) -> None:
        """A document is about to be read; `note_load` follows, or the load fails."""
        if self.is_watching:
            with self._lock:
                self._loading[document_id] = self._loading.get(document_id, 0) + 1

    def note_load(self, document_id: DocumentId, paths: frozenset[Path]) -> None:
        """Remember with which files a document was given out, while some may be hidden."""
        if self.is_watching:
            with self._lock:
                self._loading[document_id] = self._loading.get(document_id, 1) - 1
                known = self._shown.get(document_id)
                self._shown[document_id] = paths if known is None else known & paths

    def outdated(self, of: Callable[[DocumentId], bool] = lambda _: True) -> set[DocumentId]:
        """Find documents that were given out without a file, or in spite of a tombstone.

        Those that can't be looked at, or are being read now, count as such. Only of those for
        which `of` is true.
        """
        with self._lock:
            shown = dict(self._shown)
            loading = {name for name, count in self._loading.items() if count > 0}
        own = self._documents.written or set()
        return {name for name in loading if of(name)} | {
            name for name, paths in shown.items() if of(name) and self._has_more(name, paths | own)
        }

    def _has_more(self, document_id: DocumentId, paths: frozenset[Path]) -> bool:
        try:
            listed = self._documents.paths(document_id)
            return not paths.issuperset(listed) or self._documents.is_deleted(document_id)
        except StorageError:
            return True

    def all_seen(self) -> None:
        """Nothing is hidden any more, and all of it was taken."""
        if self._volume.hold is not None:
            self._volume.hold.all_seen()
        self.watch(False)

    def watch(self, is_watching: bool) -> None:
        """Begin to remember what is given out, or forget it."""
        with self._lock:
            if is_watching:
                self._documents.written = self._documents.written or set()
            else:
                self._shown.clear()
                self._loading.clear()
                self._documents.written = None
            self.is_watching = is_watching

    def forget(self, documents: Collection[DocumentId]) -> None:
        """Some documents are looked at anew, or are not ours any more."""
        with self._lock:
            for document_id in documents:
                self._shown.pop(document_id, None)

    @property
    def shown(self) -> set[DocumentId]:
        """Documents that were given out and may have more."""
        with self._lock:
            return set(self._shown)

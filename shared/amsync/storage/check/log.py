"""The log (WAL) of a data directory: what is in it, and what is wrong with its segments.

Not here: the format (`amsync.storage.wal`), and whether the changes in it load (`documents`).
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from amsync.ids import DocumentId
from amsync.storage.batch import WalBatch
from amsync.storage.check.lookout import Lookout
from amsync.storage.check.problems import Problem
from amsync.storage.check.tree import Parts, Tree, What
from amsync.storage.volume import CONTROL_DIRECTORY
from amsync.storage.wal import SEGMENT_SUFFIX, parse_segment

WAL = (CONTROL_DIRECTORY, "wal")

LOG_BYTES = 256 * 1024 * 1024
"""Chunk bytes that are held; a server takes no more into its log (`TAIL_LIMIT_BYTES`)."""

SEGMENT_LIMIT_BYTES = 512 * 1024 * 1024
"""A segment with more bytes is not read; a server's last append goes beyond 64 MiB by far less."""


@dataclass(slots=True)
class Log:
    """What the log holds.

    Attributes:
        chunks: Of each document, in order.
        deleted: Documents with a tombstone in it.
        file_bytes: Of all segments.
        is_whole: All of it was read.
    """

    chunks: dict[DocumentId, list[bytes]] = field(default_factory=dict)
    deleted: set[DocumentId] = field(default_factory=set)
    file_bytes: int = 0
    is_whole: bool = True
    _held_bytes: int = 0

    def read(self, look: Lookout, limit_bytes: int = LOG_BYTES) -> Iterator[Problem]:
        """Read every segment. Do so before the folders: what leaves the log is in them by then."""
        for incarnation in look.entries(WAL):
            folder = (*WAL, incarnation.name)
            if incarnation.what is not What.FOLDER:
                look.note("foreign_control", folder, "no folder of log segments")
                continue
            if not incarnation.name.partition("-")[0].isdecimal():
                look.note("foreign_control", folder, "no name of a folder of log segments")
            for segment in look.entries(folder):
                self._read_segment(look, (*folder, segment.name), segment.what, limit_bytes)
                yield from look.drain()
        yield from look.drain()
        if look.is_blind:
            self.is_whole = False

    def _read_segment(self, look: Lookout, file: Parts, what: What, limit_bytes: int) -> None:
        if what is not What.FILE or not file[-1].endswith(SEGMENT_SUFFIX):
            look.note("foreign_control", file, "no log segment")
            return
        if self._held_bytes >= limit_bytes:
            self.is_whole = False
            look.note("too_large", file, f"the log has more than {limit_bytes:,} bytes of changes")
            return
        data = look.read(file, SEGMENT_LIMIT_BYTES)
        if data is None:
            return
        self.file_bytes += len(data)
        segment = parse_segment(Path(*file), data)
        if segment.fault is not None:
            look.note("bad_wal_record", file, segment.fault)
        elif segment.torn_bytes or not data:
            detail = f"the last {segment.torn_bytes:,} of {len(data):,} bytes are no whole record"
            look.note("torn_wal_end", file, detail)
        for batch in segment.batches:
            self._take(batch)

    def _take(self, batch: WalBatch) -> None:
        for item in batch.changes:
            self.chunks.setdefault(item.document_id, []).extend(item.chunks)
        self.deleted.update(item.document_id for item in batch.tombstones)
        self._held_bytes += batch.size_bytes


def documents_in_log(root: Path) -> Log:
    """Read the log of a data directory, whatever may be wrong with it. Raises OSError."""
    log = Log()
    with closing(Tree(root)) as tree:
        for _ in log.read(Lookout(tree)):
            pass
    return log

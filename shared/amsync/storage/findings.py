"""What storage found wrong and left for a person to look at.

Not here: errors that stop an operation (`amsync.errors`). Everything found is logged once and
kept in a bounded list; the count goes on when the list is full.
"""

import logging
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

MAX_FINDINGS = 1_000

logger = logging.getLogger("amsync.storage")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found wrong on the volume.

    Attributes:
        kind: A bounded label: quarantined, bad_record, bad_mark, bad_import, foreign_name,
            unreadable, compaction_refused, storage_id, checkpoint_failed, self_test_skipped,
            epoch_not_kept, import_failed, document_unwritable, wal_not_swept.
        path: Where it was found.
        detail: What was found, for a person; never document bytes.
    """

    kind: str
    path: Path
    detail: str


class Findings:
    """The newest `MAX_FINDINGS` findings and the count of all. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: deque[Finding] = deque(maxlen=MAX_FINDINGS)
        self._count = 0

    def add(self, kind: str, path: Path, detail: str) -> None:
        """Log a finding and keep it; the oldest one goes when the list is full."""
        logger.warning(
            "volume finding", extra={"finding": kind, "path": str(path), "error": detail}
        )
        with self._lock:
            self._newest.append(Finding(kind, path, detail))
            self._count += 1

    @property
    def count(self) -> int:
        """Findings since the volume was opened."""
        return self._count

    def newest(self) -> list[Finding]:
        """Copy the kept findings, oldest first."""
        with self._lock:
            return list(self._newest)

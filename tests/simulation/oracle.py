"""What must hold at every instant, checked on what leaves the server and on what is durable.

Reads the raw volume itself, as a machine would find it that lost its power now. Invariants:
- A head that a sync message names as the server's own is on disk by then, and stays there; but
  for the initial change of an auto-created document, which can be made again.
- Nobody hears of a document that it may not see, or has not asked for.
- A document on disk is never called unavailable; nothing is said before it was read.
- What a reader wrote is never kept; nobody hears a broadcast twice, or its own.
- Nothing is refused, silenced or reset that the seed did not provoke.
"""

import hashlib
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from amsync._automerge import Replica, initial_change
from amsync.ids import DocumentId
from amsync.storage.wal import read_segment
from native import craft
from support.memfs import MemoryFileSystem

ROOT = Path("/data")
HASH_BYTES = 32
MOST_FRAMES = 6_000

ALLOWED_REFUSALS = {
    "other_sender",
    "access_denied",
    "replaced",
    "shutdown",
    "handshake_timeout",
    "silent",
}
BAD_EVENTS = {
    "bad_blobs",
    "creations_refused",
    "documents_blocked",
    "engine_faults",
    "internal_errors",
    "items_of_old_epochs",
    "items_of_unknown_connections",
    "loop_breaker_trips",
    "messages_unsent",
    "silenced_messages",
    "unknown_items",
}


class Violation(BaseException):
    """Something that must hold does not; no code under test may swallow this."""


def heads_of(message: bytes) -> list[bytes]:
    """The heads that a sync message names as its sender's own (PROTOCOL 5.1)."""
    count, at = craft.read_unsigned(message, 1)
    return [message[at + i * HASH_BYTES : at + (i + 1) * HASH_BYTES] for i in range(count)]


def hashes_of(blob: bytes) -> set[bytes]:
    """Hashes of all changes in a blob of chunks; ends at a torn one."""
    found: set[bytes] = set()
    while len(blob) > 10:
        kind = blob[8]
        length, start = craft.read_unsigned(blob, 9)
        end = start + length
        if end > len(blob):
            break
        body = blob[start:end]
        if kind == 0:
            for change in Replica.load(blob[:end]).changes():
                found |= hashes_of(change)
        else:
            if kind == 2:
                body = zlib.decompress(body, -15)
            found.add(hashlib.sha256(b"\x01" + craft.unsigned(len(body)) + body).digest())
        blob = blob[end:]
    return found


def shown_heads(heads: Sequence[bytes]) -> str:
    return "[" + " ".join(head.hex()[:6] for head in heads) + "]"


INITIAL = next(iter(hashes_of(initial_change())))


class Oracle:
    """Everything that was promised in one run.

    `deleting`: documents whose deletion was asked for; `deleted`: and acknowledged.
    `allowed_events`: bad ones that belong to this kind of network.
    """

    def __init__(self, files: MemoryFileSystem) -> None:
        self._files = files
        self._read: dict[tuple[Path, int], dict[DocumentId, set[bytes]]] = {}
        self._on_disk: dict[DocumentId, set[bytes]] = defaultdict(set)
        self.acknowledged: dict[DocumentId, set[bytes]] = defaultdict(set)
        self.forbidden: dict[DocumentId, set[bytes]] = defaultdict(set)
        self.deleted: set[DocumentId] = set()
        self.deleting: set[DocumentId] = set()
        self.frames = 0
        self.allowed_events: set[str] = set()
        self.engine_failed: set[DocumentId] = set()
        self.events: Counter[tuple[str, str]] = Counter()
        self._heard: set[tuple[str, str, str, int]] = set()

    # -- the volume

    def look_at_disk(self) -> None:
        """Read anew what would be there after a power failure."""
        self._on_disk = defaultdict(set)
        for path, data in self._files.durable_tree().items():
            key = (path, len(data))
            found = self._read.get(key)
            if found is None:
                found = self._read[key] = self._hashes_in(path, data)
            for document_id, hashes in found.items():
                self._on_disk[document_id] |= hashes

    def _hashes_in(self, path: Path, data: bytes) -> dict[DocumentId, set[bytes]]:
        parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
        found: dict[DocumentId, set[bytes]] = defaultdict(set)
        if path.suffix == ".wal":
            survivor = MemoryFileSystem()
            survivor.put(path, data)
            for batch in read_segment(survivor, path).batches:
                for item in batch.changes:
                    for chunk in item.chunks:
                        found[item.document_id] |= hashes_of(chunk)
        elif len(parts) == 4 and parts[2] in ("snapshot", "incremental"):
            found[DocumentId(parts[0] + parts[1])] |= hashes_of(data)
        return found

    def is_on_disk(self, document_id: DocumentId, heads: list[bytes]) -> bool:
        def known() -> bool:
            return all(head in self._on_disk[document_id] for head in heads)

        if not known():
            self.look_at_disk()
        return known()

    def disk_was_lost(self) -> None:
        """After a crash: everything that was ever promised must be there."""
        self.look_at_disk()
        for document_id, heads in self.acknowledged.items():
            if document_id not in self.deleting and not heads <= self._on_disk[document_id]:
                missing = len(heads - self._on_disk[document_id])
                raise Violation(f"{missing} acknowledged changes of {document_id} are lost")

    def was_loaded(self, document_id: DocumentId, blobs: Sequence[bytes]) -> None:
        """A load gives everything that was ever promised, whatever else goes on."""
        missing = set(self.acknowledged[document_id])
        for blob in blobs:
            missing -= hashes_of(blob)
        if missing and document_id not in self.deleting:
            raise Violation(f"a load of {document_id} lacks {len(missing)} acknowledged changes")

    # -- what leaves

    def promise(self, document_id: DocumentId, heads: list[bytes]) -> None:
        """The server says that these are its heads."""
        heads = [head for head in heads if head != INITIAL]
        if document_id in self.deleting:
            return
        if not self.is_on_disk(document_id, heads):
            raise Violation(f"heads of {document_id} leave that are not on disk")
        self.acknowledged[document_id].update(heads)
        if self.forbidden[document_id] & self._on_disk[document_id]:
            raise Violation(f"a reader's change of {document_id} was kept")

    def count_frame(self) -> None:
        self.frames += 1
        if self.frames > MOST_FRAMES:
            raise Violation(f"{self.frames} frames: somebody talks in a loop")

    def heard_ephemeral(self, peer_id: str, sender: str, session: str, count: int) -> None:
        if peer_id == sender:
            raise Violation(f"{peer_id} got its own broadcast")
        key = (peer_id, sender, session, count)
        if key in self._heard:
            raise Violation(f"{peer_id} got broadcast {count} of {sender} twice")
        self._heard.add(key)

    def count_event(self, event: str, label: str) -> None:
        self.events[event, label] += 1
        if event == "refusals" and label not in ALLOWED_REFUSALS:
            raise Violation(f"refused: {label}")
        if event in BAD_EVENTS - self.allowed_events and not (
            self.engine_failed and event == "silenced_messages"
        ):
            raise Violation(f"not provoked: {event} {label}")

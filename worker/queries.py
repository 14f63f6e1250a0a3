"""What is asked of a worker that is no document's: which documents there are, and of its volume.

Operations, with what their payloads hold and what answers them; all are msgpack:

    list        {prefix, after, limit}   {documents: [[id, is_open, peers]], through, shards}
    checkpoint  {}                       {seconds}
    quarantine  {limit}                  {count, files: [{path, document_id, bytes, ...}]}

`list` tells the first documents behind `after`, sorted, of the shards that it names, with their
epochs: those that are ours before and after the volume was read. `through`: there may be more
behind this id, or null.
`quarantine` tells of the whole volume, newest first.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import msgpack

from amsync.errors import AmsyncError, StorageError
from amsync.ids import DocumentId, shard_of
from amsync.protocol.envelope import Query, Reply
from amsync.storage import Store
from amsync.worker.ports import Tenure
from amsync.worker.shard import Shard

log = logging.getLogger("amsync.worker")

Shards = Mapping[int, Shard]
Tell = Callable[[], Mapping[str, object]]
"""Makes the answer, on the loop, of what was read in a thread."""

MAX_PAGE = 1_000


class Queries:
    """`begin` belongs on the loop, what it returns into a thread, what that returns on the loop.

    Args:
        shards: Those that are open, by number; the caller's, always up to date.
    """

    def __init__(self, store: Store, shards: Shards, tenure: Tenure | None) -> None:
        self._store, self._shards, self._tenure = store, shards, tenure

    def begin(self, query: Query) -> Callable[[], Callable[[], Reply]]:
        """Look at what only the loop may look at."""
        try:
            asked: dict[str, Any] = msgpack.unpackb(query.payload) if query.payload else {}
            return partial(_read, query, self._reading(query.operation, asked))
        except (AmsyncError, ValueError, TypeError, KeyError) as error:
            return partial(partial, _failed, query, error)

    def _reading(self, operation: str, asked: Mapping[str, Any]) -> Callable[[], Tell]:
        match operation:
            case "list":
                limit = min(int(asked["limit"]), MAX_PAGE)
                prefix, after = str(asked["prefix"]), str(asked["after"])
                return partial(self._list, dict(self._shards), prefix, after, limit)
            case "checkpoint":
                return self._checkpoint
            case "quarantine":
                return partial(self._quarantine, int(asked["limit"]))
        raise AmsyncError(f"this worker knows no {operation!r}")

    def _list(self, shards: Shards, prefix: str, after: str, limit: int) -> Tell:
        count = self._store.volume.shard_count
        found = self._store.list_page(
            prefix, after, limit, is_wanted=lambda name: shard_of(name, count) in shards
        )
        return partial(self._tell_list, shards, found, limit)

    def _tell_list(
        self, shards: Shards, found: list[DocumentId], limit: int
    ) -> Mapping[str, object]:
        # What was opened anew meanwhile, or may be somebody else's, is left to whoever has it.
        lost = () if self._tenure is None else self._tenure.lost(shards)
        sure = {
            number: shard
            for number, shard in shards.items()
            if lost is not None and number not in lost and self._shards.get(number) is shard
        }
        count = self._store.volume.shard_count
        rows = []
        for name in found:
            shard = sure.get(shard_of(name, count))
            if shard is not None:
                document = shard.documents.get(name)
                is_open = document is not None and document.is_open
                rows.append([name, is_open, document.syncing_count if document else 0])
        return {
            "documents": rows,
            "through": found[-1] if len(found) == limit else None,
            "shards": [[number, shard.epoch] for number, shard in sure.items()],
        }

    def _checkpoint(self) -> Tell:
        started = time.monotonic()
        self._store.checkpoint()
        seconds = time.monotonic() - started
        return lambda: {"seconds": seconds}

    def _quarantine(self, limit: int) -> Tell:
        count, files = self._store.quarantined(limit)
        return lambda: {"count": count, "files": [asdict(each) for each in files]}


def _read(query: Query, reading: Callable[[], Tell]) -> Callable[[], Reply]:
    try:
        return partial(_told, query, reading())
    except AmsyncError as error:
        return partial(_failed, query, error)
    except Exception as error:
        log.exception("an operator's question failed", extra={"operation": query.operation})
        return partial(_failed, query, AmsyncError(f"{type(error).__name__}; the log says more"))


def refused(query: Query) -> Reply:
    """The answer to one too many."""
    return _failed(query, StorageError("too much is asked of this worker, or its volume is slow"))


def _told(query: Query, tell: Tell) -> Reply:
    # Names on the volume may have bytes that are no text.
    return Reply(query.call, None, "", msgpack.packb(tell(), unicode_errors="replace"))


def _failed(query: Query, error: Exception) -> Reply:
    return Reply(query.call, type(error).__name__, str(error), b"")

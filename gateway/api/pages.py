"""A page of all documents, put together from the answers of the owners of all shards.

Each owner is asked once, by one of its shards. An answer names the shards that it covers; what
none covers, because a shard changed hands meanwhile, is asked for again. So nothing is hidden by
a hand-over: a page is whole, or there is none.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from amsync.errors import NoAnswer, NoOwner
from amsync.gateway.api.place import one_shard_each
from amsync.ids import DocumentId, shard_of

if TYPE_CHECKING:
    from amsync.gateway.gateway import Gateway

PAGE_SECONDS = 30.0
AGAIN_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Row:
    """A document of a list.

    Attributes:
        owner: The worker that has its shard.
        peers: How many are kept in sync with it.
    """

    document_id: DocumentId
    shard: int
    owner: str
    is_open: bool
    peers: int


async def read_page(
    gateway: "Gateway", prefix: str, after: str, limit: int
) -> tuple[list[Row], str | None]:
    """The first documents behind `after`, sorted, and after which the next page begins, if any.

    Raises:
        NoOwner, NoAnswer, BusError, StorageError: There is no whole page at the moment.
    """
    asked = {"prefix": prefix, "after": after, "limit": limit}
    rows: dict[DocumentId, Row] = {}
    ends: list[str] = []
    missing = set(range(gateway.shard_count))
    try:
        async with asyncio.timeout(PAGE_SECONDS):
            while missing:
                for answer in await _ask_owners(gateway, missing, asked):
                    missing.difference_update(number for number, _ in answer["shards"])
                    rows.update(_rows(gateway, answer))
                    if answer["through"] is not None:
                        ends.append(answer["through"])
                if missing:
                    await asyncio.sleep(AGAIN_SECONDS)
    except TimeoutError:
        raise NoAnswer(f"{len(missing)} shards have not answered in time") from None
    # Behind the end of an answer there may be more of it.
    end = min(ends, default=None)
    known = sorted(name for name in rows if end is None or name <= end)
    page = [rows[name] for name in known[:limit]]
    if len(known) > limit:
        return page, page[-1].document_id
    return page, end


async def _ask_owners(
    gateway: "Gateway", shards: set[int], asked: Mapping[str, Any]
) -> list[dict[str, Any]]:
    chosen, orphans = one_shard_each(gateway, sorted(shards))
    if orphans:
        raise NoOwner(f"nobody owns shard {orphans[0]} at the moment")
    payload = msgpack.packb(asked)
    replies = await asyncio.gather(
        *(gateway.query(shard, "list", payload) for shard in chosen.values())
    )
    return [msgpack.unpackb(reply.payload, max_bin_len=len(reply.payload)) for reply in replies]


def _rows(gateway: "Gateway", answer: Mapping[str, Any]) -> dict[DocumentId, Row]:
    rows = {}
    for name, is_open, peers in answer["documents"]:
        document_id = DocumentId(name)
        shard = shard_of(document_id, gateway.shard_count)
        rows[document_id] = Row(document_id, shard, gateway.owner(shard), is_open, peers)
    return rows

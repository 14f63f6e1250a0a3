"""Calls of shards: time limits, answers that come twice or never, and asking again."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from amsync.errors import AmsyncError, DocumentNotFound, NoAnswer
from amsync.gateway.calls import Calls
from amsync.ids import DocumentId
from amsync.protocol.envelope import Call, Query, Reply

NAME = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")


class Shards:
    """Remembers what is forwarded."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Call | Query, int]] = []
        self.calls = Calls(lambda *sent: self.sent.append(sent))


def run(test: Callable[[Shards], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test(Shards()), debug=True)


def test_answer_finds_its_call() -> None:
    async def test(shards: Shards) -> None:
        first = asyncio.ensure_future(shards.calls.of_document(3, "get", NAME, b"x"))
        second = asyncio.ensure_future(shards.calls.of_owner(4, "list", b"yy"))
        await asyncio.sleep(0)
        (shard, call, size), (_, query, _) = shards.sent
        assert (shard, size, type(call), type(query)) == (3, 1, Call, Query)

        shards.calls.answered(Reply(query.call, None, "", b"two"))
        shards.calls.answered(Reply(call.call, None, "", b"one"))
        shards.calls.answered(Reply(call.call, None, "", b"again"))
        shards.calls.answered(Reply(99, None, "", b"nobody's"))

        assert [(await each).payload for each in (first, second)] == [b"one", b"two"]
        assert shards.calls.of_shard(3) == []

    run(test)


def test_errors_come_back_as_what_they_are() -> None:
    async def test(shards: Shards) -> None:
        for name, kind in (("DocumentNotFound", DocumentNotFound), ("OfTheFuture", AmsyncError)):
            asked = asyncio.ensure_future(shards.calls.of_document(0, "get", NAME))
            await asyncio.sleep(0)
            shards.calls.answered(Reply(shards.sent[-1][1].call, name, "why", b""))
            with pytest.raises(kind, match="why"):
                await asked

    run(test)


def test_no_answer_is_an_error_and_nothing_is_kept() -> None:
    async def test(shards: Shards) -> None:
        with pytest.raises(NoAnswer, match="shard 2"):
            await shards.calls.of_document(2, "get", NAME, seconds=0)
        assert shards.calls.of_shard(2) == []

    run(test)


def test_caller_who_goes_away_is_forgotten() -> None:
    async def test(shards: Shards) -> None:
        asked = asyncio.ensure_future(shards.calls.of_document(2, "get", NAME))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        assert shards.calls.of_shard(2) == []

    run(test)


def test_what_is_under_way_is_asked_again_until_it_is_answered() -> None:
    async def test(shards: Shards) -> None:
        asked = asyncio.ensure_future(shards.calls.of_document(2, "get", NAME))
        other = asyncio.ensure_future(shards.calls.of_document(1, "get", NAME))
        await asyncio.sleep(0)
        item = shards.sent[0][1]
        assert shards.calls.of_shard(2) == [item]

        shards.calls.answered(Reply(item.call, None, "", b""))
        await asked
        assert shards.calls.of_shard(2) == []

        shards.calls.give_up()
        with pytest.raises(NoAnswer):
            await other

    run(test)

"""Calls of a whole gateway, whose worker is played by the test: what is lost is asked again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from amsync.bus import MemoryBus, gateway_stream, shard_stream
from amsync.bus.port import START
from amsync.errors import BusError, NoAnswer, NoOwner
from amsync.gateway.access import AccessPolicy, parse_share
from amsync.gateway.admission import AdmissionOptions
from amsync.gateway.gateway import Gateway, GatewayOptions
from amsync.gateway.limits import Limits
from amsync.ids import DocumentId
from amsync.metrics import Metrics
from amsync.protocol.access import Share
from amsync.protocol.envelope import (
    Call,
    Entry,
    HandOver,
    Owned,
    Reply,
    Stamped,
    unpack_inbound,
)
from amsync.worker.publisher import EVERY_SHARD

NAME = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")
PREFIX = "p"


class Stage:
    """A gateway, and a worker `w` that owns its one shard when it has said so."""

    def __init__(self) -> None:
        self.bus, metrics = MemoryBus(packs=True), Metrics()
        policy = AccessPolicy(parse_share(Share.ALLOW), metrics, None)
        admission = AdmissionOptions(
            allowed_origins=None, own_origins_only=False, trusted_proxies=(), has_tls=False
        )
        self.gateway = Gateway(
            self.bus,
            metrics,
            policy,
            GatewayOptions(
                host="127.0.0.1",
                port=0,
                server_peer_id="server",
                storage_id=None,
                shard_count=1,
                limits=Limits(),
                admission=admission,
                prefix=PREFIX,
                incarnation="g",
                hands_over=True,
            ),
        )
        self.sequence = 0
        self._reader = self.bus.reader()
        self._reader.follow(shard_stream(PREFIX, 0), START)
        self._heard: list[Any] = []

    async def say(self, *items: Any, epoch: int = 1, skips: int = 0) -> None:
        """As the worker; `skips`: so many entries before were lost."""
        self.sequence += 1 + skips
        stamped = [
            Stamped(EVERY_SHARD, 0, item) if isinstance(item, Owned) else Stamped(0, epoch, item)
            for item in items
        ]
        entry = Entry("w", self.sequence, 0.0, stamped)
        await self.bus.append(gateway_stream(PREFIX, self.gateway.incarnation), entry.pack())

    async def hear(self, kind: type[Any]) -> Any:
        """The next item of this kind that the worker gets."""
        while True:
            while self._heard:
                item = self._heard.pop(0)
                if isinstance(item, kind):
                    return item
            for entry in await self._reader.read(1 << 20):
                self._heard += unpack_inbound(entry.data).items


@asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    stage = Stage()
    running = asyncio.create_task(stage.gateway.run())
    try:
        async with asyncio.timeout(60):
            yield stage
    finally:
        running.cancel()
        await asyncio.wait([running])
        await stage.bus.close()


def run(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with staged() as stage:
            await test(stage)

    asyncio.run(main())


async def ask(stage: Stage) -> "asyncio.Task[Reply]":
    await stage.say(Owned([[0, 1]]))
    await stage.hear(HandOver)
    return asyncio.create_task(stage.gateway.call("get", NAME))


def test_answer_that_was_lost_is_asked_for_again() -> None:
    async def test(stage: Stage) -> None:
        asked = await ask(stage)
        first = await stage.hear(Call)
        await stage.say(Owned([[0, 1]]), skips=1)  # the entry with the answer is missing

        await stage.hear(HandOver)
        assert await stage.hear(Call) == first
        await stage.say(Reply(first.call, None, "", b"x"))
        assert (await asked).payload == b"x"

    run(test)


def test_new_owner_is_asked_and_an_old_answer_counts_no_more() -> None:
    async def test(stage: Stage) -> None:
        asked = await ask(stage)
        first = await stage.hear(Call)
        await stage.say(Owned([[0, 2]]))
        await stage.hear(HandOver)
        assert await stage.hear(Call) == first

        await stage.say(Reply(first.call, None, "", b"old"), epoch=1)
        await stage.say(Reply(first.call, None, "", b"new"), epoch=2)
        assert (await asked).payload == b"new"

    run(test)


def test_gateway_that_begins_again_asks_again() -> None:
    async def test(stage: Stage) -> None:
        asked = await ask(stage)
        first = await stage.hear(Call)
        stage.gateway.begin_again("g2", forgets_epochs=False)
        stage.sequence = 0
        assert await stage.hear(Call) == first
        await stage.say(Reply(first.call, None, "", b"x"))
        assert (await asked).payload == b"x"

    run(test)


def test_nobody_is_asked_where_nobody_would_answer() -> None:
    async def test(stage: Stage) -> None:
        with pytest.raises(NoOwner):
            await stage.gateway.call("get", NAME)
        await stage.say(Owned([[0, 1]]))
        await stage.hear(HandOver)
        assert stage.gateway.owner(0) == "w"

        for living, silent in (({"w"}, {"w"}), (set(), set())):
            stage.gateway.note_workers(living, silent)
            with pytest.raises(NoOwner):
                await stage.gateway.query(0, "list")
        stage.gateway.note_workers({"w"}, set())
        stage.gateway.bus_is_away(True)
        with pytest.raises(BusError):
            await stage.gateway.call("get", NAME)
        stage.gateway.bus_is_away(False)
        with pytest.raises(NoAnswer):
            await stage.gateway.call("get", NAME, seconds=0)

    run(test)

"""What the router does when shards change hands, entries are lost, or the bus is in doubt."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amsync.bus import MemoryBus, Position, gateway_stream, shard_stream
from amsync.bus.port import START, Parcel
from amsync.errors import BusError
from amsync.gateway.router import MOST_NUDGE_SECONDS, NUDGE_SECONDS, Router
from amsync.metrics import Metrics
from amsync.protocol.envelope import (
    Close,
    Entry,
    HandedOver,
    HandOver,
    Inbound,
    Offer,
    Outbound,
    Owned,
    Progress,
    Reply,
    Resync,
    Stamped,
    Welcome,
    pack_outbound,
    unpack_inbound,
)
from amsync.turns import Turns

SHARD = 3
OTHER = 4
REPLY = Reply(1, None, "", b"")
OFFER = Offer(1, [])
EVERY_SHARD = -1


class DoubtfulBus(MemoryBus):
    """Raises when told to, before or after the entry was added; else first does `then`."""

    def __init__(self) -> None:
        super().__init__(packs=True)
        self.failures: list[bool] = []
        self.then: Callable[[], None] = lambda: None

    async def append(self, stream: str, data: bytes | Parcel) -> Position:
        if not self.failures:
            position = await super().append(stream, data)
            self.then()
            return position
        if self.failures.pop(0):
            await super().append(stream, data)
        raise BusError("nobody knows")


class Place:
    """A router, what it was told and what came out of it."""

    def __init__(self) -> None:
        self.bus = DoubtfulBus()
        self.metrics = Metrics()
        self.delivered: list[Outbound] = []
        self.credited: list[tuple[int, int]] = []
        self.asked: list[tuple[int, bool]] = []
        self.router = Router(
            self.bus,
            self.metrics,
            prefix="p",
            incarnation="g",
            credit=lambda number, size: self.credited.append((number, size)),
            deliver=lambda stamped: self.delivered.append(stamped.item),
            hand_over=self._hand_over,
            turns=Turns(),
        )
        self.reader = self.bus.reader()
        for shard in (SHARD, OTHER):
            self.reader.follow(shard_stream("p", shard), START)
        self.sequences: dict[str, int] = {}

    def _hand_over(self, shard: int, may_be_lost: bool) -> list[Inbound]:
        self.asked.append((shard, may_be_lost))
        return [Close(7)]

    def hear(self, *items: Outbound, epoch: int = 1, worker: str = "w", shard: int = SHARD) -> None:
        """Take the next entry of a worker."""
        self.sequences[worker] = self.sequences.get(worker, 0) + 1
        stamped = [Stamped(shard, epoch, item) for item in items]
        self.router.take(Entry(worker, self.sequences[worker], 0.0, stamped))

    def miss(self, worker: str = "w") -> None:
        self.sequences[worker] = self.sequences.get(worker, 0) + 1

    def welcome(self, generation: int = 1, **more: Any) -> None:
        self.hear(Owned([[SHARD, more.get("epoch", 1)]]), **more)
        self.hear(Welcome(generation), **more)

    def entries(self) -> list[Entry]:
        return [unpack_inbound(entry.data) for entry in self.reader.take(1 << 20)]

    async def appended(self) -> list[Entry]:
        await self.router.flush()
        return self.entries()


def run(scenario: Callable[[Place], Awaitable[None]]) -> None:
    async def main() -> None:
        place = Place()
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(place.router.run())
            await scenario(place)
            running.cancel()

    asyncio.run(main())


async def pass_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def begun(entries: list[Entry]) -> list[HandOver]:
    return [item for entry in entries for item in entry.items if isinstance(item, HandOver)]


def test_a_new_owner_gets_everything_handed_over() -> None:
    async def scenario(place: Place) -> None:
        place.hear(Owned([[SHARD, 4]]), epoch=0, shard=EVERY_SHARD)

        (entry,) = await place.appended()

        assert entry.items == [HandOver(0, 4, 1, False), Close(7), HandedOver(0, 1)]
        assert place.asked == [(SHARD, False)]
        assert place.router.known_shards == 1

    run(scenario)


def test_an_owner_that_goes_on_gets_nothing_handed_over() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.hear(Owned([[SHARD, 1]]))
        place.hear(OFFER)

        assert len(begun(await place.appended())) == 1
        assert place.delivered == [OFFER]

    run(scenario)


def test_nothing_is_delivered_before_the_welcome_to_the_last_hand_over() -> None:
    async def scenario(place: Place) -> None:
        place.hear(OFFER)
        place.hear(Resync())
        place.hear(Welcome(1))
        place.hear(OFFER, REPLY)
        assert place.delivered == [REPLY]

        place.hear(Welcome(2))
        place.hear(OFFER)

        assert place.delivered == [REPLY, OFFER]

    run(scenario)


def test_an_owner_of_an_old_epoch_is_not_heard() -> None:
    async def scenario(place: Place) -> None:
        place.welcome(epoch=2)

        place.hear(OFFER, REPLY, Resync(), worker="old", epoch=1)
        place.hear(Owned([[SHARD, 1]]), worker="old", epoch=0, shard=EVERY_SHARD)

        assert place.delivered == []
        assert len(begun(await place.appended())) == 1
        place.hear(OFFER, epoch=2)
        assert place.delivered == [OFFER]

    run(scenario)


def test_a_missing_entry_of_an_owner_hands_its_shards_over_again() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.hear(Welcome(1), shard=OTHER, worker="other")
        await place.appended()
        place.miss()

        place.hear(OFFER)

        assert begun(await place.appended()) == [HandOver(0, 1, 2, False)]
        assert place.delivered == []

    run(scenario)


def test_a_missing_entry_of_one_that_owns_nothing_any_more_costs_nothing() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.welcome(2, worker="next", epoch=2)
        await place.appended()
        place.miss()

        place.hear(OFFER)

        assert await place.appended() == []

    run(scenario)


def test_a_lost_welcome_is_missed() -> None:
    async def scenario(place: Place) -> None:
        place.hear(Owned([[SHARD, 1]]))
        place.miss()

        place.hear(Owned([[SHARD, 1]]))
        place.hear(Welcome(2))
        place.hear(OFFER)

        assert [each.generation for each in begun(await place.appended())] == [1, 2]
        assert place.delivered == [OFFER]

    run(scenario)


def test_a_repeated_entry_is_passed_over() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.hear(OFFER)
        place.sequences["w"] -= 1

        place.hear(OFFER)

        assert place.delivered == [OFFER]
        assert len(begun(await place.appended())) == 1

    run(scenario)


def test_a_resync_is_answered_with_what_may_be_lost() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.asked.clear()

        place.hear(Resync())

        assert begun(await place.appended())[-1] == HandOver(0, 1, 2, True)
        assert place.asked == [(SHARD, True)]

    run(scenario)


def test_everything_is_handed_over_after_the_bus_was_lost() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.router.forward(OTHER, Close(1), 1, 10)
        await place.appended()
        place.asked.clear()

        place.router.hand_over_all()

        assert begun(await place.appended()) == [HandOver(0, 1, 2, True)]
        # The owner of the other is not known yet; what may be lost is remembered for it.
        assert place.asked == [(SHARD, True), (OTHER, True)]

    run(scenario)


def test_an_append_in_doubt_is_repeated_under_its_sequence() -> None:
    async def scenario(place: Place) -> None:
        place.bus.failures = [True, False, True]
        place.router.forward(SHARD, Close(1), 1, 10)

        first = await place.appended()
        place.router.forward(SHARD, Close(2), 2, 10)

        assert [(e.sequence, e.items) for e in first] == 3 * [(1, [Close(1)])]
        assert [(e.sequence, e.items) for e in await place.appended()] == [(2, [Close(2)])]

    run(scenario)


def test_progress_credits_what_was_sent_up_to_its_sequence() -> None:
    async def scenario(place: Place) -> None:
        for number in (1, 2, 3):
            place.router.forward(SHARD, Close(number), number, 10 * number)
            await place.appended()

        place.hear(Progress(2))

        assert place.credited == [(1, 10), (2, 20)]

    run(scenario)


def test_progress_that_is_faster_than_the_append_credits_the_same() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        await place.appended()
        place.bus.then = lambda: place.hear(Progress(2))
        place.router.forward(SHARD, Close(1), 1, 10)
        await place.appended()

        assert place.credited == [(1, 10)]
        place.router.nudge(time.monotonic() + 60.0)
        assert await place.appended() == []

    run(scenario)


def test_an_entry_that_stays_undigested_is_followed_by_an_empty_one() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        await place.appended()
        place.hear(Progress(1))
        place.router.forward(SHARD, Close(1), 1, 10)
        await place.appended()
        now = time.monotonic()

        place.router.nudge(now)
        assert await place.appended() == []
        place.router.nudge(now + NUDGE_SECONDS + 5.0)
        assert [(e.sequence, e.items) for e in await place.appended()] == [(3, [])]

        place.hear(Progress(3))
        place.router.nudge(now + 60.0)
        assert await place.appended() == []

    run(scenario)


def test_entries_that_nobody_digests_for_an_hour_are_followed_by_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("amsync.gateway.router.time", clock)

    async def scenario(place: Place) -> None:
        nonlocal now
        place.router.forward(SHARD, Close(1), 1, 10)
        await place.appended()
        sent = []
        for _ in range(3600):
            now += 1
            place.router.nudge(now)
            if place.router._dirty:
                await place.appended()
                sent.append(now - 1000)

        assert sent[0] <= NUDGE_SECONDS + 1
        assert len(sent) <= 10 + 3600 / MOST_NUDGE_SECONDS
        assert sent[-1] > 3600 - MOST_NUDGE_SECONDS - 1

    run(scenario)


def test_another_incarnation_begins_with_a_hand_over_and_credits_all() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.router.forward(SHARD, Close(1), 1, 10)
        await place.appended()
        place.router.forward(SHARD, Close(2), 2, 20)

        place.router.begin_again("g2")

        (entry,) = await place.appended()
        assert (entry.sender, entry.sequence) == ("g2", 1)
        assert entry.items == [HandOver(0, 1, 2, True), Close(7), HandedOver(0, 2)]
        assert place.credited == [(1, 10), (2, 20)]

    run(scenario)


def test_another_incarnation_reads_its_own_stream_from_the_first_entry() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        for number in (3, 4):
            old = pack_outbound("w", number, 0.0, [Stamped(SHARD, 1, OFFER)])
            await place.bus.append(gateway_stream("p", "g"), old)
        take = place.router.take

        def take_and_begin_again(entry: Entry) -> None:
            take(entry)
            if entry.sequence == 3:
                place.router.begin_again("g2")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place.router, "take", take_and_begin_again)
            await pass_turns()
        await place.appended()
        place.delivered.clear()

        first = pack_outbound("w", 1, 0.0, [Stamped(SHARD, 1, REPLY)])
        await place.bus.append(gateway_stream("p", "g2"), first)
        await pass_turns()

        assert place.delivered == [REPLY]

    run(scenario)


def test_only_workers_that_are_gone_and_own_nothing_are_forgotten() -> None:
    async def scenario(place: Place) -> None:
        place.welcome(epoch=1, worker="gone")
        place.hear(Owned([[SHARD, 2]]), worker="owner")
        place.hear(Owned([[OTHER, 1]]), worker="other", shard=EVERY_SHARD, epoch=0)

        place.router.forget_workers({"other"})

        assert place.router._workers.keys() == {"owner", "other"}

    run(scenario)


def test_epochs_of_an_emptied_bus_are_forgotten() -> None:
    """The volume may be an older one that was brought back: its epochs begin lower."""

    async def scenario(place: Place) -> None:
        place.welcome(epoch=7)
        place.router.begin_again("g2", forgets_epochs=True)
        place.sequences.clear()

        place.hear(Owned([[SHARD, 2]]), epoch=0, shard=EVERY_SHARD)

        (entry,) = [e for e in await place.appended() if e.items]
        assert begun([entry]) == [HandOver(0, 2, 2, False)]

    run(scenario)


def test_hand_overs_are_counted_by_reason() -> None:
    async def scenario(place: Place) -> None:
        place.welcome()
        place.miss()
        place.hear()
        place.hear(Resync())
        place.hear(Owned([[SHARD, 2]]), worker="another")
        place.router.begin_again("g2")

        value = place.metrics.registry.get_sample_value
        reasons = ("new_epoch", "gap", "asked_by_worker", "begun_again")
        counts = {r: value("amsync_hand_overs_total", {"reason": r}) for r in reasons}
        assert counts == {"new_epoch": 2, "gap": 1, "asked_by_worker": 1, "begun_again": 1}
        assert value("amsync_gaps_total", {"direction": "outbound"}) == 1

    run(scenario)

"""Orders that stand, and how they stay on the bus: without a gateway, on a clock of the test's."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from amsync import Identity
from amsync.bus import MemoryBus, access_stream
from amsync.bus.port import START
from amsync.errors import BusError
from amsync.front import Front
from amsync.gateway.caller import Proof, caller
from amsync.gateway.orders.standing import StandingOrders
from amsync.gateway.orders.stream import SPARE_ENTRIES, OrderStream
from amsync.ids import DocumentId, generate_document_id
from amsync.metrics import Metrics
from amsync.options import ListenOptions
from amsync.protocol.access import Access
from amsync.protocol.orders import Kick, Lift, Mark, Order, Refresh, Restrict, pack_order

DOCUMENT, OTHER = generate_document_id(), generate_document_id()
STREAM = access_stream("amsync")


def identity(subject: str = "bob", **claims: Any) -> Identity:
    return Identity("https://issuer", subject, None, {"iat": 100, **claims}, 1e12)


def somebody(subject: str = "bob") -> Any:
    return caller("peer", Proof.of(identity(subject), subject, 1e12))


def kick(
    order_id: str = "k", at: float = 100.0, until: float = 200.0, *, ban: bool = False
) -> Kick:
    return Kick(order_id, at, until, "https://issuer", "bob", ban)


def restrict(
    order_id: str = "r",
    *,
    until: float = 200.0,
    subject: str | None = None,
    document_id: DocumentId | None = None,
    access: int = 0,
) -> Restrict:
    issuer = None if subject is None else "https://issuer"
    return Restrict(order_id, 100.0, until, issuer, subject, document_id, access)


# -- standing


@pytest.mark.parametrize(
    ("claims", "ban", "refused"),
    [
        ({"iat": 99}, False, True),
        ({"iat": 100}, False, True),
        ({"iat": 100.5}, False, False),
        ({"iat": 101}, False, False),
        ({"iat": 101}, True, True),
        ({"iat": None}, False, True),
        ({"iat": True}, False, True),
        ({"iat": "999"}, False, True),
    ],
)
def test_kick_refuses_tokens_of_before_and_a_ban_all(
    claims: dict[str, Any], ban: bool, refused: bool
) -> None:
    orders = StandingOrders()
    orders.take(kick(ban=ban), 100.0)
    assert orders.refuses(identity(**claims)) is refused
    assert not orders.refuses(identity("carol", **claims))


def test_order_is_over_at_its_end() -> None:
    orders = StandingOrders()
    first, second = kick("a", until=150.0), kick("b", until=160.0)
    orders.take(first, 100.0)
    orders.take(second, 100.0)

    assert orders.lapse(149.9) == []
    assert orders.lapse(150.0) == [first]
    assert orders.refuses(identity())
    assert orders.lapse(160.0) == [second]
    assert not orders.refuses(identity())
    assert len(orders) == 0


def test_order_that_is_over_already_has_no_effect() -> None:
    orders = StandingOrders()
    assert orders.take(kick(), 200.0) is None
    assert len(orders) == 0


@pytest.mark.parametrize(
    ("orders", "of_bob", "of_carol"),
    [
        ([], Access.WRITE, Access.WRITE),
        ([restrict()], Access.NONE, Access.NONE),
        ([restrict(access=1)], Access.READ, Access.READ),
        ([restrict(subject="bob")], Access.NONE, Access.WRITE),
        ([restrict(document_id=DOCUMENT, access=1)], Access.READ, Access.READ),
        ([restrict(document_id=OTHER)], Access.WRITE, Access.WRITE),
        ([restrict(subject="bob", document_id=DOCUMENT)], Access.NONE, Access.WRITE),
        ([restrict(subject="bob", document_id=OTHER)], Access.WRITE, Access.WRITE),
        ([restrict("a", access=1), restrict("b", subject="bob")], Access.NONE, Access.READ),
    ],
)
def test_strictest_restriction_holds(
    orders: list[Restrict], of_bob: Access, of_carol: Access
) -> None:
    standing = StandingOrders()
    for order in orders:
        standing.take(order, 100.0)
    assert standing.most(somebody(), DOCUMENT) is of_bob
    assert standing.most(somebody("carol"), DOCUMENT) is of_carol


def test_without_authentication_only_what_concerns_everybody_counts() -> None:
    standing = StandingOrders()
    standing.take(restrict(subject="bob"), 100.0)
    assert standing.most(caller("bob", None), DOCUMENT) is Access.WRITE
    standing.take(restrict("all", access=1), 100.0)
    assert standing.most(caller("bob", None), DOCUMENT) is Access.READ


def test_repeated_order_begins_nothing() -> None:
    standing = StandingOrders()
    assert standing.take(restrict(), 100.0) == restrict()
    assert standing.take(restrict(), 100.0) is None
    assert len(standing) == 1


def test_order_that_was_taken_back_stays_so_when_it_is_read_again() -> None:
    standing = StandingOrders()
    standing.take(restrict(), 100.0)
    assert standing.take(Lift("r", 110.0, 200.0), 110.0) == restrict()
    assert standing.take(restrict(), 110.0) is None
    assert standing.take(Lift("r", 120.0, 200.0), 120.0) is None
    assert standing.most(somebody(), DOCUMENT) is Access.WRITE
    assert standing.in_force() == []
    assert standing.find("r") is None
    standing.lapse(200.0)
    assert len(standing) == 0


def test_order_that_comes_after_its_lifting_never_begins() -> None:
    standing = StandingOrders()
    assert standing.take(Lift("r", 110.0, 200.0), 110.0) is None
    assert standing.take(restrict(), 110.0) is None
    assert standing.most(somebody(), DOCUMENT) is Access.WRITE


# -- on the bus


class Gate:
    """A gateway's orders, on a bus that others may share."""

    def __init__(self, bus: MemoryBus, now: list[float]) -> None:
        self.now = now
        self.standing = StandingOrders()
        self.taken: list[Order] = []
        self.stream = OrderStream(
            bus, STREAM, self.standing, self._take, Metrics(), lambda: self.now[0]
        )
        self.stream._chance = lambda: 0.0

    def _take(self, order: Order) -> None:
        self.taken.append(order)
        if not isinstance(order, Refresh):
            self.standing.take(order, self.now[0])  # type: ignore[arg-type]

    async def give(self, order: Order) -> None:
        await self.stream.append(order)


def run(scenario: Callable[[MemoryBus, list[float]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        bus = MemoryBus()
        await scenario(bus, [100.0])
        await bus.close()

    asyncio.run(main())


def entries(bus: MemoryBus) -> int:
    return len(bus.streams.open(STREAM).entries)


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Running:
    """Runs the streams of gates."""

    def __init__(self, *gates: Gate) -> None:
        self._gates = gates

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.ensure_future(gate.stream.run()) for gate in self._gates]
        await turns()

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def test_gate_that_opens_knows_what_was_ordered_before() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        one, two = Gate(bus, now), Gate(bus, now)
        await one.stream.open()
        await one.give(kick())
        await one.give(Refresh("f", 100.0))

        await two.stream.open()

        assert two.taken == [kick(), Refresh("f", 100.0)]
        assert two.standing.refuses(identity())

    run(scenario)


def test_gateway_knows_the_orders_before_it_listens() -> None:
    async def scenario(bus: MemoryBus, _now: list[float]) -> None:
        front = Front(ListenOptions(), Metrics())
        await bus.append(STREAM, pack_order(kick(until=1e12)))
        gateway = await front.open(
            bus,
            server_peer_id="server",
            storage_id=None,
            shard_count=1,
            prefix="amsync",
            incarnation="gateway",
        )
        assert gateway.orders.refuses(identity())
        await front.release()

    run(scenario)


def test_order_reaches_gates_that_run() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        one, two = Gate(bus, now), Gate(bus, now)
        async with Running(one, two):
            await one.give(restrict())
            await turns()
            assert one.taken == two.taken == [restrict()]

    run(scenario)


def test_entries_that_nobody_understands_are_passed_over() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        gate = Gate(bus, now)
        await bus.append(STREAM, b"\xc1")
        await bus.append(STREAM, b"\x93\x02\x63\xa1x")  # a kind of tomorrow
        await bus.append(STREAM, pack_order(kick()))
        await gate.stream.open()
        assert gate.taken == [kick()]

    run(scenario)


def test_what_is_over_is_trimmed_and_what_stands_stays() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        gate = Gate(bus, now)
        async with Running(gate):
            await gate.give(kick("short", until=150.0))
            await gate.give(Refresh("f", 100.0))
            await gate.give(kick("long", until=900.0))
            await gate.give(kick("behind", until=150.0))
            await turns()

            now[0] = 161.0
            gate.standing.lapse(now[0])
            await gate.stream.trim()

            assert entries(bus) == 2
            fresh = Gate(bus, now)
            await fresh.stream.open()
            assert [order.id for order in fresh.standing.all()] == ["long"]

            now[0] = 1000.0
            await gate.stream.trim()
            await turns()
            await gate.stream.trim()
            assert entries(bus) == 0

    run(scenario)


def test_lifted_order_leaves_and_its_lifting_stays_until_its_end() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        gate = Gate(bus, now)
        async with Running(gate):
            await gate.give(restrict(until=300.0))
            await gate.give(Lift("r", 100.0, 300.0))
            await turns()
            now[0] = 200.0
            await gate.stream.trim()
            # The one lifting is left: somebody may still be writing the order again.
            assert entries(bus) == 1
            await gate.give(restrict(until=300.0))
            await turns()
            fresh = Gate(bus, now)
            await fresh.stream.open()
            assert fresh.standing.most(somebody(), DOCUMENT) is Access.WRITE

    run(scenario)


def test_long_order_before_many_short_ones_is_written_again_behind_them() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        gate = Gate(bus, now)
        async with Running(gate):
            await gate.give(kick("long", until=1e6))
            for number in range(SPARE_ENTRIES + 10):
                await gate.give(Refresh(str(number), 100.0))
            await turns()
            now[0] = 1000.0
            await gate.stream.trim()
            await turns()
            await gate.stream.trim()

            assert entries(bus) == 1
            fresh = Gate(bus, now)
            await fresh.stream.open()
            assert [order.id for order in fresh.standing.all()] == ["long"]

    run(scenario)


def test_what_an_emptied_bus_has_lost_is_written_again() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        gate = Gate(bus, now)
        async with Running(gate):
            await gate.give(kick("k", until=900.0))
            await gate.give(restrict("r", until=900.0))
            await gate.give(Lift("r", 100.0, 900.0))
            await turns()
            await bus.delete(STREAM)
            gate.stream.bus_was_emptied()
            now[0] = 103.0
            gate.stream.tick()
            await turns()

            fresh = Gate(bus, now)
            await fresh.stream.open()
            assert fresh.standing.refuses(identity())
            assert fresh.standing.is_lifted("r")
            gate.stream.tick()
            await turns()
            assert entries(bus) == 3  # with the mark of the fresh one

    run(scenario)


def test_order_that_the_bus_does_not_take_is_given_when_it_does() -> None:
    class Failing(MemoryBus):
        fails = False

        async def append(self, stream: str, data: Any) -> Any:
            if self.fails:
                raise BusError("out of reach")
            return await super().append(stream, data)

    async def main() -> None:
        bus, now = Failing(), [100.0]
        one, two = Gate(bus, now), Gate(bus, now)
        async with Running(one, two):
            bus.fails = True
            with pytest.raises(BusError):
                await one.give(kick())
            bus.fails = False
            for _ in range(200):
                await asyncio.sleep(0.01)
                if two.taken:
                    break
            assert two.taken == [kick()]

    asyncio.run(main())


def test_marks_of_gates_are_trimmed_too() -> None:
    async def scenario(bus: MemoryBus, now: list[float]) -> None:
        gate = Gate(bus, now)
        async with Running(gate):
            for number in range(5):
                await bus.append(STREAM, pack_order(Mark(str(number), 100.0)))
            await turns()
            now[0] = 200.0
            await gate.stream.trim()
            assert entries(bus) == 0

    run(scenario)


def test_start_of_a_stream_is_before_every_position() -> None:
    assert MemoryBus().streams.append(STREAM, b"x") > START

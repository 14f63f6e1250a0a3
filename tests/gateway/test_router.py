"""What the router leaves to wait, and for what."""

import asyncio
from collections.abc import Awaitable, Callable

from amsync.bus import MemoryBus, Reader, shard_stream
from amsync.bus.port import START
from amsync.gateway.router import FAR_GATHER_SECONDS, GATHER_SECONDS, MOST_WAITING, Router
from amsync.metrics import Metrics
from amsync.protocol.envelope import Close, unpack_inbound
from amsync.turns import Turns

SHARD = 3


class SteppedLoop(asyncio.SelectorEventLoop):
    """Its clock can be put forward."""

    ahead_seconds = 0.0

    def time(self) -> float:
        return super().time() + self.ahead_seconds


async def let_pass(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppedLoop)
    loop.ahead_seconds += seconds
    await pass_turns()


def run(scenario: Callable[[Router, Reader], Awaitable[None]], *, hands_over: bool = False) -> None:
    async def main() -> None:
        bus = MemoryBus()
        router = Router(
            bus,
            Metrics(),
            prefix="p",
            incarnation="g",
            credit=lambda _number, _size: None,
            deliver=lambda _stamped: None,
            turns=Turns(),
            hand_over=(lambda _shard, _may_be_lost: []) if hands_over else None,
        )
        reader = bus.reader()
        reader.follow(shard_stream("p", SHARD), START)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            running = group.create_task(router.run())
            await pass_turns()
            await scenario(router, reader)
            running.cancel()

    with asyncio.Runner(loop_factory=SteppedLoop) as runner:
        runner.run(main())


async def pass_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def came(reader: Reader) -> list[list[int]]:
    entries = [unpack_inbound(entry.data) for entry in reader.take(1 << 20)]
    return [[item.connection for item in entry.items] for entry in entries]


def test_what_may_wait_goes_with_what_may_not_and_in_order() -> None:
    async def scenario(router: Router, reader: Reader) -> None:
        router.forward(SHARD, Close(1), 1, 10, True)
        await pass_turns()
        assert came(reader) == []

        router.forward(SHARD, Close(2), 2, 10)
        router.forward(SHARD, Close(3), 3, 10, True)
        await pass_turns()

        assert came(reader) == [[1, 2, 3]]

    run(scenario)


def test_what_may_wait_goes_by_itself_after_a_moment() -> None:
    async def scenario(router: Router, reader: Reader) -> None:
        for number in (1, 2):
            router.forward(SHARD, Close(number), number, 10, True)

        assert [e.connection for e in unpack_inbound((await reader.read(1))[0].data).items] == [
            1,
            2,
        ]

    run(scenario)


def test_answers_wait_longer_for_a_worker_in_another_process() -> None:
    async def scenario(router: Router, reader: Reader) -> None:
        router.forward(SHARD, Close(1), 1, 10, True)
        await let_pass(GATHER_SECONDS + FAR_GATHER_SECONDS / 2)
        assert came(reader) == []

        await let_pass(FAR_GATHER_SECONDS / 2)

        assert came(reader) == [[1]]

    run(scenario, hands_over=True)


def test_an_answer_waits_for_a_time_of_its_own_after_others_were_taken_along() -> None:
    async def scenario(router: Router, reader: Reader) -> None:
        router.forward(SHARD, Close(1), 1, 10, True)
        await let_pass(FAR_GATHER_SECONDS - 0.1)
        router.forward(SHARD, Close(2), 2, 10)
        await pass_turns()
        assert came(reader) == [[1, 2]]

        router.forward(SHARD, Close(3), 3, 10, True)
        await let_pass(FAR_GATHER_SECONDS - 0.1)
        assert came(reader) == []
        await let_pass(0.1)

        assert came(reader) == [[3]]

    run(scenario, hands_over=True)


def test_nothing_waits_longer_when_one_connection_has_several_answers_waiting() -> None:
    async def scenario(router: Router, reader: Reader) -> None:
        for number in (1, 2, 3, *[1] * (MOST_WAITING - 2)):
            router.forward(SHARD, Close(number), number, 10, True)
        await let_pass(GATHER_SECONDS)
        assert came(reader) == []

        router.forward(SHARD, Close(1), 1, 10, True)
        await let_pass(GATHER_SECONDS)
        (sent,) = came(reader)
        router.forward(SHARD, Close(1), 1, 10, True)
        await let_pass(GATHER_SECONDS)

        assert sent.count(1) == MOST_WAITING
        assert came(reader) == []

    run(scenario, hands_over=True)


def test_flush_waits_for_nothing() -> None:
    async def scenario(router: Router, reader: Reader) -> None:
        router.forward(SHARD, Close(1), 1, 10, True)

        positions = await router.flush()

        assert set(positions) == {SHARD}
        assert came(reader) == [[1]]

    run(scenario)

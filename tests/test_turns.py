"""Turns and routines: order, one run at a time, failures, ends."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from amsync.turns import MOST_CALLS, STEP_MARGIN_SECONDS, Routine, Turns, seconds_to_step


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(main())


async def pass_turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_calls_of_a_turn_come_in_order_before_the_next_turn() -> None:
    async def scenario() -> None:
        turns, seen = Turns(), list[str]()
        loop = asyncio.get_running_loop()

        def first() -> None:
            seen.append("first")
            turns.soon(lambda: seen.append("third"))
            loop.call_soon(seen.append, "next turn")

        turns.soon(first)
        turns.soon(lambda: seen.append("second"))
        assert seen == []
        await pass_turns()

        assert seen == ["first", "second", "third", "next turn"]

    run(scenario)


def test_calls_that_bring_forth_calls_without_end_leave_turns_to_others() -> None:
    async def scenario() -> None:
        turns, count = Turns(), 0

        def again() -> None:
            nonlocal count
            count += 1
            if count < 10 * MOST_CALLS:
                turns.soon(again)

        turns.soon(again)
        await pass_turns(3)

        assert 0 < count < 10 * MOST_CALLS
        await pass_turns(20)
        assert count == 10 * MOST_CALLS

    run(scenario)


def test_calls_behind_one_that_raises_are_done_all_the_same() -> None:
    async def scenario() -> None:
        errors: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
        turns, seen = Turns(), list[str]()

        def fail() -> None:
            raise RuntimeError("a defect")

        turns.soon(fail)
        turns.soon(lambda: seen.append("behind"))
        await pass_turns()
        turns.soon(lambda: seen.append("later"))
        await pass_turns()

        assert seen == ["behind", "later"]
        assert len(errors) == 1

    run(scenario)


def test_work_without_a_wait_is_done_in_the_turn_of_its_wake() -> None:
    async def scenario() -> None:
        turns, seen = Turns(), list[str]()

        async def work() -> None:
            seen.append("work")

        routine = Routine(turns, work)
        task = asyncio.create_task(routine.run())
        await pass_turns()
        turns.soon(routine.set)
        turns.soon(lambda: asyncio.get_running_loop().call_soon(seen.append, "next turn"))
        await pass_turns()

        assert seen == ["work", "next turn"]
        task.cancel()

    run(scenario)


def test_one_run_at_a_time_and_one_more_for_wakes_meanwhile() -> None:
    async def scenario() -> None:
        gate, runs, active = asyncio.Event(), 0, 0

        async def work() -> None:
            nonlocal runs, active
            active += 1
            assert active == 1
            runs += 1
            await gate.wait()
            await asyncio.sleep(0)
            active -= 1

        routine = Routine(Turns(), work)
        routine.set()  # before it runs: not lost
        task = asyncio.create_task(routine.run())
        await pass_turns()
        for _ in range(3):
            routine.set()
        await pass_turns()
        assert runs == 1
        gate.set()
        await pass_turns(10)

        assert (runs, active) == (2, 0)
        task.cancel()

    run(scenario)


def test_what_the_work_raises_comes_out_of_run() -> None:
    async def scenario() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            raise ValueError("a defect")

        routine = Routine(Turns(), work)
        routine.set()
        with pytest.raises(ValueError, match="a defect"):
            await routine.run()
        routine.set()
        await pass_turns()  # nothing runs any more

    run(scenario)


def test_an_awaited_failure_is_raised_in_the_work() -> None:
    async def scenario() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen: list[str] = []

        async def work() -> None:
            try:
                await future
            except OSError as error:
                seen.append(str(error))

        routine = Routine(Turns(), work)
        routine.set()
        task = asyncio.create_task(routine.run())
        await pass_turns()
        future.set_exception(OSError("disk"))
        await pass_turns()

        assert seen == ["disk"]
        task.cancel()

    run(scenario)


def test_work_ends_with_the_task_that_lets_it_run() -> None:
    async def scenario() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seen: list[str] = []

        async def work() -> None:
            try:
                await future
            finally:
                seen.append("ended")

        routine = Routine(Turns(), work)
        routine.set()
        task = asyncio.create_task(routine.run())
        await pass_turns()
        task.cancel()
        await asyncio.wait([task])
        routine.set()
        await pass_turns()

        assert seen == ["ended"]
        assert future.cancelled()

    run(scenario)


def test_what_is_done_every_so_often_comes_together() -> None:
    begun = [1000.0, 1000.2, 1000.7004]

    met = [now + seconds_to_step(1.0, now) for now in begun]
    met = [now + seconds_to_step(1.0, now) for now in met]

    assert [round((now - met[0]) % 1.0, 2) % 1.0 for now in met] == [0, 0, 0]


@pytest.mark.parametrize("late", [-0.001, 0.0, 0.0004, 0.3])
def test_a_step_is_neither_done_twice_nor_left_out(late: float) -> None:
    moment = 1000.0 + seconds_to_step(1.0, 1000.0)

    wait = seconds_to_step(1.0, moment + late)

    assert STEP_MARGIN_SECONDS < wait <= 1.0 + STEP_MARGIN_SECONDS
    assert late + wait == pytest.approx(1.0, abs=0.002)

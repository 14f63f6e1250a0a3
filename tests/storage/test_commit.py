import asyncio
import threading
from collections.abc import Sequence

import pytest

from amsync.errors import StorageError, StorageFull
from amsync.storage import WalBatch, commit
from amsync.storage.commit import GroupCommit, InlineCommit

from .shapes import changes, document

ONE = document(1)


class Disk:
    """An append that waits until it is let through."""

    def __init__(self) -> None:
        self.groups: list[list[WalBatch]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.error: Exception | None = None

    def append(self, batches: Sequence[WalBatch]) -> None:
        self.entered.release()
        self.gate.acquire()
        if self.error is not None:
            raise self.error
        self.groups.append(list(batches))


def batch(number: int) -> WalBatch:
    return changes({ONE: [b"%d" % number]})


async def run_blocking(semaphore: threading.Semaphore) -> None:
    await asyncio.to_thread(semaphore.acquire)


def test_batches_that_gather_during_a_commit_share_the_next_one() -> None:
    disk = Disk()
    seen: list[tuple[float, int]] = []

    async def scenario() -> None:
        group = GroupCommit(disk.append, lambda seconds, size: seen.append((seconds, size)))
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(group.commit(batch(0)))
            await run_blocking(disk.entered)
            later = [tasks.create_task(group.commit(batch(number))) for number in range(1, 6)]
            await asyncio.sleep(0)
            assert not first.done()
            disk.gate.release()
            await first
            assert not any(task.done() for task in later)
            disk.gate.release()
        await asyncio.to_thread(group.close)

    asyncio.run(scenario())

    assert disk.groups == [[batch(0)], [batch(number) for number in range(1, 6)]]
    assert len(seen) == 2
    assert seen[1][1] == sum(batch(number).size_bytes for number in range(1, 6))


def test_a_failed_group_fails_every_waiter_and_the_thread_goes_on() -> None:
    disk = Disk()

    async def scenario() -> None:
        group = GroupCommit(disk.append)
        disk.error = StorageError("no")
        disk.gate.release()
        with pytest.raises(StorageError):
            await group.commit(batch(0))
        disk.error = ValueError("a bug")
        disk.gate.release()
        with pytest.raises(ValueError, match="a bug"):
            await group.commit(batch(1))
        disk.error = None
        disk.gate.release()
        await group.commit(batch(2))
        await asyncio.to_thread(group.close)

    asyncio.run(scenario())

    assert disk.groups == [[batch(2)]]


def test_a_cancelled_waiter_does_not_stop_the_commit() -> None:
    disk = Disk()

    async def scenario() -> None:
        group = GroupCommit(disk.append)
        waiter = asyncio.ensure_future(group.commit(batch(0)))
        await run_blocking(disk.entered)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        disk.gate.release()
        await asyncio.to_thread(group.close)

    asyncio.run(scenario())

    assert disk.groups == [[batch(0)]]


def test_a_loop_that_ended_meanwhile_does_no_harm() -> None:
    disk = Disk()
    group = GroupCommit(disk.append)

    async def leave() -> None:
        waiter = asyncio.ensure_future(group.commit(batch(0)))
        await run_blocking(disk.entered)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)

    asyncio.run(leave())
    disk.gate.release()
    group.close()

    assert disk.groups == [[batch(0)]]


@pytest.mark.parametrize("kind", [GroupCommit, InlineCommit])
def test_close_commits_what_waits_and_refuses_the_rest(
    kind: type[GroupCommit] | type[InlineCommit],
) -> None:
    disk = Disk()
    for _ in range(3):
        disk.gate.release()
    results: list[BaseException | None] = []
    group = kind(disk.append)
    for number in range(3):
        group.submit(batch(number), results.append)

    group.close()
    group.close()
    group.submit(batch(3), results.append)

    assert results[:3] == [None] * 3
    assert isinstance(results[3], StorageError)
    assert [item for batches in disk.groups for item in batches] == [batch(n) for n in range(3)]


def test_the_queue_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "QUEUE_BYTES", 100)
    disk = Disk()
    results: list[BaseException | None] = []
    group = GroupCommit(disk.append)
    group.submit(changes({ONE: [b"x" * 1000]}), results.append)
    disk.entered.acquire()

    group.submit(batch(1), results.append)

    assert isinstance(results[0], StorageFull)
    assert group.waiting_bytes > 1000
    disk.gate.release()
    group.close()
    assert results[1:] == [None]
    assert group.waiting_bytes == 0

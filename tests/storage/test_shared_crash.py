"""Invariant: whoever of several workers dies when, what any has acknowledged is found, and goes on.

Random lives of a cluster from seeds: workers come, die between two file operations, take shards
over from each other; old owners append late; everybody checkpoints and removes what was covered.
"""

import contextlib
import os
from functools import partial
from random import Random

import pytest

from amsync.storage import SharedStore
from support.memfs import KEEP_EVERYTHING, MachineDown

from .workers import DOCUMENTS, SHARDS, Workers, shard

SEEDS = 500 if os.environ.get("AMSYNC_TEST_ALL") else 40


def live(workers: Workers, random: Random, steps: int) -> None:
    names = "abc"
    for _ in range(steps):
        name = random.choice(names)
        match random.randrange(14):
            case 0:
                if name not in workers.alive:
                    workers.open(name)
            case 1:
                if name in workers.alive and random.random() < 0.5:
                    workers.kill(name)
                elif name in workers.alive:
                    workers.doom(name, random.randrange(60))
            case 2 | 3:
                workers.take_over(name, random.sample(range(SHARDS), random.randint(1, SHARDS)))
                workers.check()
            case 4 | 5 | 6 | 7:
                workers.commit(random.choice(DOCUMENTS))
            case 8:
                if workers.former:
                    former, each, epoch, until = random.choice(workers.former)
                    documents = [document for document in DOCUMENTS if shard(document) == each]
                    if workers.disk.now < until and documents:
                        workers.commit(random.choice(documents), (former, epoch))
            case 9 | 10:
                workers.run(name, SharedStore.checkpoint)
            case 11:
                workers.wait(random.choice((1, 4, 12, 40)))
                workers.run(name, lambda store: store.rescan() if store.rescan_due() else None)
            case 12:
                document_id = random.choice(DOCUMENTS)
                owner, _ = workers.owners[shard(document_id)]
                workers.run(owner, partial(SharedStore.compact_if_due, document_id=document_id))
            case _:
                if random.random() < 0.1:
                    workers.delete(random.choice(DOCUMENTS))


@pytest.mark.parametrize("is_network", [False, True], ids=["one machine", "several"])
def test_whoever_dies_when_nothing_acknowledged_is_lost(is_network: bool) -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        workers = Workers(is_network=is_network)
        workers.open("a")
        workers.take_over("a", list(range(SHARDS)))
        live(workers, random, 150)

        workers.settle()
        workers.checkpoint_all()
        workers.check()
        for store in workers.alive.values():
            store.close()
        assert not workers.wal_files(), seed
        workers.alive.clear()
        workers.check_alone()


def test_a_power_failure_at_any_instant_loses_nothing_acknowledged() -> None:
    for seed in range(SEEDS):
        random = Random(seed)
        workers = Workers()
        workers.open("a")
        workers.take_over("a", list(range(SHARDS)))
        for _ in range(3):
            workers.disk.crash_at = workers.disk.operations + random.randrange(400)
            with contextlib.suppress(MachineDown):
                live(workers, random, 150)
            workers.power_fails(random.choice((KEEP_EVERYTHING, random, random)))
            workers.open(random.choice("abc"))
        workers.settle()
        workers.checkpoint_all()
        workers.check()
        for store in workers.alive.values():
            store.close()
        assert not workers.wal_files(), seed
        workers.alive.clear()
        workers.check_alone()

"""Invariant: what workers of one cluster acknowledge is found by whoever owns the shard next."""

import pytest

from amsync.errors import DocumentDeleted, StaleEpoch
from amsync.ids import DocumentId
from amsync.storage import DocumentChunks, Position, Tombstone, WalBatch
from support.fakecodec import make_chunk

from .conftest import ROOT
from .shapes import bodies, commit
from .workers import DOCUMENTS, SHARDS, Workers, shard

ONE = DOCUMENTS[0]
OTHER = next(each for each in DOCUMENTS if shard(each) != shard(ONE))
ALL = list(range(SHARDS))


@pytest.fixture(params=[False, True], ids=["one machine", "several"])
def workers(request: pytest.FixtureRequest) -> Workers:
    """Two of them; `a` owns all shards under epoch 1."""
    made = Workers(is_network=request.param)
    made.open("a")
    made.open("b")
    made.take_over("a", ALL)
    made.wait(70)
    return made


def change(document_id: DocumentId, body: bytes, epoch: int) -> WalBatch:
    return WalBatch((DocumentChunks(shard(document_id), epoch, document_id, (make_chunk(body),)),))


def test_a_shard_is_taken_over_from_a_living_worker_with_its_position(workers: Workers) -> None:
    workers.commit(ONE)
    workers.commit(OTHER)
    workers.wait(70)

    taken = workers.alive["b"].take_over({shard(ONE): 2})

    assert taken.positions == {shard(ONE): Position("e1", "1-0", {"g": 1}, 1)}
    assert not taken.refused
    assert bodies(workers.alive["b"], ONE) == workers.acknowledged[ONE]
    assert bodies(workers.alive["b"], OTHER) == set(), "of shards that are not its own it took none"


def test_a_shard_of_a_higher_epoch_is_refused_and_the_others_are_taken(workers: Workers) -> None:
    a, b = workers.alive["a"], workers.alive["b"]
    a.take_over({0: 7})
    workers.wait(70)

    taken = b.take_over({0: 5, 1: 2})

    assert taken.refused == {0: 7}
    assert b.take_over({1: 2}).refused == {}, "taking it back is no error"
    a.take_over({1: 3})
    workers.wait(70)
    assert b.take_over({1: 2}).refused == {1: 3}
    with pytest.raises(StaleEpoch):
        b.claim_shard(0, 7)


def test_what_an_old_owner_appends_late_is_found_by_the_second_look(workers: Workers) -> None:
    a, b = workers.alive["a"], workers.alive["b"]
    commit(a, change(ONE, b"early", 1))
    b.take_over({shard(ONE): 2})
    commit(a, change(ONE, b"late", 1))
    commit(a, WalBatch(tombstones=(Tombstone(shard(ONE), 1, DOCUMENTS[1]),)))
    bodies(b, ONE)
    assert not b.rescan_due()
    workers.wait(70)

    assert b.rescan_due()
    assert ONE in b.rescan()
    assert not b.rescan_due()
    assert bodies(b, ONE) == {b"early", b"late"}
    if shard(DOCUMENTS[1]) == shard(ONE):
        with pytest.raises(DocumentDeleted):
            b.load(DOCUMENTS[1])


def test_what_an_old_owner_checkpoints_late_is_found_by_the_second_look(workers: Workers) -> None:
    """Its segment is gone by then; the folder has a file that was not there at the first look."""
    a, b = workers.alive["a"], workers.alive["b"]
    b.take_over({shard(ONE): 2})
    assert bodies(b, ONE) == set()
    commit(a, change(ONE, b"late", 1))
    a.checkpoint()
    workers.wait(70)

    assert b.rescan() == {ONE}
    assert bodies(b, ONE) == {b"late"}


def test_a_dead_workers_log_stays_until_it_was_looked_at_twice_and_written_out() -> None:
    workers = Workers()
    workers.open("a")
    workers.open("b")
    workers.take_over("a", ALL)
    workers.commit(ONE)
    workers.commit(OTHER)
    workers.kill("a")
    b = workers.alive["b"]
    workers.take_over("b", [shard(ONE)])
    b.checkpoint()
    assert len(workers.wal_files()) == 1, "before the second look"
    workers.wait(20)
    b.rescan()
    b.checkpoint()
    assert len(workers.wal_files()) == 1, "another shard in it is nobody's"

    workers.take_over("b", [shard(OTHER)])
    workers.wait(20)
    b.rescan()
    b.checkpoint()

    assert workers.wal_files() == []
    workers.check()


def test_what_was_appended_after_the_second_look_is_found_when_its_worker_is_dead() -> None:
    """A worker that stood still between looking at its lease and appending."""
    workers = Workers()
    workers.open("a")
    workers.open("b")
    workers.take_over("a", ALL)
    a, b = workers.alive["a"], workers.alive["b"]
    commit(a, change(ONE, b"early", 1))
    b.take_over({shard(ONE): 2})
    workers.wait(20)
    b.rescan()
    commit(a, change(ONE, b"very late", 1))
    b.checkpoint()
    workers.kill("a")

    commit(b, change(ONE, b"own", 2))
    b.checkpoint()

    assert b.rescan_due()
    assert b.rescan() == {ONE}
    assert bodies(b, ONE) == {b"early", b"very late", b"own"}
    b.checkpoint()
    assert workers.wal_files() == []
    assert bodies(b, ONE) == {b"early", b"very late", b"own"}


def test_positions_of_a_bus_that_was_emptied_are_none(workers: Workers) -> None:
    workers.commit(ONE)
    workers.wait(70)
    b = workers.alive["b"]
    b.set_bus_id("e2")

    assert b.take_over({shard(ONE): 2}).positions == {}


def test_the_position_of_the_highest_epoch_counts() -> None:
    workers = Workers()
    for name in ("a", "b"):
        workers.open(name)
    workers.take_over("a", ALL)
    a, b = workers.alive["a"], workers.alive["b"]
    commit(a, WalBatch(positions={0: Position("e1", "9-0", {}, 1)}))
    b.take_over({0: 2})
    commit(b, WalBatch(positions={0: Position("e1", "5-0", {}, 2)}))
    b.checkpoint()
    a.checkpoint()
    workers.wait(70)

    assert a.take_over({0: 3}).positions[0].entry == "5-0"


def test_a_log_of_positions_alone_is_written_out_and_goes() -> None:
    workers = Workers()
    workers.open("a")
    workers.take_over("a", ALL)
    a = workers.alive["a"]
    for number in range(100):
        position = Position("e1", f"{number}-0", {"g" * 32: number}, 1)
        commit(a, WalBatch(positions=dict.fromkeys(ALL, position)))

    assert a.tail_bytes > 100 * SHARDS * 32
    a.checkpoint()

    assert a.tail_bytes == 0
    assert workers.wal_files() == []
    assert {each.entry for each in a.take_over(dict.fromkeys(ALL, 2)).positions.values()} == {
        "99-0"
    }


def test_a_compaction_whose_lease_ended_removes_nothing() -> None:
    workers = Workers()
    workers.open("a")
    workers.take_over("a", ALL)
    a = workers.alive["a"]
    for number in range(10):
        commit(a, change(ONE, b"%d" % number, 1))
        a.checkpoint()
    asked: list[int] = []

    def still_ours(number: int) -> bool:
        asked.append(number)
        return False

    folder = f"{ONE[:2]}/{ONE[2:]}/"
    before = {name for name in workers.disk.tree(ROOT) if name.startswith(folder)}
    assert a.compact_if_due(ONE, still_ours) is None

    after = {name for name in workers.disk.tree(ROOT) if name.startswith(folder)}
    assert after > before
    assert asked == [shard(ONE)]
    assert a.compact_if_due(ONE, lambda _: True) is not None
    assert len([name for name in workers.disk.tree(ROOT) if name.startswith(folder)]) == 1


def test_a_dead_workers_damaged_segment_goes_to_quarantine_when_it_is_covered() -> None:
    workers = Workers()
    workers.open("a")
    workers.open("b")
    workers.take_over("a", ALL)
    for _ in range(3):
        commit(workers.alive["a"], change(ONE, b"x" * 20, 1))
    (path,) = [ROOT / name for name in workers.wal_files()]
    data = workers.disk.read(path)
    damaged = data.replace(b"x" * 20, b"x" * 19 + b"y", 1)
    workers.kill("a")
    workers.disk.put(path, damaged)

    workers.take_over("b", ALL)
    b = workers.alive["b"]
    b.checkpoint()
    assert workers.disk.read(path) == damaged
    workers.wait(20)
    b.rescan()
    b.checkpoint()

    kept = [each for name, each in workers.disk.tree(ROOT).items() if "/quarantine/" in name]
    assert damaged in kept
    assert workers.wal_files() == []
    assert bodies(b, ONE) == {b"x" * 20}


def test_a_volume_goes_from_a_cluster_to_a_server_and_back(workers: Workers) -> None:
    for document_id in DOCUMENTS:
        workers.commit(document_id)
    storage_id = workers.alive["a"].volume.storage_id
    for name in ("a", "b"):
        workers.kill(name)
    workers.wait(70)

    workers.check_alone()

    workers.open("c")
    workers.take_over("c", ALL)
    assert workers.alive["c"].volume.storage_id == storage_id
    workers.settle()


def test_a_document_that_can_not_be_written_is_ours_before_it_is_covered() -> None:
    """Else a dead worker's segment goes while nobody else has what was in it."""
    workers = Workers()
    workers.open("a")
    workers.open("b")
    workers.take_over("a", ALL)
    workers.commit(ONE)
    workers.commit(OTHER)
    workers.kill("a")
    workers.take_over("b", ALL)
    workers.wait(20)
    b = workers.alive["b"]
    b.rescan()
    folder = ROOT / ONE[:2] / ONE[2:]
    workers.disk.fault = lambda _, path: 5 if path.is_relative_to(folder) else None
    b.checkpoint()
    assert all(b.volume.owner in name for name in workers.wal_files())
    workers.disk.fault = None
    workers.kill("b")

    workers.settle()

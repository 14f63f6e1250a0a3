"""What a document may cost is paid for by bytes; and everything that was taken loads again."""

import random
import time
from collections.abc import Sequence

import pytest

from amsync._automerge import Document, Replica, build_document, compact

from . import craft
from .craft import Change

ALICE, BOB = b"alice-----------", b"bob-------------"


def send(document: Document, changes: Sequence[Change]) -> tuple[list[str], list[bytes]]:
    """From peer 1; returns the reasons of refusals, and what is to be stored."""
    chunks = [change.chunk() for change in changes]
    outcome = document.sync([(1, craft.message(chunks, [changes[-1].hash()]))])
    return [fault.reason for fault in outcome.faults], outcome.chunks


def with_peer(document: Document) -> Document:
    document.add_peer(1)
    return document


def author(number: int) -> bytes:
    return number.to_bytes(16, "big")


def chain(count: int, authors: Sequence[bytes], after: Change | None = None) -> list[Change]:
    """Changes one after the other, their authors in turn, each author's first or next one."""
    changes: list[Change] = []
    for number in range(count):
        previous = changes[-1] if changes else after
        changes.append(
            Change(
                authors[number % len(authors)],
                sequence=number // len(authors) + 1,
                start=previous.start + 1 if previous else 1,
                deps=[previous.hash()] if previous else [],
            )
        )
    return changes


# -- rows


def test_operation_numbers_pay_for_no_rows() -> None:
    """4.5 KB took 13.5 s and 3.9 GB: 50 changes far apart, then 10^7 rows in 104 bytes."""
    document = with_peer(Document())
    changes: list[Change] = []
    for number in range(50):
        deps = [changes[-1].hash()] if changes else []
        changes.append(Change(ALICE, number + 1, 1 + (number << 10), deps))
    assert send(document, changes)[0] == []

    bomb = Change(ALICE, 51, 1 + (50 << 10), [changes[-1].hash()], operations=10**7)

    assert send(document, [bomb]) == (["rows"], [])


def test_rows_of_many_messages_are_bounded_and_what_was_taken_loads() -> None:
    document = with_peer(Document())
    stored: list[bytes] = []
    reasons: list[str] = []
    for number in range(8):
        faults, chunks = send(document, [Change(author(number), operations=250_000)])
        reasons += faults
        stored += chunks

    assert reasons == ["rows"] * 4
    assert len(stored) == document.change_count() == 4
    loaded, problems = Document.load(stored)
    assert (loaded.heads(), problems) == (document.heads(), [])


def test_rows_do_not_pay_for_rows() -> None:
    document = with_peer(Document())
    taken = 0
    for number in range(40):
        size = 2**18 * 3 ** min(number, 8)
        taken += not send(document, [Change(author(number), operations=size)])[0]
    assert taken <= 4


def test_deletion_of_a_long_text_is_taken_after_a_reload_too() -> None:
    """Its rows are paid for by the bytes of the text, as they are and as a snapshot has them."""
    replica = Replica.load(build_document({"text": "x" * 265_000}))
    replica.splice("text", 0, 265_000, "")
    pasted, deleted = replica.changes()
    assert len(deleted) < 300
    live = Document()
    live.apply(pasted)
    snapshot, _, _ = compact([pasted])
    assert len(snapshot) < 10_000

    for document in (live, Document.load([snapshot])[0]):
        document.add_peer(1)
        outcome = document.sync([(1, craft.message([deleted], replica.heads()))])
        assert outcome.faults == []
        assert document.heads() == replica.heads()


@pytest.mark.parametrize("seed", range(3))
def test_what_was_taken_loads_in_any_order_and_compacted(seed: int) -> None:
    """Claims at random, most of them near what is allowed."""
    choose = random.Random(seed)
    document = with_peer(Document())
    stored: list[bytes] = []
    changes: list[Change] = []
    for number in range(12):
        parents = choose.sample(changes, min(len(changes), choose.randrange(3)))
        change = Change(
            author(number),
            start=1
            + max((p.start + p.operations for p in parents), default=0)
            + choose.choice([0, 0, 2**20 - 1]),
            deps=[parent.hash() for parent in parents],
            operations=choose.choice([1, 2, 300, 2**14, 2**16, 2**18 + 300, 2**20]),
        )
        if change.operations:
            faults, chunks = send(document, [change])
            stored += chunks
            if not faults:
                changes.append(change)

    assert len(changes) == document.change_count() == len(stored)
    choose.shuffle(stored)
    assert_loads(document, stored)


def assert_loads(document: Document, stored: list[bytes]) -> None:
    snapshot, heads, _ = compact(stored)
    assert heads == document.heads()
    for blobs in ([snapshot], [*stored[::-1], snapshot]):
        loaded, problems = Document.load(blobs)
        assert problems == []
        assert loaded.heads() == document.heads()
        assert loaded.queued_count() == 0


# -- steps


def test_many_authors_who_come_back_cost_no_more_than_one() -> None:
    """2.8 MB took 12.5 s: each second change walked down to its author's first one."""
    document = with_peer(Document())
    authors = [author(number) for number in range(10_000)]
    changes = chain(20_000, authors)
    started = time.monotonic()

    assert send(document, changes)[0] == []

    assert time.monotonic() - started < 3


def test_many_authors_who_worked_offline_and_come_back_are_cheap() -> None:
    """Each has a branch of its own, merged long ago."""
    document = with_peer(Document())
    changes = [Change(ALICE)]
    branches = []
    for number in range(4_000):
        trunk = changes[-1]
        branches.append(Change(author(number), 1, trunk.start + 1, [trunk.hash()]))
        merge = Change(
            ALICE, number + 2, trunk.start + 2, [trunk.hash(), branches[-1].hash()], operations=0
        )
        changes += [branches[-1], merge]
    for number in range(4_000):
        last = changes[-1]
        start = last.start + last.operations
        changes.append(Change(author(number), 2, start + 1, [last.hash()]))
    started = time.monotonic()

    assert send(document, changes)[0] == []

    assert time.monotonic() - started < 3


def ladder(height: int, first: int, below: Sequence[Change]) -> list[Change]:
    """Two chains with rungs both ways."""
    sides = [author(first), author(first + 1)]
    changes: list[Change] = []
    rung = list(below)
    for number in range(height):
        deps = [change.hash() for change in rung]
        start = max(change.start for change in rung) + 1
        rung = [Change(side, number + 1, start, deps) for side in sides]
        changes += rung
    return changes


def test_graph_made_to_be_searched_is_refused_within_a_bound() -> None:
    """The way from the authors' first changes to the heads is what both sides look at last."""
    height, count = 4_000, 3_000
    document = with_peer(Document())
    root = Change(ALICE)
    lower = ladder(height, 1, [root])
    upper = ladder(height, 3, lower[-2:])
    firsts = [Change(author(10 + n), 1, 2, [root.hash()]) for n in range(count)]
    top = upper[-1]
    # Merged behind a ladder of their own: long ways up for each of them, and long ways down.
    joined = Change(
        BOB, 1, top.start + 1, [top.hash(), *(first.hash() for first in firsts[::2])], operations=0
    )
    assert send(document, [root, *lower, *upper, *firsts, joined])[0] == []
    heads = document.heads()
    seconds = []
    reasons = []
    for number in range(1, 200, 2):
        liar = Change(author(10 + number), 2, joined.start + 1, [joined.hash()])
        started = time.monotonic()
        reasons += send(document, [liar])[0]
        seconds.append(time.monotonic() - started)

    assert set(reasons) <= {"sequence", "too_complex"}
    assert len(reasons) == 100
    assert max(seconds) < 1
    assert document.heads() == heads


def ancestors(change: Change, known: dict[bytes, Change]) -> set[bytes]:
    found: set[bytes] = set()
    open_hashes = list(change.deps)
    while open_hashes:
        next_hash = open_hashes.pop()
        if next_hash not in found:
            found.add(next_hash)
            open_hashes += known[next_hash].deps
    return found


@pytest.mark.parametrize("seed", range(60))
def test_ancestors_are_found_as_by_walking(seed: int) -> None:
    """Random graphs; a change is taken if its author's last one and whom it names are below it."""
    choose = random.Random(seed)
    document = with_peer(Document())
    known: dict[bytes, Change] = {}
    firsts: dict[bytes, Change] = {}
    last: dict[bytes, Change] = {}
    authors = [author(number) for number in range(choose.choice([2, 5, 20]))]
    recent = choose.choice([2, 4, 100])
    verdicts = set()
    for _ in range(150):
        near = list(known.values())[-recent:]
        parents = choose.sample(near, min(len(near), choose.choice([0, 1, 1, 1, 2, 3])))
        who, named = choose.choice(authors), choose.choice(authors)
        previous = last.get(who)
        change = Change(
            who,
            previous.sequence + 1 if previous else 1,
            1 + max((c.start for c in [*parents, previous] if c), default=0),
            [parent.hash() for parent in parents],
        )
        if named in firsts and named != who and choose.random() < 0.3:
            change.others = [named]
            change.columns = {
                craft.PREDECESSOR_GROUP: craft.run(1, 1),
                craft.PREDECESSOR_ACTOR: craft.run(1, 1),
                craft.PREDECESSOR_COUNTER: craft.run(1, firsts[named].start),
            }
        past = ancestors(change, known)
        expected = []
        if previous and previous.hash() not in past:
            expected = ["sequence"]
        elif not all(any(known[h].actor == name for h in past) for name in change.others):
            expected = ["unknown_actor"]
        # A good one before it is undone with it.
        before = Change(b"undone", 1, change.start, change.deps) if expected else None
        changes = [before, change] if before else [change]

        reasons, _ = send(document, changes)

        assert reasons == expected
        verdicts.add(str(expected))
        if not expected:
            known[change.hash()] = last[who] = change
            firsts.setdefault(who, change)
    assert document.change_count() == len(known)
    assert len(verdicts) > 1


# -- what waits


def orphan(number: int, size: int = 0) -> Change:
    return Change(author(number), deps=[b"?" * 32], extra=bytes(size))


def test_queued_changes_come_out_as_they_are_and_load() -> None:
    first = Change(ALICE)
    later = chain(3, [BOB], after=first)
    document, _ = Document.load([change.chunk() for change in later])

    queued = document.queued()

    assert sorted(queued) == sorted(change.chunk() for change in later)
    again, _ = Document.load([*queued, first.chunk()])
    assert (again.heads(), again.queued()) == ([later[-1].hash()], [])


def test_queue_is_bounded_in_bytes_and_drops_the_oldest() -> None:
    document = with_peer(Document(queue_bytes=4096))
    orphans = [orphan(number, 1000) for number in range(10)]

    assert send(document, orphans)[0] == []

    assert document.queued() == [change.chunk() for change in orphans[-3:]]


def test_queue_takes_eight_mebibytes_unless_told_otherwise() -> None:
    document = with_peer(Document())
    send(document, [orphan(number, 1 << 20) for number in range(12)])
    assert document.queued_count() == 7


def test_what_is_stored_waits_whatever_its_size() -> None:
    """Else compaction would not see that something waits, and delete it."""
    orphans = [orphan(number, 1000) for number in range(10)]
    document, _ = Document.load([change.chunk() for change in orphans], queue_bytes=1)
    assert document.queued_count() == 10


@pytest.mark.parametrize("wrong", [{"window": 0}, {"loop_limit": 0}, {"queue_bytes": 0}])
def test_limits_below_one_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Document(**wrong)
    with pytest.raises(ValueError, match="at least 1"):
        Document.load([], **wrong)

"""No bytes of a change or saved document crash or hang the engine, or get past its checks."""

import time
from itertools import pairwise

import pytest

from amsync._automerge import Document, InvalidChunk, Replica, compact, initial_change, inspect

from . import craft
from .craft import Change

ALICE, BOB = b"alice-----------", b"bob-------------"
FIRST = Change(ALICE)


def list_element(counter: int) -> Change:
    """Makes a list at `l` and sets its element with the given counter, which isn't there."""

    def then(value: int) -> bytes:
        return craft.signed(0) + craft.unsigned(1) + craft.signed(-1) + craft.unsigned(value)

    return Change(
        ALICE,
        operations=2,
        columns={
            craft.OBJECT_ACTOR: then(0),
            craft.OBJECT_COUNTER: then(1),
            craft.KEY_ACTOR: then(0),
            craft.KEY_COUNTER: then(counter),
            craft.KEY_STRING: craft.signed(-1)
            + craft.prefixed(b"l")
            + craft.signed(0)
            + craft.unsigned(1),
            craft.ACTION: craft.signed(-2) + b"\2\1",
        },
    )


def predecessors(count: int, counter: int) -> dict[int, bytes]:
    return {
        craft.PREDECESSOR_GROUP: craft.run(1, count),
        craft.PREDECESSOR_ACTOR: craft.run(count, 0),
        craft.PREDECESSOR_COUNTER: craft.signed(count) + craft.signed(counter),
    }


ONE_BEFORE = predecessors(1, 1)

REFUSED = {
    "checksum": ([craft.chunk(craft.CHANGE, FIRST.data(), b"0000")], "checksum"),
    "checksum of a compressed change": (
        [craft.chunk(craft.COMPRESSED, craft.deflate(FIRST.data()), b"0000")],
        "checksum",
    ),
    "checksum of a document": ([craft.chunk(craft.DOCUMENT, b"", b"0000")], "checksum"),
    "sequence with a gap": ([Change(ALICE, sequence=2).chunk()], "sequence"),
    "sequence 0": ([Change(ALICE, sequence=0).chunk()], "sequence"),
    "sequence beyond u32": ([Change(ALICE, sequence=2**40).chunk()], "sequence"),
    "previous change is no ancestor": (
        [FIRST.chunk(), Change(ALICE, sequence=2, start=2).chunk()],
        "sequence",
    ),
    "author named after the first change": (
        [FIRST.chunk(), Change(ALICE, 2, 2, [FIRST.hash()], extra=b"\1\1x").chunk()],
        "sequence",
    ),
    "two changes with one sequence number": (
        [FIRST.chunk(), Change(ALICE, operations=2).chunk()],
        "duplicate_sequence",
    ),
    "reused operation ids": (
        [FIRST.chunk(), Change(ALICE, 2, 1, [FIRST.hash()]).chunk()],
        "op_id",
    ),
    "operation ids not above the dependency's": (
        [FIRST.chunk(), Change(BOB, 1, 1, [FIRST.hash()]).chunk()],
        "op_id",
    ),
    "empty change that leaves a gap": (
        [FIRST.chunk(), Change(BOB, 1, 3, [FIRST.hash()], operations=0).chunk()],
        "op_id",
    ),
    "operation ids near 2^32": ([Change(ALICE, start=2**32 - 3).chunk()], "op_id"),
    "operation ids near 2^31": ([Change(ALICE, start=2**31 - 3).chunk()], "op_id"),
    "operation ids far ahead": ([Change(ALICE, start=2**20 + 2).chunk()], "op_id"),
    "operation ids beyond u32": ([Change(ALICE, start=2**33).chunk()], "malformed"),
    "unknown actor": ([Change(ALICE, others=[BOB]).chunk()], "unknown_actor"),
    "actor known, but not in the past": (
        [Change(BOB).chunk(), Change(ALICE, others=[BOB]).chunk()],
        "unknown_actor",
    ),
    "actor index beyond the list": (
        [
            Change(
                ALICE, columns=predecessors(1, 1) | {craft.PREDECESSOR_ACTOR: craft.run(1, 9)}
            ).chunk()
        ],
        "malformed",
    ),
    "object that doesn't exist": (
        [
            Change(
                ALICE,
                columns={
                    craft.OBJECT_ACTOR: craft.run(1, 0),
                    craft.OBJECT_COUNTER: craft.run(1, 1),
                },
            ).chunk()
        ],
        "unknown_object",
    ),
    "list element that doesn't exist": ([list_element(55).chunk()], "malformed"),
    "predecessor that doesn't exist": (
        [Change(ALICE, columns=predecessors(1, 77)).chunk()],
        "malformed",
    ),
    "rows": ([Change(ALICE, operations=2**60).chunk()], "rows"),
    "rows, compressed": ([Change(ALICE, operations=2**60).compressed()], "rows"),
    "rows over several changes": (
        [Change(bytes([number]) * 16, operations=2**16).chunk() for number in range(5)],
        "rows",
    ),
    "literal run of the smallest integer": (
        [Change(ALICE, columns={craft.ACTION: craft.signed(-(2**63))}).chunk()],
        "malformed",
    ),
    "predecessors without end": (
        [Change(ALICE, columns=predecessors(2**50, 1)).chunk()],
        "rows",
    ),
    "compressed column in a change": (
        [Change(ALICE, columns={craft.ACTION | craft.DEFLATE: b"\3\0"}).chunk()],
        "malformed",
    ),
    "inflating change": (
        [craft.chunk(craft.COMPRESSED, craft.deflate(bytes(257 << 20)), b"0000")],
        "too_large",
    ),
    "inflating column of operations": (
        [craft.document({}, {craft.ACTION | craft.DEFLATE: craft.deflate(bytes(257 << 20))})],
        "too_large",
    ),
    "inflating column of changes": (
        [craft.document({0x03 | craft.DEFLATE: craft.deflate(bytes(257 << 20))}, {})],
        "too_large",
    ),
    "rows of operations in a document": (
        [craft.document({}, {craft.ACTION: craft.run(2**60, 1)})],
        "rows",
    ),
    "rows of changes in a document": (
        [craft.document({0x03: craft.run(2**60, 1)}, {})],
        "rows",
    ),
    "rows in a compressed column of a document": (
        [craft.document({}, {craft.ACTION | craft.DEFLATE: craft.deflate(craft.run(2**60, 1))})],
        "rows",
    ),
    "document with a made-up head": ([craft.document({}, {})], "malformed"),
    "bundle": ([craft.chunk(craft.BUNDLE, b"abc")], "chunk_type"),
    "unknown chunk type": ([craft.chunk(9, b"abc")], "chunk_type"),
    "no magic": ([b"not a chunk"], "malformed"),
    "torn": ([FIRST.chunk()[:-1]], "malformed"),
    "length beyond the end": ([craft.MAGIC + b"0000\1" + craft.unsigned(2**62)], "malformed"),
}

# They may have come one by one, or in another order.
TAKEN_FROM_STORAGE = {
    "rows over several changes",
    "operation ids far ahead",
    "operation ids near 2^31",
}
# What is stored was looked at when it came; looking again would mean to open it.
SEEN_WHEN_OPENED = {
    "object that doesn't exist",
    "list element that doesn't exist",
    "predecessor that doesn't exist",
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_change_is_refused_and_nothing_applied(case: str) -> None:
    chunks, reason = REFUSED[case]
    document = Document()
    document.add_peer(1)
    started = time.monotonic()

    outcome = document.sync([(1, craft.message(chunks))])

    assert [(fault.peer, fault.reason) for fault in outcome.faults] == [(1, reason)]
    assert (outcome.messages, outcome.chunks, outcome.heads) == ([], [], ())
    assert (document.change_count(), document.queued_count()) == (0, 0)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("case", REFUSED)
def test_document_works_on_after_a_bad_change(case: str) -> None:
    document, replica = Document(), Replica()
    replica.put("n", 1)
    document.apply(b"".join(replica.changes()))
    heads = document.heads()
    document.add_peer(1)

    document.sync([(1, craft.message(REFUSED[case][0]))])
    replica.put("n", 2)
    document.apply(replica.changes()[-1])

    assert document.value() == {"n": 2}
    assert document.heads() != heads
    assert Document.load([document.save()])[0].heads() == document.heads()


@pytest.mark.parametrize("case", REFUSED)
def test_bad_change_from_the_application_raises(case: str) -> None:
    chunks, reason = REFUSED[case]
    document = Document()

    with pytest.raises(InvalidChunk) as raised:
        document.apply(b"".join(chunks))

    assert raised.value.args[0] == reason
    assert document.heads() == []


@pytest.mark.parametrize("case", sorted(REFUSED.keys() - TAKEN_FROM_STORAGE - SEEN_WHEN_OPENED))
def test_bad_change_in_storage_is_reported_and_the_rest_loaded(case: str) -> None:
    replica = Replica()
    replica.put("n", 1)

    document, problems = Document.load([b"".join(REFUSED[case][0]), *replica.changes()])

    assert [index for index, _ in problems] == [0]
    value = document.value()
    assert isinstance(value, dict)
    assert value["n"] == 1


@pytest.mark.parametrize("case", sorted(SEEN_WHEN_OPENED))
def test_bad_operation_in_storage_is_found_when_it_is_inspected_or_compacted(case: str) -> None:
    (bad,) = REFUSED[case][0]
    replica = Replica()
    replica.put("n", 1)

    document, problems = Document.load([bad, *replica.changes()])

    assert problems == []
    for look in (lambda: inspect(bad), lambda: compact([bad])):
        with pytest.raises(InvalidChunk):
            look()
    document.add_peer(1)
    assert document.sync([(1, craft.message())]).messages  # it is served, as it was stored


def test_good_messages_of_other_peers_are_taken_beside_a_bad_one() -> None:
    document = Document()
    document.add_peer(1)
    document.add_peer(2)
    bad = craft.message([craft.chunk(craft.CHANGE, FIRST.data(), b"0000")])

    outcome = document.sync([(1, bad), (2, craft.message([FIRST.chunk()], [FIRST.hash()]))])

    assert [fault.peer for fault in outcome.faults] == [1]
    assert document.heads() == [FIRST.hash()]
    assert [peers for _, peers in outcome.messages] == [[2]]


def test_honest_shapes_pass() -> None:
    second = Change(BOB, 1, 2, [FIRST.hash()])
    gap = Change(ALICE, 2, 50, [FIRST.hash()])
    merge = Change(ALICE, 3, 51, [second.hash(), gap.hash()], operations=0)
    document = Document()

    document.apply(FIRST.compressed() + second.chunk() + gap.chunk() + merge.chunk())

    assert document.heads() == [merge.hash()]
    assert Document.load([document.save()])[0].heads() == [merge.hash()]


def test_many_authors_who_edit_each_others_text_pass() -> None:
    replicas = [Replica(bytes([number]) * 16) for number in range(20)]
    replicas[0].splice("text", 0, 0, "start")
    for one, two in pairwise(replicas):
        two.merge(one)
        two.splice("text", 2, 2, "ab")
        one.put("last", 1)
        two.merge(one)
        two.empty_change()
    document = Document()

    document.apply(b"".join(replicas[-1].changes()))

    assert document.heads() == replicas[-1].heads()


def test_change_that_reads_back_differently_is_refused() -> None:
    """Its document would save and never load again: the crate encodes a lone value otherwise."""
    document = Document()
    odd = Change(ALICE, columns={craft.KEY_STRING: craft.signed(1) + craft.prefixed(b"k")})

    with pytest.raises(InvalidChunk):
        document.apply(odd.chunk())


def test_initial_change_passes() -> None:
    document = Document()
    document.apply(initial_change())
    assert document.value() == {}


def test_refused_change_in_the_queue_does_not_refuse_its_parent() -> None:
    bad = Change(BOB, 1, 1, [FIRST.hash()])
    document = Document()
    document.add_peer(1)
    document.add_peer(2)
    document.sync([(1, craft.message([bad.chunk()], [bad.hash()]))])
    assert document.queued_count() == 1

    outcome = document.sync([(2, craft.message([FIRST.chunk()], [FIRST.hash()]))])

    assert document.heads() == [FIRST.hash()]
    assert [(fault.peer, fault.reason) for fault in outcome.faults] == [(1, "op_id")]
    assert document.queued_count() == 0


def test_what_waited_waits_on_when_its_parent_came_in_a_refused_message() -> None:
    waiting = Change(BOB, 1, 2, [FIRST.hash()])
    bad = Change(ALICE, 2, 1, [FIRST.hash()])
    document = Document()
    for peer in (1, 2):
        document.add_peer(peer)
    document.sync([(1, craft.message([waiting.chunk()], [waiting.hash()]))])

    outcome = document.sync([(2, craft.message([FIRST.chunk(), bad.chunk()], [bad.hash()]))])

    assert [(fault.peer, fault.reason) for fault in outcome.faults] == [(2, "op_id")]
    assert document.queued_count() == 1
    document.apply(FIRST.chunk())
    assert document.heads() == [waiting.hash()]


def test_nothing_of_a_refused_message_waits() -> None:
    orphan = Change(BOB, 1, 2, [b"?" * 32])
    document = Document()
    document.add_peer(1)

    document.sync([(1, craft.message([orphan.chunk(), Change(ALICE, sequence=2).chunk()]))])

    assert document.queued_count() == 0


def test_second_change_with_a_number_does_not_wait_for_its_parent() -> None:
    document = Document()
    document.add_peer(1)
    document.apply(FIRST.chunk())
    second = Change(ALICE, deps=[b"?" * 32])

    outcome = document.sync([(1, craft.message([second.chunk()], [second.hash()]))])

    assert [fault.reason for fault in outcome.faults] == ["duplicate_sequence"]
    assert document.queued_count() == 0


def test_change_that_comes_twice_waits_once() -> None:
    orphan = Change(BOB, 1, 2, [b"?" * 32])
    document = Document()
    document.add_peer(1)

    for _ in range(2):
        document.sync([(1, craft.message([orphan.chunk()], [orphan.hash()]))])

    assert document.queued() == [orphan.chunk()]


def test_stored_change_that_proves_bad_when_its_parent_comes_is_nobodys_fault() -> None:
    bad = Change(BOB, 1, 1, [FIRST.hash()])
    document, problems = Document.load([bad.chunk()])
    assert (problems, document.queued_count()) == ([], 1)
    for peer in (0, 1):
        document.add_peer(peer)

    outcome = document.sync([(1, craft.message([FIRST.chunk()], [FIRST.hash()]))])

    assert outcome.faults == []
    assert document.heads() == [FIRST.hash()]
    assert document.queued_count() == 0


def test_queued_change_that_cannot_be_applied_does_not_refuse_its_parent() -> None:
    bad = Change(BOB, 1, 2, [FIRST.hash()], columns=predecessors(1, 77))
    document = Document()
    document.add_peer(1)
    document.add_peer(2)
    document.sync([(1, craft.message([bad.chunk()], [bad.hash()]))])

    outcome = document.sync([(2, craft.message([FIRST.chunk()], [FIRST.hash()]))])

    assert document.heads() == [FIRST.hash()]
    assert [(fault.peer, fault.reason) for fault in outcome.faults] == [(1, "malformed")]
    assert Document.load([document.save()])[0].heads() == [FIRST.hash()]


def test_refused_message_does_not_move_the_bound_on_operation_numbers() -> None:
    """Else a few of them would use up all the numbers there are."""
    far = Change(ALICE, start=1 << 20)
    bad = Change(BOB, sequence=7)
    farther = Change(ALICE, start=2 << 20)
    document = Document()
    document.add_peer(1)

    reasons = [
        fault.reason
        for changes in ([far, bad], [farther])
        for fault in document.sync([(1, craft.message([each.chunk() for each in changes]))]).faults
    ]

    assert reasons == ["sequence", "op_id"]


def test_queue_is_bounded() -> None:
    document = Document()
    document.add_peer(1)
    orphans = [
        Change(number.to_bytes(4, "big") * 4, deps=[b"?" * 32]).chunk() for number in range(10_100)
    ]

    document.sync([(1, craft.message(orphans))])

    assert document.queued_count() == 10_000


def test_empty_change_and_isolated_edit_of_one_actor_are_refused_not_a_panic() -> None:
    """ENGINE T2: saves and loads at home, and panics in any other replica."""
    replica = Replica(ALICE)
    replica.put("n", 1)
    root = replica.heads()
    replica.empty_change()
    replica.edit_at(root, "n", 2)
    document = Document()

    with pytest.raises(InvalidChunk) as raised:
        document.apply(b"".join(replica.changes()))

    assert raised.value.args[0] == "sequence"


def test_edits_at_older_heads_pass() -> None:
    """ENGINE T1: they leave a gap in the operation ids."""
    replica, other = Replica(ALICE), Replica(BOB)
    replica.put("n", 1)
    root = replica.heads()
    other.merge(replica)
    for number in range(5):
        replica.put("n", number)
    other.merge(replica)
    other.edit_at(root, "m", 1)
    document = Document()

    document.apply(b"".join(other.changes()))

    assert document.heads() == other.heads()


TEXT = bytes.fromhex(
    "856f4a83b3b22a5700cb010204010101010402020202027616ccaa9f69e51fe630091cc6ba9e83e688be8c08"
    "a026669e2ab887d8d0aae6b272b43084c211a51cc25dc514df46cc35f18ccd7a0bd48c88b98343b40127b807"
    "01040305130523024004430256020c010402041104130715082104230834024206560657058001027f000301"
    "7e010002017e0103020104000200020102010407000304010003040100050201000302007e020102016b7f01"
    "7400047f0006017b01057b047d0201030402017f0404017d0016000416736461626307000300"
)
MARK_BACKWARDS = bytes.fromhex(
    "856f4a83a0c20450018801027616ccaa9f69e51fe630091cc6ba9e83e688be8c08a026669e2ab887d8d0aae6"
    "b272b43084c211a51cc25dc514df46cc35f18ccd7a0bd48c88b98343b40127b8040101010102070000010402"
    "0202020b01020202110413043403420456045702700471027302030103017d0100017d05027b00020102077f"
    "0302167f007a7a02007f017f017f02"
)


def test_mark_that_ends_before_it_begins_is_refused() -> None:
    """Found by mutation: it is applied, and the document saves and never loads again."""
    document, _ = Document.load([TEXT])
    heads = document.heads()

    with pytest.raises(InvalidChunk, match="mark"):
        document.apply(MARK_BACKWARDS)

    assert document.heads() == heads
    assert Document.load([document.save()])[0].heads() == heads

"""What is kept beside a snapshot makes opening cheap, and is never believed wrongly."""

import random
from hashlib import sha256

import pytest

from amsync._automerge import Document, Replica, compact

from . import craft
from .pipes import Network

CHANGES = 300


def history(seed: int = 0) -> Replica:
    """Several authors, branches and merges, objects, empty changes."""
    chance = random.Random(seed)
    replicas = [Replica(bytes([number]) * 16) for number in range(4)]
    replicas[0].splice("text", 0, 0, "start")
    for replica in replicas[1:]:
        replica.merge(replicas[0])
    for number in range(CHANGES):
        one = chance.choice(replicas)
        one.splice("text", chance.randrange(5), 0, chance.choice("abc"))
        if number % 9 == 0:
            one.empty_change()
        if chance.random() < 0.3:
            one.merge(chance.choice([other for other in replicas if other is not one]))
    for other in replicas[1:]:
        replicas[0].merge(other)
    return replicas[0]


def test_document_with_a_sidecar_is_the_same_one() -> None:
    replica = history()
    later = Replica.load(replica.save(), b"later-----------")
    later.put("later", 1)
    snapshot, heads, sidecar = compact(replica.changes())
    blobs = [snapshot, later.changes()[-1]]

    document, problems = Document.load(blobs, sidecar=sidecar)

    assert problems == []
    assert document.heads() == later.heads()
    assert document.change_count() == len(later.changes())
    assert document.value() == later.value()
    assert sorted(heads) == heads
    network = Network(document, [Replica(), later, Replica(v1=True)])
    network.settle()
    assert network.converged()


def test_edit_far_up_in_the_operation_numbers_is_taken_after_a_load_with_a_sidecar() -> None:
    changes = [craft.Change(b"a" * 16)]
    for number in range(1, 4):
        deps = [changes[-1].hash()]
        changes.append(craft.Change(b"a" * 16, number + 1, number << 20, deps))
    edit = changes.pop()
    snapshot, _, sidecar = compact([change.chunk() for change in changes])
    document, _ = Document.load([snapshot], sidecar=sidecar)
    assert document.missing_sidecar() is None

    document.apply(edit.chunk())

    assert document.heads() == [edit.hash()]


@pytest.mark.parametrize("kind", ["v2", "v1"])
def test_edits_on_a_document_with_a_sidecar_are_checked_like_others(kind: str) -> None:
    replica = history()
    snapshot, _, sidecar = compact(replica.changes())
    document, _ = Document.load([snapshot], sidecar=sidecar)
    editor = Replica.load(snapshot, b"editor----------", v1=kind == "v1")
    network = Network(document, [editor, Replica(v1=kind == "v1")])
    network.settle()

    editor.splice("text", 3, 2, "edited")
    network.settle()
    assert network.converged()
    nowhere = {
        craft.KEY_STRING: b"",
        craft.OBJECT_ACTOR: craft.run(1, 0),
        craft.OBJECT_COUNTER: craft.run(1, 777),
        craft.KEY_COUNTER: craft.signed(1) + craft.signed(0),
        craft.INSERT: craft.unsigned(0) + craft.unsigned(1),
    }
    bad = craft.Change(b"bad-------------", start=5_000, deps=editor.heads(), columns=nowhere)
    outcome = document.sync([(0, craft.message([bad.chunk()], [bad.hash()]))])

    assert [fault.reason for fault in outcome.faults] == ["unknown_object"]
    assert document.heads() == editor.heads()


def test_load_without_a_sidecar_makes_the_one_that_is_missing() -> None:
    snapshot, _, sidecar = compact(history().changes())

    document, _ = Document.load([snapshot])
    made = document.missing_sidecar()

    assert made is not None
    again, _ = Document.load([snapshot], sidecar=made)
    assert again.missing_sidecar() is None
    assert again.heads() == document.heads()
    assert Document.load([snapshot], sidecar=sidecar)[0].missing_sidecar() is None


def test_sidecar_that_is_made_when_more_has_come_is_of_the_snapshot_alone() -> None:
    replica = history()
    snapshot, _, sidecar = compact(replica.changes())
    for letter in "later":
        replica.splice("text", 0, 0, letter)
        replica.put("key", letter)
    blobs = [snapshot, *replica.changes()[-10:]]
    made = Document.load(blobs)[0].missing_sidecar()
    assert made is not None
    assert len(made) == len(sidecar)
    document, problems = Document.load(blobs, sidecar=made)
    assert (problems, document.missing_sidecar()) == ([], None)
    document.add_peer(1)

    for edit in (lambda: replica.splice("text", 2, 1, ""), lambda: replica.put("key", "again")):
        edit()
        message = craft.message(replica.changes()[-1:], replica.heads())
        outcome = document.sync([(1, message)], only_light=True)

        assert (outcome.taken, outcome.faults) == (1, [])
    assert document.value() == replica.value()


def test_small_documents_have_none() -> None:
    replica = Replica()
    replica.put("n", 1)
    assert Document.load([replica.save()])[0].missing_sidecar() is None


def mended(sidecar: bytearray) -> bytes:
    sidecar[8:40] = sha256(sidecar[40:]).digest()
    return bytes(sidecar)


@pytest.mark.parametrize("mend", [False, True], ids=["torn", "checksum right"])
@pytest.mark.parametrize("seed", range(40))
def test_damaged_sidecar_harms_nothing(seed: int, mend: bool) -> None:
    """With the wrong checksum it is not used; with a right one it must at least not panic."""
    chance = random.Random(seed)
    replica = history()
    snapshot, heads, sidecar = compact(replica.changes())
    damaged = bytearray(sidecar)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(40, len(damaged))
        damaged[at] = chance.choice((0, 0xFF, damaged[at] ^ 1))
    if chance.random() < 0.3:
        del damaged[chance.randrange(len(damaged)) :]
    given = mended(damaged) if mend and len(damaged) > 72 else bytes(damaged)

    document, problems = Document.load([snapshot], sidecar=given)

    if not mend and given != sidecar:
        assert problems == []
        assert document.heads() == heads
        assert document.missing_sidecar() is not None
    document.add_peer(1)
    document.sync([(1, craft.message())])
    document.size_bytes()


def test_sidecar_of_another_snapshot_is_not_used() -> None:
    one, other = history(1), history(2)
    snapshot, heads, _ = compact(one.changes())
    _, _, wrong = compact(other.changes())

    document, _ = Document.load([snapshot], sidecar=wrong)

    assert document.heads() == heads
    assert document.missing_sidecar() is not None


def test_sidecar_of_another_snapshot_of_the_same_length_is_not_used() -> None:
    def of(actor: int) -> Replica:
        replica = Replica(bytes([actor]) * 16)
        for number in range(CHANGES):
            replica.put("n", number)
        return replica

    replica, *others = map(of, range(20))
    snapshot, heads, _ = compact(replica.changes())
    compacted = [compact(other.changes()) for other in others]
    wrong = [sidecar for data, _, sidecar in compacted if len(data) == len(snapshot)]
    assert wrong

    for sidecar in wrong:
        document, _ = Document.load([snapshot], sidecar=sidecar)
        assert document.heads() == heads
        assert document.missing_sidecar() is not None


CHANGE_COUNT, EDGE_COUNT, AUTHOR_COUNT, AUTHORS = 96, 100, 104, 108
AUTHOR = 4 + 16


def word(data: bytearray, at: int, add: int = 0) -> int:
    value = int.from_bytes(data[at : at + 4], "little") + add
    data[at : at + 4] = value.to_bytes(4, "little")
    return value


def contradicting(sidecar: bytes, case: str) -> bytes:
    data = bytearray(sidecar)
    hashes = AUTHORS + AUTHOR * word(data, AUTHOR_COUNT)
    max_ops = hashes + (32 + 4 + 4) * word(data, CHANGE_COUNT)
    match case:
        case "more bytes":
            data += bytes(4)
        case "more edges":
            end = max_ops + (4 + 4) * word(data, CHANGE_COUNT) + 4 * word(data, EDGE_COUNT, 1)
            data[end:end] = bytes(4)
        case "operation number that is too large":
            data[max_ops : max_ops + 4] = b"\xff" * 4
        case "change twice":
            data[hashes + 32 : hashes + 64] = data[hashes : hashes + 32]
        case "author twice":
            data[AUTHORS + AUTHOR : AUTHORS + 2 * AUTHOR] = data[AUTHORS : AUTHORS + AUTHOR]
        case "author without changes":
            word(data, AUTHOR_COUNT, 1)
            data[hashes:hashes] = bytes([16, 0, 0, 0]) + b"nobody----------"
    return mended(data)


@pytest.mark.parametrize(
    "case",
    [
        "more bytes",
        "more edges",
        "operation number that is too large",
        "change twice",
        "author twice",
        "author without changes",
    ],
)
def test_sidecar_that_contradicts_itself_is_not_used(case: str) -> None:
    snapshot, heads, sidecar = compact(history().changes())
    assert Document.load([snapshot], sidecar=mended(bytearray(sidecar)))[0].heads() == heads

    document, problems = Document.load([snapshot], sidecar=contradicting(sidecar, case))

    assert (document.heads(), problems) == (heads, [])
    assert document.missing_sidecar() is not None


def test_open_document_takes_its_snapshot_and_goes_on() -> None:
    writer = history()
    document = Document()
    network = Network(document, [writer, Replica()])
    network.settle()
    before = document.size_bytes()
    snapshot, heads, _ = compact(writer.changes())
    writer.splice("text", 0, 0, "after the snapshot was made")
    network.settle()

    assert document.rebase(snapshot, heads)

    assert document.size_bytes() < before + 10_000
    for kind in (False, True):
        network.join(Replica(v1=kind))
    writer.splice("text", 0, 0, "later")
    network.settle()
    assert network.converged()
    assert document.save() == Replica.load(document.save()).save()


def test_snapshot_with_changes_that_are_not_here_is_not_taken() -> None:
    writer = Replica()
    writer.put("n", 1)
    document, _ = Document.load(writer.changes())
    writer.put("n", 2)
    snapshot, heads, _ = compact(writer.changes())

    assert not document.rebase(snapshot, heads)
    assert document.value() == {"n": 1}

"""Loading, inspecting, compacting: torn and foreign files cost only themselves."""

import pytest

from amsync._automerge import (
    Document,
    InvalidChunk,
    Replica,
    build_document,
    compact,
    initial_change,
    inspect,
)

from . import craft
from .craft import Change

ALICE = b"alice-----------"


def filled(size: int = 10) -> Replica:
    replica = Replica()
    for number in range(size):
        replica.put(f"k{number}", number)
    return replica


def test_blobs_load_in_any_order_and_more_than_once() -> None:
    replica = filled()
    changes = replica.changes()
    blobs = [*reversed(changes), replica.save(), b"", changes[0] + changes[3]]

    document, problems = Document.load(blobs)

    assert problems == []
    assert document.heads() == replica.heads()
    assert (document.change_count(), document.queued_count()) == (10, 0)


@pytest.mark.parametrize("torn", [b"\x85", b"junk", b"\0" * 20])
def test_torn_blob_is_reported_and_its_good_part_and_the_others_load(torn: bytes) -> None:
    replica = filled()
    changes = replica.changes()

    document, problems = Document.load([changes[0], changes[1] + torn, *changes[2:]])

    assert [index for index, _ in problems] == [1]
    assert document.heads() == replica.heads()


def test_every_cut_of_a_blob_loads_its_whole_chunks() -> None:
    changes = filled(3).changes()
    blob = b"".join(changes)
    for end in range(len(blob) + 1):
        document, problems = Document.load([blob[:end]])
        whole = sum(end >= len(b"".join(changes[: count + 1])) for count in range(3))
        assert document.change_count() == whole
        assert bool(problems) == (end not in (0, *(len(b"".join(changes[:n])) for n in (1, 2, 3))))


def test_bad_chunk_does_not_hide_those_behind_it() -> None:
    replica = filled()
    bad = craft.chunk(craft.CHANGE, Change(ALICE).data(), b"0000")

    document, problems = Document.load([bad + b"".join(replica.changes())])

    assert [index for index, _ in problems] == [0]
    assert problems[0][1].startswith("checksum")
    assert document.heads() == replica.heads()


def test_change_without_its_dependency_waits() -> None:
    replica = filled()
    changes = replica.changes()

    document, problems = Document.load([*changes[:5], *changes[6:]])

    assert problems == []
    assert (document.change_count(), document.queued_count()) == (5, 4)
    assert document.apply(changes[5]).chunks == changes[5:]
    assert document.heads() == replica.heads()


def test_missing_dependency_from_the_application_is_refused() -> None:
    document = Document()
    with pytest.raises(InvalidChunk) as raised:
        document.apply(filled().changes()[3])
    assert raised.value.args[0] == "missing_dependency"
    assert document.queued_count() == 0


def test_inspect_counts() -> None:
    replica = filled()
    changes = replica.changes()
    assert inspect(replica.save()) == (replica.heads(), 10, 0)
    assert inspect(b"".join(changes[:3] + changes[5:]))[1:] == (3, 5)
    with pytest.raises(InvalidChunk):
        inspect(replica.save()[:-1])


def test_compact_makes_one_snapshot_of_everything() -> None:
    one, two = filled(), filled()
    two.merge(one)
    two.splice("text", 0, 0, "hello")

    snapshot, heads, _ = compact([*one.changes(), two.save()])

    assert heads == two.heads()
    assert inspect(snapshot) == (two.heads(), 21, 0)


def test_compact_refuses_orphans() -> None:
    changes = filled().changes()
    with pytest.raises(InvalidChunk) as raised:
        compact([*changes[:3], *changes[4:]])
    assert raised.value.args[0] == "orphans"


def test_compact_refuses_a_bad_blob() -> None:
    changes = filled().changes()
    with pytest.raises(InvalidChunk) as raised:
        compact([*changes, changes[0][:-1]])
    assert raised.value.args[0] == "malformed"


def test_initial_change_is_always_the_same() -> None:
    assert initial_change() == initial_change()
    heads, changes, queued = inspect(initial_change())
    assert (len(heads), changes, queued) == (1, 1, 0)


def test_two_documents_with_the_initial_change_merge() -> None:
    replicas = [Replica.load(initial_change()) for _ in range(2)]
    for number, replica in enumerate(replicas):
        replica.put(f"k{number}", number)
    document, problems = Document.load([replica.save() for replica in replicas])
    assert (document.value(), problems) == ({"k0": 0, "k1": 1}, [])


def test_saved_document_has_no_queued_changes() -> None:
    changes = filled().changes()
    document, _ = Document.load([*changes[:3], *changes[4:]])
    assert inspect(document.save())[1:] == (3, 0)


def test_deletion_of_a_long_text_loads_wherever_it_lies() -> None:
    """A blob of a few bytes with more rows than any blob may have that its bytes don't pay for."""
    replica = Replica.load(build_document({"text": "x" * 265_000}))
    replica.splice("text", 0, 265_000, "")
    pasted, deleted = replica.changes()
    snapshot = Document.load([pasted])[0].save()
    assert len(deleted) < 300

    for blobs in ([deleted, pasted], [deleted, snapshot]):
        document, problems = Document.load(blobs)
        assert problems == []
        assert document.value() == {"text": ""}


def test_deletion_of_a_long_text_is_taken_from_a_peer() -> None:
    replica = Replica.load(build_document({"text": "x" * 265_000}))
    replica.splice("text", 0, 265_000, "")
    pasted, deleted = replica.changes()

    document = Document()
    document.add_peer(1)

    outcome = document.sync([(1, craft.message([pasted, deleted]))])

    assert outcome.faults == []
    assert document.value() == {"text": ""}


@pytest.mark.parametrize(
    "bad", [b"\0" * 20, b"\x85oJ", b"\x85oJ\x83", b"\x85oJ\x83" * 50, b"\x85oJ\x83abcd\x01\xff\xff"]
)
def test_changes_behind_bad_bytes_are_found(bad: bytes) -> None:
    changes = filled().changes()
    blob = changes[0] + bad + b"".join(changes[1:])

    document, problems = Document.load([blob])

    assert [index for index, _ in problems] == [0]
    assert document.change_count() == 10


def test_a_changes_length_that_is_damaged_hides_nothing_behind_it() -> None:
    changes = filled().changes()
    lying = bytearray(changes[4])
    lying[9] += 60  # its length: as if it reached into the changes behind it

    document, problems = Document.load([b"".join([*changes[:4], bytes(lying), *changes[5:]])])

    assert len(problems) == 1
    assert (document.change_count(), document.queued_count()) == (4, 5)


def test_a_search_among_bytes_that_all_claim_to_be_a_chunk_ends() -> None:
    head = b"\x85oJ\x83abcd\x01"
    blob = b"".join(head + b"\xff\xff\x3f" for _ in range(200_000))  # each claims a MiB

    document, problems = Document.load([blob])

    assert len(problems) == 1
    assert document.change_count() == 0

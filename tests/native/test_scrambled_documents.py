"""A saved document may have its operations in an order of its author's own making.

Its changes are the same, so are its heads; what it shows isn't, if its order were believed.
"""

from collections.abc import Callable

import pytest

from amsync._automerge import Document, Replica, compact

from . import craft, encode
from .craft import Change
from .encode import HEAD, Operation, OpId

Row = tuple[OpId, Operation]

ALICE, BOB = b"A" * 16, b"B" * 16
TEXT = (4, ALICE)
WRITTEN = [
    *(Operation(craft.SET, key) for key in (b"a", b"b", b"c")),
    Operation(craft.MAKE_TEXT, b"t"),
    *(
        Operation(craft.SET, (at, ALICE) if at > 4 else HEAD, TEXT, True, (craft.TEXT, letter))
        for at, letter in enumerate((b"a", b"b", b"c", b"d", b"e"), 4)
    ),
]
SHOWN: dict[str, object] = {"a": None, "b": None, "c": None, "t": "abcde"}
FILLED = Operation(craft.SET, b"x", value=(craft.TEXT, b"z" * 3000))
"""Long and compressible: a document that holds it is smaller than the change."""

ORDERS: dict[str, Callable[[list[Row], list[Row]], list[Row]]] = {
    "as it is": lambda keys, letters: [*keys, *letters],
    "letters backwards": lambda keys, letters: [*keys, *letters[::-1]],
    "two letters exchanged": lambda keys, letters: [*keys, letters[1], letters[0], *letters[2:]],
    "two keys exchanged": lambda keys, letters: [keys[1], keys[0], *keys[2:], *letters],
    "letters before keys": lambda keys, letters: [*letters, *keys],
    "all backwards": lambda keys, letters: [*letters[::-1], *keys[::-1]],
}


def written(order: str, *, with_more: bool) -> tuple[list[Change], bytes]:
    """Changes, and a document of them in this order."""
    changes = [encode.change(ALICE, 1, 1, [], WRITTEN)]
    rows = [((counter, ALICE), operation) for counter, operation in enumerate(WRITTEN, 1)]
    lasts = [len(WRITTEN)]
    keys, letters = rows[:4], rows[4:]
    if with_more:
        lasts.append(lasts[0] + 1)
        changes.append(encode.change(BOB, 1, lasts[1], [changes[0].hash()], [FILLED]))
        keys.append(((lasts[1], BOB), FILLED))
    document = encode.document(list(zip(changes, lasts, strict=True)), ORDERS[order](keys, letters))
    return changes, document


def replica_of(changes: list[Change], actor: bytes | None = None) -> Replica:
    return Replica.load(b"".join(change.chunk() for change in changes), actor)


def test_right_order_is_that_of_the_crate() -> None:
    changes, document = written("as it is", with_more=False)
    replica = replica_of(changes)
    assert replica.value() == SHOWN
    assert replica.save() == document


@pytest.mark.parametrize("with_more", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("is_known", [False, True], ids=["new", "known"])
@pytest.mark.parametrize("order", ORDERS)
def test_order_in_an_uploaded_document_changes_nothing(
    order: str, is_known: bool, with_more: bool
) -> None:
    changes, upload = written(order, with_more=with_more)
    replica, document = replica_of(changes), Document()
    stored, before = list[bytes](), dict[str, object]()
    if is_known:
        snapshot, _, sidecar = compact([replica_of(changes[:1]).save()])
        stored, before = [snapshot], SHOWN
        document, _ = Document.load(stored, sidecar=sidecar)
    document.add_peer(1)

    outcome = document.sync([(1, craft.message([upload], replica.heads(), version=0x43))])
    stored += outcome.chunks

    expected = before if outcome.faults else replica.value()
    assert (order, outcome.faults) == (order, []) or order != "as it is"
    assert document.value() == expected
    for blobs in (stored, [document.save()], [compact(stored)[0]] if stored else []):
        again, problems = Document.load(blobs)
        assert (problems, again.heads()) == ([], document.heads())
        assert again.value() == expected
    _check_served(stored, expected)


def _check_served(stored: list[bytes], expected: object) -> None:
    """A client that gets what is stored sees the same, and goes on."""
    document, peer = Document.load(stored)[0], Replica(b"honest-peer-0000")
    document.add_peer(2)
    peer.connect(0)
    for edit in (False, True):
        if edit:
            peer.splice("t", 1, 1, "zz")
            peer.put("b", 9)
        while (said := peer.generate(0)) is not None:
            outcome = document.sync([(2, said)])
            assert outcome.faults == []
            stored = [*stored, *outcome.chunks]
            for data, peers in outcome.messages:
                if 2 in peers:
                    peer.receive(0, data)
        assert peer.heads() == document.heads()
        if not edit:
            assert peer.value() == expected
    assert document.value() == peer.value()
    assert Document.load(stored)[0].value() == peer.value()
    assert Replica.load(b"".join(peer.changes())).value() == peer.value()

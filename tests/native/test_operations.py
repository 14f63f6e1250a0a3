"""Each way in which an operation may refer wrongly is found, though it is well-formed alone.

The crate panics on some, and keeps others in a document that saves and never loads again. What
is right is taken without opening the document: it is light.
"""

import pytest

from amsync._automerge import Document, Outcome, compact

from . import craft
from .craft import HEAD, Change, OpId, Row

ALICE, BOB = b"alice-----------", b"bob-------------"


def own(number: int) -> OpId:
    return 0, number


LIST, ELEMENT, MAP, VALUE, COUNTER, OTHER_LIST, OTHER_ELEMENT, SET_ELEMENT, GONE, DELETED = map(
    own, range(1, 11)
)
BASE_ROWS = [
    Row("l", craft.MAKE_LIST),
    Row(HEAD, object=LIST, insert=True),
    Row("m", craft.MAKE_MAP),
    Row("k"),
    Row("c", value=1),
    Row("o", craft.MAKE_LIST),
    Row(HEAD, object=OTHER_LIST, insert=True),
    Row(ELEMENT, object=LIST, before=[ELEMENT]),
    Row("g"),
    Row("g", craft.DELETE, before=[GONE]),
]


def change(rows: list[Row], after: Change | None = None, actor: bytes = ALICE) -> Change:
    return Change(
        actor,
        sequence=after.sequence + 1 if after else 1,
        start=after.start + after.operations if after else 1,
        deps=[after.hash()] if after else [],
        operations=len(rows),
        columns=craft.columns(rows),
    )


BASE = change(BASE_ROWS)
NEXT = BASE.operations + 1

RIGHT = {
    "map key": [Row("new")],
    "map key again": [Row("k", before=[VALUE])],
    "key in a map": [Row("k", object=MAP)],
    "element": [Row(ELEMENT, object=LIST, insert=True)],
    "elements one after the other": [
        Row(HEAD, object=LIST, insert=True),
        Row(own(NEXT), object=LIST, insert=True),
        Row(own(NEXT + 1), craft.DELETE, object=LIST, before=[own(NEXT + 1)]),
    ],
    "element set again": [Row(ELEMENT, object=LIST, before=[SET_ELEMENT])],
    "increment": [Row("c", craft.INCREMENT, before=[COUNTER], value=2)],
    "deletion": [Row("k", craft.DELETE, before=[VALUE])],
    "deletion of an element": [Row(ELEMENT, craft.DELETE, object=LIST, before=[SET_ELEMENT])],
}
WRONG = {
    "map key in a list": [Row("x", object=LIST)],
    "map key of an insertion": [Row("x", insert=True)],
    "element in a map": [Row(HEAD, object=MAP, insert=True)],
    "element at the root": [Row(HEAD, insert=True)],
    "head that is set": [Row(HEAD, object=LIST)],
    "after what is no insertion": [Row(SET_ELEMENT, object=LIST, insert=True)],
    "after an element of another list": [Row(OTHER_ELEMENT, object=LIST, insert=True)],
    "after an element that comes later": [
        Row(HEAD, object=LIST, insert=True),
        Row(own(NEXT + 2), object=LIST, insert=True),
        Row(HEAD, object=LIST, insert=True),
    ],
    "predecessor that is a deletion": [Row("g", before=[DELETED])],
    "predecessor in another object": [Row("k", object=MAP, before=[VALUE])],
    "predecessor under another key": [Row("z", before=[VALUE])],
    "predecessor that is another element": [Row(ELEMENT, object=LIST, before=[OTHER_ELEMENT])],
    "insertion with a predecessor": [Row(ELEMENT, object=LIST, before=[ELEMENT], insert=True)],
    "increment of what is no counter": [Row("k", craft.INCREMENT, before=[VALUE], value=1)],
    "increment of nothing": [Row("c", craft.INCREMENT, value=1)],
    "deletion of nothing": [Row("k", craft.DELETE)],
    "insertion that deletes": [
        Row(ELEMENT, craft.DELETE, object=LIST, before=[ELEMENT], insert=True)
    ],
}


@pytest.fixture(params=["live", "loaded"])
def document(request: pytest.FixtureRequest) -> Document:
    """A document to which the base came from a peer, or which was loaded with a sidecar."""
    document = Document()
    if request.param == "loaded":
        snapshot, _, sidecar = compact([BASE.chunk()])
        document, _ = Document.load([snapshot], sidecar=sidecar)
        assert document.missing_sidecar() is None
    document.add_peer(1)
    if request.param == "live":
        outcome = send(document, BASE)
        assert (outcome.taken, outcome.faults) == (1, [])
    return document


def send(document: Document, *changes: Change) -> Outcome:
    chunks = [each.chunk() for each in changes]
    message = craft.message(chunks, [changes[-1].hash()])
    return document.sync([(1, message)], only_light=True)


@pytest.mark.parametrize("case", RIGHT)
def test_what_refers_rightly_is_taken_and_light(document: Document, case: str) -> None:
    good = change(RIGHT[case], BASE)

    outcome = send(document, good)

    assert (outcome.taken, outcome.faults) == (1, [])
    assert document.heads() == [good.hash()]
    assert Document.load([document.save()])[0].heads() == [good.hash()]


@pytest.mark.parametrize("case", WRONG)
def test_what_refers_wrongly_is_never_taken_for_right(document: Document, case: str) -> None:
    """It is refused, or at least tried out on the opened document, and loads again."""
    bad = change(WRONG[case], BASE)

    outcome = send(document, bad)

    assert outcome.taken == 0 or outcome.faults
    assert document.heads() == [BASE.hash()]
    document.sync([(1, craft.message([bad.chunk()], [bad.hash()]))])
    assert Document.load([document.save()])[0].heads() == document.heads()


def test_element_that_is_not_in_the_past_is_refused_though_it_is_here(document: Document) -> None:
    """Its author's first change is in the past, and so its actor may be named."""
    newer = change([Row(HEAD, object=LIST, insert=True)], BASE)
    assert send(document, newer).faults == []
    rows = [Row((1, NEXT), object=(1, 1), insert=True)]
    bad = Change(BOB, 1, NEXT, [BASE.hash()], [ALICE], operations=1, columns=craft.columns(rows))

    outcome = send(document, bad)

    assert [fault.reason for fault in outcome.faults] == ["malformed"]
    assert document.heads() == [newer.hash()]


def test_nothing_is_left_of_the_operations_of_a_refused_message(document: Document) -> None:
    undone = change([Row("x"), *(Row(key, craft.MAKE_LIST) for key in "qrst")], BASE)
    bad = change([Row("k", craft.DELETE)], undone)
    assert send(document, undone, bad).faults
    rows = [Row("v"), Row("q", craft.MAKE_MAP), Row("w", object=own(NEXT + 1))]
    rows += [Row("v", before=[own(NEXT)]), Row("w", object=own(NEXT + 1), before=[own(NEXT + 2)])]
    good = change(rows, BASE)

    outcome = send(document, good)

    assert (outcome.taken, outcome.faults) == (1, [])
    assert Document.load([document.save()])[0].heads() == [good.hash()]


def test_number_that_an_author_left_out_is_refused(document: Document) -> None:
    """Others' operations lie between; the next change's are no answer to it."""
    later = change([Row(HEAD, object=LIST, insert=True)] * 5, BASE)
    later.start += 100
    assert send(document, later).faults == []
    bad = change([Row(own(NEXT + 2), object=LIST, insert=True)], later)

    outcome = send(document, bad)

    assert [fault.reason for fault in outcome.faults] == ["malformed"]


def test_nothing_is_believed_beside_a_stored_change_that_refers_wrongly() -> None:
    """It was stored before such were refused; what comes is looked at all the same."""
    stored = change(WRONG["deletion of nothing"], BASE)
    nowhere = change([Row("x", object=own(77))], stored)
    document, problems = Document.load([each.chunk() for each in (BASE, stored, nowhere)])
    assert problems == []
    document.add_peer(1)
    bad = change([Row("k", craft.DELETE)], nowhere)

    assert send(document, bad).faults
    assert document.heads() == [nowhere.hash()]


@pytest.mark.parametrize("bad_one", ["came with the parent", "waited too"])
def test_good_change_that_waited_is_taken_beside_a_bad_one(bad_one: str) -> None:
    """Else it is never asked for again, and all that its author writes later waits for it."""
    parent = Change(ALICE)
    good = Change(BOB, 1, 2, [parent.hash()])
    rows = [Row("k", craft.DELETE)]
    bad = Change(b"carol-----------", 1, 2, [parent.hash()], columns=craft.columns(rows))
    document = Document()
    for peer in (1, 2, 3):
        document.add_peer(peer)
    document.sync([(2, craft.message([good.chunk()], [good.hash()]))])
    if bad_one == "waited too":
        document.sync([(3, craft.message([bad.chunk()], [bad.hash()]))])
        outcome = document.sync([(1, craft.message([parent.chunk()], [parent.hash()]))])
    else:
        chunks = [parent.chunk(), bad.chunk()]
        outcome = document.sync([(3, craft.message(chunks, [bad.hash()]))])

    assert [fault.peer for fault in outcome.faults] == [3]
    document.sync([(1, craft.message([parent.chunk()], [parent.hash()]))])
    assert document.heads() == [good.hash()]

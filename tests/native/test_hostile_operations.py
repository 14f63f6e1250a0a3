"""Well-formed changes whose operations no client makes: refused whole, or nobody is harmed.

Most were found by tests/fuzz/fuzz_operations.py and then made small.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random

import pytest

from amsync._automerge import Document

from . import craft, encode
from .craft import Change
from .encode import HEAD, Operation, OpId
from .oracles import check_nobody_is_harmed

ALICE, BOB, CAROL = b"A" * 16, b"B" * 16, b"C" * 16
FIRST, SECOND = (1, ALICE), (2, ALICE)
LARGEST = b"\xff" * 9 + b"\0"
LIST, TEXT = Operation(craft.MAKE_LIST, b"j"), Operation(craft.MAKE_TEXT, b"j")
ELEMENT = Operation(craft.SET, HEAD, FIRST, insert=True, value=(craft.TEXT, b"x"))
BEGIN = Operation(craft.MARK, HEAD, FIRST, True, (craft.TRUE, b""), expand=True, mark=b"bold")


def chain(*parts: Sequence[Operation], actor: bytes = ALICE) -> list[Change]:
    """Changes of one author, each after the one before."""
    changes: list[Change] = []
    starts = accumulate(map(len, parts), initial=1)
    for number, (start, operations) in enumerate(zip(starts, parts, strict=False), 1):
        deps = [changes[-1].hash()] if changes else []
        changes.append(encode.change(actor, number, start, deps, operations))
    return changes


def put(key: bytes | OpId, target: OpId | None = None, *predecessors: OpId) -> Operation:
    return Operation(craft.SET, key, target, predecessors=predecessors)


def delete(key: bytes | OpId, target: OpId | None = None, *predecessors: OpId) -> Operation:
    return Operation(craft.DELETE, key, target, predecessors=predecessors)


def increment(
    key: bytes | OpId, target: OpId | None, predecessor: OpId, by: bytes = b"\1"
) -> Operation:
    value = (craft.INT, by)
    return Operation(craft.INCREMENT, key, target, value=value, predecessors=[predecessor])


def make(
    action: int, key: bytes | OpId, target: OpId | None = None, *predecessors: OpId
) -> Operation:
    return Operation(action, key, target, predecessors=predecessors)


def two_values_on_branches(first: int) -> list[Change]:
    """Alice puts a list over a letter and deletes it; Carol, who doesn't know, puts beside it."""
    (root,) = chain([TEXT, ELEMENT])
    over = [make(craft.MAKE_LIST, SECOND, FIRST, SECOND), delete(SECOND, FIRST, (3, ALICE))]
    branches = [
        encode.change(ALICE, 2, 3, [root.hash()], over),
        encode.change(CAROL, 1, 3, [root.hash()], [put(SECOND, FIRST)]),
    ]
    return [root, branches[first], branches[1 - first]]


def beside_an_unknown_branch() -> list[Change]:
    """Carol inserts behind an element that Bob made on a branch that she doesn't know."""
    root, bob = chain([LIST])[0], encode.change(BOB, 1, 1, [], [put(b"b")])
    deps = [root.hash(), bob.hash()]
    there = encode.change(BOB, 2, 3, deps, [ELEMENT])
    behind = Operation(craft.SET, (3, BOB), FIRST, insert=True)
    return [root, bob, there, encode.change(CAROL, 1, 4, deps, [behind])]


CASES = {
    "table with a key": chain([Operation(craft.MAKE_TABLE, b"t")], [put(b"x", FIRST)]),
    "object in a table": chain(
        [Operation(craft.MAKE_TABLE, b"t"), make(craft.MAKE_MAP, b"j", FIRST), put(b"", FIRST)]
    ),
    "table": chain([Operation(craft.MAKE_TABLE, b"t")]),
    "counter overflow": chain(
        [
            Operation(craft.SET, b"k", value=(craft.COUNTER, LARGEST)),
            increment(b"k", None, FIRST),
        ]
    ),
    "increments that overflow together": chain(
        [Operation(craft.SET, b"k", value=(craft.COUNTER, b"\0"))],
        *[[increment(b"k", None, FIRST, LARGEST)]] * 2,
    ),
    "insert at the head of the root map": chain([Operation(craft.SET, HEAD, insert=True)]),
    "insert under a map key": chain([Operation(craft.SET, b"k", insert=True)]),
    "head of the root map without an insert": chain([put(HEAD)]),
    "element of the root map": chain([put(b"k"), put(FIRST)]),
    "key in a list": chain([LIST, put(b"k", FIRST)]),
    "insert under a key in a list": chain([LIST, Operation(craft.SET, b"k", FIRST, insert=True)]),
    "insert behind an object under a key in a list": chain(
        [LIST, Operation(craft.MAKE_MAP, b"k", FIRST, insert=True), put(b"", SECOND)],
        [Operation(craft.SET, SECOND, FIRST, insert=True)],
    ),
    "insert under a key in a text": chain([TEXT, Operation(craft.SET, b"k", FIRST, insert=True)]),
    "element of another list": chain(
        [LIST, make(craft.MAKE_LIST, b""), replace(ELEMENT, object=SECOND)],
        [put((3, ALICE), FIRST)],
        [make(craft.MAKE_MAP, b"m")],
    ),
    "element of another list, in one change": chain(
        [LIST, make(craft.MAKE_LIST, b""), replace(ELEMENT, object=SECOND)],
        [replace(ELEMENT, key=(3, ALICE), object=SECOND), put((4, ALICE), FIRST)],
    ),
    "list as its own element": chain(
        [LIST, ELEMENT, make(craft.MAKE_MAP, b"m")],
        [put(FIRST, FIRST), make(craft.MAKE_MAP, b"j", (3, ALICE))],
    ),
    "head of a list without an insert": chain([LIST, put(HEAD, FIRST)]),
    "head of a text without an insert": chain([TEXT, put(HEAD, FIRST)]),
    "list: put beside the value, delete of the first": chain(
        [LIST, ELEMENT], [put(SECOND, FIRST)], [delete(SECOND, FIRST, SECOND)]
    ),
    "list: object beside the value, delete of the first": chain(
        [LIST, ELEMENT],
        [make(craft.MAKE_LIST, SECOND, FIRST)],
        [delete(SECOND, FIRST, SECOND)],
    ),
    "text: object beside the letter, delete of the letter": chain(
        [TEXT, ELEMENT], [make(craft.MAKE_MAP, SECOND, FIRST)], [delete(SECOND, FIRST, SECOND)]
    ),
    "text: put over a letter": chain([TEXT, ELEMENT], [put(SECOND, FIRST, SECOND)]),
    "text: put over a letter, which is deleted too": chain(
        [TEXT, ELEMENT],
        [put(SECOND, FIRST, SECOND)],
        [delete(SECOND, FIRST, SECOND)],
        [delete(SECOND, FIRST, SECOND, (3, ALICE))],
    ),
    "text: two values for a letter, one deleted": chain(
        [TEXT, ELEMENT, put(SECOND, FIRST, SECOND)],
        [put(SECOND, FIRST)],
        [delete(SECOND, FIRST, (3, ALICE))],
    ),
    "text: two values for a letter, one deleted by one who knows both": chain(
        [TEXT, ELEMENT, put(SECOND, FIRST, SECOND)],
        [put(SECOND, FIRST, SECOND)],
        [delete(SECOND, FIRST, (3, ALICE))],
        [delete(SECOND, FIRST, (4, ALICE))],
    ),
    "text: values over and beside a letter": two_values_on_branches(0),
    "text: values beside and over a letter": two_values_on_branches(1),
    "text: letter deleted twice": chain(
        [TEXT, ELEMENT], [delete(SECOND, FIRST, SECOND)], [delete(SECOND, FIRST, SECOND)]
    ),
    "text: increment of a letter": chain(
        [TEXT, ELEMENT],
        [increment(SECOND, FIRST, SECOND)],
    ),
    "map: two puts without predecessors, both deleted": chain(
        [put(b"k")],
        [make(craft.MAKE_LIST, b"k")],
        [delete(b"k", None, FIRST)],
        [delete(b"k", None, SECOND)],
    ),
    "list: put after a delete": chain(
        [LIST, ELEMENT], [delete(SECOND, FIRST, SECOND)], [put(SECOND, FIRST, SECOND)]
    ),
    "list: two values over the same one, deleted in turn": chain(
        [LIST, ELEMENT],
        [put(SECOND, FIRST, SECOND)],
        [make(craft.MAKE_MAP, SECOND, FIRST, SECOND)],
        [delete(SECOND, FIRST, (3, ALICE))],
        [delete(SECOND, FIRST, (4, ALICE))],
    ),
    "list: object after a delete, deleted": chain(
        [LIST, ELEMENT],
        [delete(SECOND, FIRST, SECOND)],
        [make(craft.MAKE_MAP, SECOND, FIRST, SECOND)],
        [delete(SECOND, FIRST, (4, ALICE))],
    ),
    "mark under a map key": chain(
        [Operation(craft.MARK, b"k", value=(craft.TRUE, b""), mark=b"bold")], [put(b"j")]
    ),
    "mark that is no element": chain(
        [TEXT, ELEMENT], [Operation(craft.MARK, SECOND, FIRST, mark=b"bold")]
    ),
    "mark without an end": chain([TEXT, BEGIN]),
    "end without a mark": chain([TEXT, Operation(craft.MARK, HEAD, FIRST, insert=True)]),
    "put over a mark": chain(
        [TEXT, BEGIN, replace(put(SECOND, FIRST, SECOND), value=(craft.TRUE, b""))]
    ),
    "increment of a mark": chain(
        [TEXT, ELEMENT, delete(SECOND, FIRST, SECOND), replace(BEGIN, key=SECOND)],
        [increment((4, ALICE), FIRST, (4, ALICE))],
    ),
    "put over a mark, deleted": chain(
        [TEXT, BEGIN, put(SECOND, FIRST, SECOND), delete(SECOND, FIRST, (3, ALICE))]
    ),
    "increment of what took a mark's place": chain(
        [TEXT, BEGIN, put(SECOND, FIRST, SECOND), delete(SECOND, FIRST, (3, ALICE))],
        [increment(SECOND, FIRST, (3, ALICE))],
    ),
    "mark deleted": chain([TEXT, BEGIN], [delete(SECOND, FIRST, SECOND)]),
    "predecessor named twice": chain([put(b"k")], [put(b"k", None, FIRST, FIRST)]),
    "predecessors in the wrong order": chain(
        [put(b"k"), put(b"k")], [put(b"k", None, SECOND, FIRST)]
    ),
    "element of a branch that isn't known": beside_an_unknown_branch(),
}


def check(batches: Sequence[Sequence[Change]]) -> None:
    """Send messages until one is refused; it must leave no trace, the others no harm."""
    document = Document()
    document.add_peer(1)
    stored: list[bytes] = []
    taken: list[Change] = []
    for batch in batches:
        heads, count = document.heads(), document.change_count()
        outcome = document.sync([(1, craft.message([change.chunk() for change in batch]))])
        stored += outcome.chunks
        if outcome.faults:
            assert outcome.chunks == []
            assert (document.heads(), document.change_count()) == (heads, count)
            assert document.queued_count() == 0
            break
        taken += batch
    if taken:
        check_nobody_is_harmed(document, stored, taken, Random(1))


@pytest.mark.parametrize("case", CASES)
def test_change_by_change(case: str) -> None:
    check([[change] for change in CASES[case]])


@pytest.mark.parametrize("case", CASES)
def test_all_changes_in_one_message(case: str) -> None:
    check([CASES[case]])

"""What the event loop may take itself: `only_light` stops before all that takes long."""

import os

from amsync._automerge import Document, Replica

from . import craft
from .craft import Change

ALICE, BOB = b"alice-----------", b"bob-------------"
LIGHT_BYTES = 32 << 10
LIGHT_FILTERED = 1 << 15
LIGHT_OPERATIONS = 4096


def with_peers(document: Document) -> Document:
    for peer in (1, 2, 3):
        document.add_peer(peer)
    return document


def bulky(actor: bytes, size: int) -> tuple[int, bytes]:
    change = Change(actor, extra=os.urandom(size))
    return 1, craft.message([change.chunk()], [change.hash()])


def test_what_inflates_is_not_light_and_nothing_is_done_with_it() -> None:
    replica = Replica(ALICE)
    replica.put("n", 1)
    small = Change(BOB)
    for costly in (replica.save(), small.compressed()):
        document = with_peers(Document())
        batch = [(1, craft.message([costly], version=0x43)), (2, craft.message())]

        outcome = document.sync(batch, only_light=True)

        assert (outcome.taken, document.change_count()) == (0, 0)
        assert document.sync(batch).taken == 2
        assert document.change_count() == 1


def test_change_of_many_operations_is_not_light_however_small_it_is() -> None:
    for count, taken in ((LIGHT_OPERATIONS, 1), (LIGHT_OPERATIONS + 1, 0)):
        document = with_peers(Document())
        change = Change(ALICE, operations=count)
        message = craft.message([change.chunk()], [change.hash()])

        assert len(message) < 200
        assert document.sync([(1, message)], only_light=True).taken == taken


def test_messages_of_a_batch_are_light_up_to_a_bound_together() -> None:
    document = with_peers(Document())
    batch = [bulky(bytes([number]) * 16, LIGHT_BYTES // 4) for number in range(8)]

    outcome = document.sync(batch, only_light=True)

    assert (outcome.taken, document.change_count()) == (3, 3)


def test_filter_to_be_held_against_a_long_history_is_not_light() -> None:
    writer = Replica(ALICE)
    for number in range(LIGHT_FILTERED + 1):
        writer.put("n", number)
    document = with_peers(Document.load([writer.save()])[0])
    heads = document.heads()

    def taken(message: bytes) -> int:
        return document.sync([(1, message)], only_light=True).taken

    assert taken(craft.message(heads=[b"?" * 32])) == 0
    assert taken(craft.message(heads=[b"?" * 32], haves=[craft.have(heads)])) == 1
    assert taken(craft.message(heads=heads)) == 1

"""A document that clients have made as large as it may be: read by all, written by nobody."""

import pytest

from amsync.worker.peers import DocumentBounds
from amsync.worker.shard import SLEEP_SECONDS
from amsync.worker.synchronizer import State

from .net import Client, Net, new_document, stored

FEW = DocumentBounds(max_changes=3)


def filled(net: Net) -> tuple[Client, Client]:
    """A writer has filled its document, before the eyes of another one."""
    document_id = new_document()
    stored(net, document_id, a=1)
    writer, other = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(writer, other)
    for key in ("b", "c"):
        writer.put(key, 1)
        writer.say()
        net.settle()
    assert net.full == [document_id]
    assert len(net.stored[document_id]) == 3
    return writer, other


def test_what_comes_after_the_last_change_that_fits_is_not_taken() -> None:
    net = Net(bounds=FEW)
    writer, other = filled(net)

    for number in range(10):
        writer.put("d", number)
        writer.say()
        other.put("e", number)
        other.say()
        assert net.settle() < 10

    assert len(net.stored[writer.document_id]) == 3
    assert "e" not in writer.value()
    assert net.full == [writer.document_id]


def test_joiners_get_all_of_it_and_may_not_add_to_it() -> None:
    net = Net(bounds=FEW)
    writer, _ = filled(net)
    joiner = Client(net, writer.document_id, 3)
    net.introduce(joiner)

    assert joiner.value() == {"a": 1, "b": 1, "c": 1}
    joiner.put("d", 1)
    joiner.say()
    net.settle()

    assert len(net.stored[writer.document_id]) == 3


def test_the_application_may_go_on_and_everybody_sees_it() -> None:
    net = Net(bounds=FEW)
    writer, other = filled(net)
    known = len(writer.replica.changes())
    writer.put("d", 1)
    change = b"".join(writer.replica.changes()[known:])

    assert net.call("apply", writer.document_id, change).error is None
    net.settle()

    assert other.value() == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_it_sleeps_and_is_full_when_it_wakes() -> None:
    net = Net(bounds=FEW)
    writer, other = filled(net)
    writer.put("d", 1)
    writer.say()
    net.settle()
    net.tick(SLEEP_SECONDS + 1)
    assert net.shard.documents[writer.document_id].state is State.COLD

    other.put("e", 1)
    other.say()
    assert net.settle() < 20

    assert len(net.stored[writer.document_id]) == 3
    assert net.full == [writer.document_id]  # said when it happened, not when it is read again


@pytest.mark.parametrize("bounds", [DocumentBounds(max_bytes=2_000), DocumentBounds()])
def test_bytes_count_as_they_are_stored(bounds: DocumentBounds) -> None:
    net, document_id = Net(bounds=bounds), new_document()
    writer = Client(net, document_id, 1)
    for number in range(10):
        writer.put("x", f"{number}" * 500)
        writer.say()
        net.settle()

    held = sum(map(len, net.stored[document_id]))
    if bounds.max_bytes:
        assert 2_000 <= held < 3_000
    else:
        assert held > 5_000

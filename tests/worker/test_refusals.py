"""Refused changes silence their sender; a document whose engine breaks is loaded again."""

from typing import Any

import pytest

from amsync.ids import DocumentId
from amsync.protocol.access import Access
from amsync.protocol.envelope import AccessIn, SyncIn
from amsync.worker.engine import NativeFactory, load_document
from amsync.worker.peers import SILENCE_SECONDS
from amsync.worker.ports import EngineBroken, EngineDocument
from amsync.worker.synchronizer import BREAKS_UNTIL_BLOCKED
from native import craft
from support.rawclient import EMPTY_SYNC

from .net import Client, Net, new_document, stored

# -- refusals

BAD_CHANGE = craft.Change(b"mallory---------", sequence=2)


def mischief() -> bytes:
    return craft.message([BAD_CHANGE.chunk()], [BAD_CHANGE.hash()])


def test_refused_change_silences_its_sender_and_nobody_else(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bad, good, reader = (Client(net, document_id, number) for number in (1, 2, 3))
    net.introduce(bad, good, reader)
    heard = len(bad.heard)

    bad.send(mischief())
    assert bad.kinds()[heard:] == ["unavailable"]
    assert ("engine_faults", "sequence") in net.counts

    good.put("b", 2)
    good.say()
    net.settle()
    assert reader.value() == {"a": 1, "b": 2}
    assert len(bad.heard) == heard + 1
    bad.put("c", 3)
    bad.say()
    assert len(bad.heard) == heard + 1
    assert ("silenced_messages", "") in net.counts


def test_messages_of_one_who_was_just_silenced_do_not_break_the_rest_of_the_batch(
    net: Net, document_id: DocumentId
) -> None:
    """Found by the crowd: the rest went to a thread, and named a peer that was gone by then."""
    stored(net, document_id, a=1)
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(bad, good)
    good.put("b", 2)
    upload = good.replica.changes()[-1]
    long_one = craft.message([craft.compressed(upload)], good.replica.heads())

    net.give(
        SyncIn(1, document_id, Access.WRITE, True, False, mischief()),
        SyncIn(2, document_id, Access.WRITE, True, False, long_one),
        SyncIn(1, document_id, Access.WRITE, True, False, EMPTY_SYNC),
    )

    assert not [event for event, _ in net.counts if event == "engine_broken"]
    assert len(net.stored[document_id]) == 2


def test_silence_ends_with_a_reset_that_brings_everything(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(bad, good)
    bad.send(mischief())
    bad.put("lost", 1)
    bad.say()  # dropped in the silence
    good.put("b", 2)
    good.say()
    net.settle()

    net.tick(SILENCE_SECONDS + 1)
    bad.put("after", 1)
    bad.say()
    messages = net.settle()

    assert bad.value() == good.value() == {"a": 1, "b": 2, "lost": 1, "after": 1}
    assert messages < 10


def test_silenced_client_with_nothing_to_say_is_told_by_itself(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(bad, good)
    bad.send(mischief())
    good.put("b", 2)
    good.say()
    net.settle()

    net.tick(SILENCE_SECONDS + 1)
    net.settle()

    assert bad.value() == {"a": 1, "b": 2}


def test_access_that_is_regained_in_the_silence_counts_when_it_ends(
    net: Net, document_id: DocumentId
) -> None:
    """Found by the simulation: greeted at once, its answer was lost, and asked for in a loop."""
    stored(net, document_id, a=1)
    bad = Client(net, document_id, 1)
    net.introduce(bad)
    bad.send(mischief())
    bad.put("b", 2)
    net.give(AccessIn(1, document_id, Access.NONE))
    heard = len(bad.heard)

    net.give(AccessIn(1, document_id, Access.WRITE))
    net.settle()
    assert "sync" not in bad.kinds()[heard:]

    net.tick(SILENCE_SECONDS)
    net.settle()
    assert len(net.stored[document_id]) == 2
    assert ("loop_breaker_trips", "reset") not in net.counts


def test_repeated_mischief_is_silenced_longer(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    bad = Client(net, document_id, 1)
    bad.send(mischief())
    net.tick(SILENCE_SECONDS + 1)
    bad.send(mischief())
    heard = len(bad.heard)

    net.tick(SILENCE_SECONDS + 1)
    bad.send(EMPTY_SYNC)
    assert len(bad.heard) == heard

    net.tick(SILENCE_SECONDS + 1)
    bad.send(EMPTY_SYNC)
    assert len(bad.heard) > heard


@pytest.mark.parametrize("data", [b"", b"x", b"\x42", EMPTY_SYNC[:-4], b"\x42" + b"\xff" * 100])
def test_corrupt_message_is_answered_with_unavailable(
    net: Net, document_id: DocumentId, data: bytes
) -> None:
    client = Client(net, document_id, 1)

    client.send(data)

    assert client.kinds() == ["unavailable"]
    assert net.settled() == net.position


# -- a broken engine


class Fragile:
    """A factory whose documents break on a magic message, or always."""

    def __init__(self) -> None:
        self.native = NativeFactory()
        self.always = False
        self.error: type[Exception] = EngineBroken
        self.refuse_second_peer = False

    def new(self) -> EngineDocument:
        return FragileDocument(self, self.native.new())

    def load(self, blobs: list[bytes]) -> EngineDocument:
        return FragileDocument(self, load_document(blobs)[0])

    def initial_change(self) -> bytes:
        return self.native.initial_change()


class FragileDocument:
    def __init__(self, factory: Fragile, document: EngineDocument) -> None:
        self._factory, self._document = factory, document
        self._peers = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._document, name)

    def add_peer(self, peer: int, **settings: Any) -> None:
        self._peers += 1
        if self._factory.refuse_second_peer and self._peers == 2:
            raise self._factory.error("broken on purpose")
        self._document.add_peer(peer, **settings)

    def sync(self, batch: Any, hello: Any = (), only_light: bool = False) -> Any:
        if self._factory.always or any(data == b"BREAK" for _, data in batch):
            raise self._factory.error("broken on purpose")
        return self._document.sync(batch, hello, only_light)


def fragile() -> tuple[Fragile, Net]:
    factory = Fragile()
    return factory, Net(factory=factory)


def test_broken_engine_is_loaded_again_and_its_breaker_silenced(document_id: DocumentId) -> None:
    _, net = fragile()
    stored(net, document_id, a=1)
    bad, good, other = (Client(net, document_id, number) for number in (1, 2, 3))
    net.introduce(bad, good, other)
    loads, heard = net.loads, len(bad.heard)

    bad.send(b"BREAK")
    net.settle()

    assert net.loads == loads + 1
    assert bad.kinds()[heard:] == ["unavailable"]
    good.put("b", 2)
    good.say()
    net.settle()
    assert other.value() == {"a": 1, "b": 2}
    assert ("engine_broken", "EngineBroken") in net.counts
    assert net.settled() == net.position


def test_edits_before_the_break_survive_it(document_id: DocumentId) -> None:
    _, net = fragile()
    bad, good = Client(net, document_id, 1), Client(net, document_id, 2)
    good.put("a", 1)
    good.say()
    net.settle()
    bad.say()
    net.settle()

    bad.send(b"BREAK")
    good.put("b", 2)
    good.say()
    net.settle()

    late = Client(net, document_id, 3)
    late.say()
    net.settle()
    assert late.value() == {"a": 1, "b": 2}


def test_document_that_breaks_too_often_is_blocked_for_all(document_id: DocumentId) -> None:
    _, net = fragile()
    stored(net, document_id, a=1)
    good = Client(net, document_id, 1)
    good.say()
    net.settle()

    for number in range(BREAKS_UNTIL_BLOCKED):
        Client(net, document_id, 10 + number).send(b"BREAK")
        net.settle()

    assert good.kinds()[-1] == "unavailable"
    late = Client(net, document_id, 30)
    late.say()
    assert late.kinds() == ["unavailable"]
    assert net.call("get", document_id).error == "StorageError"
    assert net.settled() == net.position
    late.close()
    good.close()
    assert net.settled() == net.position


def test_one_broken_document_harms_no_other(document_id: DocumentId) -> None:
    factory, net = fragile()
    bad = Client(net, document_id, 1)
    for _ in range(BREAKS_UNTIL_BLOCKED + 1):
        bad.send(b"BREAK")
        net.tick(400.0)
    assert not factory.always

    good = Client(net, new_document(), 2)
    good.put("a", 1)
    good.say()
    net.settle()

    assert good.kinds()
    assert "unavailable" not in good.kinds()


@pytest.mark.parametrize("where", ["sync", "second_add_peer"])
def test_unexpected_exception_isolates_its_document_and_settles(
    document_id: DocumentId, where: str
) -> None:
    factory, net = fragile()
    factory.error = ValueError
    factory.refuse_second_peer = where == "second_add_peer"
    net.failures_are_expected = True
    stored(net, document_id, a=1)
    clients = [Client(net, document_id, number) for number in (1, 2)]
    net.hold_loads = True  # so that both are in one batch
    clients[0].say()
    clients[1].send(b"BREAK" if where == "sync" else EMPTY_SYNC)
    net.release()

    assert [str(error) for _, error in net.failures] == ["broken on purpose"]
    assert [set(client.kinds()) for client in clients] == [{"unavailable"}] * 2
    assert net.settled() == net.position
    factory.refuse_second_peer = False
    other = Client(net, new_document(), 3)
    other.put("b", 2)
    other.say()
    net.settle()
    assert "unavailable" not in other.kinds()


def test_engine_that_breaks_while_syncing_again_does_not_spin(document_id: DocumentId) -> None:
    factory, net = fragile()
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    client.say()
    net.settle()

    factory.always = True
    client.put("b", 1)
    client.say()

    assert net.loads <= BREAKS_UNTIL_BLOCKED + 1
    assert client.kinds()[-1] == "unavailable"
    assert net.settled() == net.position

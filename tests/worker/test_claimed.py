"""Ids that clients choose: what another identity has is not honoured for who comes later."""

from typing import Any

import pytest

from amsync.ids import DocumentId, base58check_encode
from amsync.protocol.envelope import (
    Close,
    EphemeralIn,
    EphemeralOut,
    HeadsIn,
    HeadsOut,
    Open,
    SubscribeIn,
)
from amsync.worker.claimed import ClaimedIds

from .net import Client, Net, stored

BOB, MALLORY = "identity-of-bob", "identity-of-mallory"
HEAD = base58check_encode(b"\x07" * 32)


class Known(Client):
    """A client with an identity, and ids of its choice."""

    def __init__(
        self,
        net: Net,
        document_id: DocumentId,
        number: int,
        identity: str,
        peer_id: str,
        storage_id: str | None = None,
    ) -> None:
        # The first word of a connection counts; what `Client` says then is a repetition.
        net.give(Open(number, peer_id, storage_id, False, (), identity))
        super().__init__(net, document_id, number, storage_id=storage_id, peer_id=peer_id)

    def broadcasts(self) -> list[EphemeralOut]:
        return [item for item in self.heard if isinstance(item, EphemeralOut)]

    def told(self) -> list[tuple[str, list[str]]]:
        return [(i.storage_id, list(i.heads)) for i in self.heard if isinstance(i, HeadsOut)]


def claims(net: Net) -> list[str]:
    return [label for event, label in net.counts if event == "claimed_ids"]


def test_first_identity_has_an_id_until_its_last_connection_ends() -> None:
    ids = ClaimedIds()
    assert ids.claim("x", BOB)
    assert ids.claim("x", BOB)
    assert not ids.claim("x", MALLORY)
    ids.release("x", BOB)
    assert ids.belongs_to_another("x", MALLORY)
    ids.release("x", BOB)
    assert ids.claim("x", MALLORY)
    assert ids.belongs_to_another("x", BOB)


def test_who_never_had_an_id_releases_nothing() -> None:
    ids = ClaimedIds()
    ids.claim("x", BOB)
    ids.release("x", MALLORY)
    ids.release("y", BOB)
    assert ids.belongs_to_another("x", MALLORY)


def test_without_authentication_nothing_is_kept_and_all_is_as_claimed() -> None:
    ids = ClaimedIds()
    assert ids.claim("x", "")
    assert ids.claim("x", "")
    assert not ids._owners


def test_message_for_a_peer_does_not_reach_who_uses_its_id(
    net: Net, document_id: DocumentId
) -> None:
    bob = Known(net, document_id, 1, BOB, "bob")
    mallory = Known(net, document_id, 2, MALLORY, "bob")
    carol = Known(net, document_id, 3, "identity-of-carol", "carol")
    net.introduce(bob, mallory, carol)

    carol.give(EphemeralIn(3, document_id, "s", 1, b"for bob", "bob"))

    assert [each.data for each in bob.broadcasts()] == [b"for bob"]
    assert mallory.broadcasts() == []
    assert claims(net) == ["peer"]


def test_broadcast_under_anothers_id_can_not_mute_the_owner(
    net: Net, document_id: DocumentId
) -> None:
    """Receivers pass over a session's message whose count is not above the last one."""
    bob = Known(net, document_id, 1, BOB, "bob")
    mallory = Known(net, document_id, 2, MALLORY, "bob")
    carol = Known(net, document_id, 3, "identity-of-carol", "carol")
    net.introduce(bob, mallory, carol)

    mallory.give(EphemeralIn(2, document_id, "session-of-bob", 10**9, b"x", None))
    bob.give(EphemeralIn(1, document_id, "session-of-bob", 1, b"y", None))

    by_session = {each.session_id: each.data for each in carol.broadcasts()}
    assert by_session == {f"{MALLORY}-session-of-bob": b"x", "session-of-bob": b"y"}


@pytest.mark.parametrize("mallory_has_it_open_first", [False, True])
def test_heads_of_who_uses_anothers_storage_id_are_not_its_heads(
    net: Net, document_id: DocumentId, mallory_has_it_open_first: bool
) -> None:
    stored(net, document_id, a=1)
    bob = Known(net, document_id, 1, BOB, "bob", "storage-of-bob")
    watcher = Known(net, document_id, 3, "identity-of-carol", "carol")
    mallory = Known(net, document_id, 2, MALLORY, "mallory", "storage-of-bob")
    order = [mallory, bob] if mallory_has_it_open_first else [bob, mallory]
    net.introduce(watcher, *order)
    watcher.give(SubscribeIn(3, ["storage-of-bob"], []))
    before = len(watcher.told())

    mallory.put("b", 1)
    mallory.say()
    only_mallorys = base58check_encode(mallory.replica.heads()[0])
    told_of_mallory = watcher.told()[before:]
    net.settle()

    assert claims(net) == ["storage"]
    assert told_of_mallory == []
    bobs = [heads for _, heads in watcher.told()]
    assert [base58check_encode(head) for head in bob.replica.heads()] in bobs
    assert bob.value() == {"a": 1, "b": 1}
    assert only_mallorys


def test_report_on_a_storage_id_that_another_identity_has_is_not_believed(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    bob = Known(net, document_id, 1, BOB, "bob", "storage-of-bob")
    mallory = Known(net, document_id, 2, MALLORY, "mallory")
    watcher = Known(net, document_id, 3, "identity-of-carol", "carol")
    net.introduce(bob, mallory, watcher)
    watcher.give(SubscribeIn(3, ["storage-of-bob", "storage-far-away"], []))
    later = 10**12

    mallory.give(HeadsIn(2, document_id, "storage-of-bob", [HEAD], later))
    mallory.give(HeadsIn(2, document_id, "storage-far-away", [HEAD], later))

    assert ("storage-of-bob", [HEAD]) not in watcher.told()
    assert ("storage-far-away", [HEAD]) in watcher.told()
    assert claims(net) == ["report"]


def test_another_connection_of_the_owner_is_honoured(net: Net, document_id: DocumentId) -> None:
    Known(net, document_id, 1, BOB, "bob", "storage-of-bob")
    Known(net, document_id, 2, BOB, "bob", "storage-of-bob")
    assert claims(net) == []


def test_id_is_free_when_its_owner_has_gone(net: Net, document_id: DocumentId) -> None:
    bob = Known(net, document_id, 1, BOB, "bob", "storage-of-bob")
    bob.close()
    Known(net, document_id, 2, MALLORY, "bob", "storage-of-bob")
    assert claims(net) == []


def test_who_was_not_honoured_frees_nothing_by_going(net: Net, document_id: DocumentId) -> None:
    Known(net, document_id, 1, BOB, "bob", "storage-of-bob")
    mallory = Known(net, document_id, 2, MALLORY, "bob", "storage-of-bob")
    mallory.give(Close(2))
    del net.clients[mallory.gateway, 2]
    Known(net, document_id, 3, MALLORY, "bob", "storage-of-bob")
    assert claims(net) == ["storage", "peer", "storage", "peer"]


def test_who_was_not_honoured_takes_nothing_from_its_own_later_connection(
    net: Net, document_id: DocumentId
) -> None:
    bob = Known(net, document_id, 1, BOB, "bob", "storage-of-bob")
    early = Known(net, document_id, 2, MALLORY, "bob", "storage-of-bob")
    bob.close()
    Known(net, document_id, 3, MALLORY, "bob", "storage-of-bob")
    early.close()
    net.counts.clear()
    Known(net, document_id, 4, BOB, "bob", "storage-of-bob")
    assert claims(net) == ["storage", "peer"]


def test_owner_of_another_version_of_the_gateway_has_no_identity(net: Net) -> None:
    """Its `Open` ends before the identity."""
    fields: list[Any] = [1, "bob", None, False, ()]
    assert Open(*fields).identity == ""

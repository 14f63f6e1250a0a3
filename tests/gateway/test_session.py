"""The session without a socket: joining, each kind of message, delivery and end."""

from typing import Any

import cbor2
import pytest

from amsync.gateway.effects import CloseReason, CloseSocket, Count, Forward, Joined, Send
from amsync.gateway.session import MAX_SUBSCRIPTIONS
from amsync.ids import (
    DocumentId,
    base58check_encode,
    generate_document_id,
    shard_of,
    shard_of_storage,
)
from amsync.protocol.envelope import (
    Close,
    EphemeralIn,
    EphemeralOut,
    HeadsIn,
    HeadsOut,
    Open,
    SubscribeIn,
    SyncOut,
)

from .talk import DOCUMENT, MESSAGES, SHARD, SHARDS, WRITE, Talk, forwarded, in_use, sent, sync_in

# -- joining


def test_join_is_answered_with_who_we_are() -> None:
    talk = Talk(joined=False)

    joined, peer = talk.say("join", peerMetadata={})

    assert joined == Joined("client")
    assert talk.read(peer) == {
        "type": "peer",
        "senderId": "server",
        "targetId": "client",
        "selectedProtocolVersion": "1",
        "peerMetadata": {"storageId": "server-storage", "isEphemeral": False},
    }
    assert talk.session.is_open


def test_without_a_storage_id_we_are_ephemeral() -> None:
    talk = Talk(joined=False, storage_id=None)

    (answer,) = sent(talk, talk.say("join"))

    assert answer["peerMetadata"] == {"isEphemeral": True}


@pytest.mark.parametrize(
    ("metadata", "storage_id"),
    [
        ({"storageId": "s", "isEphemeral": False}, "s"),
        ({"storageId": "s"}, "s"),
        ({"storageId": "s", "isEphemeral": True}, None),
        ({}, None),
    ],
)
def test_storage_id_of_an_ephemeral_client_is_none(
    metadata: dict[str, Any], storage_id: str | None
) -> None:
    talk = Talk(joined=False)
    talk.say("join", peerMetadata=metadata)

    (opened,) = forwarded(talk.request(), Open)

    assert opened == Open(7, "client", storage_id, False, ())


def test_error_before_a_join_names_no_target() -> None:
    talk = Talk(joined=False)

    (error,) = sent(talk, talk.frame(b"\xf6"))

    assert error == {"type": "error", "senderId": "server", "message": "frame is not a message"}


def test_join_as_large_as_nobody_needs_is_refused() -> None:
    talk = Talk(joined=False)

    effects = talk.say("join", filler=b"x" * 70_000)

    assert CloseSocket(CloseReason.BAD_JOIN) in effects


def test_announcing_server_introduces_the_client_to_every_shard() -> None:
    talk = Talk(joined=False, announces=True)

    effects = talk.say("join")

    assert [e.shard for e in effects if isinstance(e, Forward)] == list(range(SHARDS))
    assert all(item.wants_announcements for item in forwarded(effects))
    assert [type(e) for e in effects[:2]] == [Joined, Send]


# -- messages


def test_other_sender_is_dropped_and_counted() -> None:
    talk = Talk()
    for kind in ("sync", "ephemeral", "doc-unavailable", "remote-subscription-change"):
        assert talk.say(kind, **MESSAGES[kind], senderId="other") == [Count("other_sender")]


def test_wrong_target_is_no_fault() -> None:
    """JavaScript's server doesn't look at it either (PROTOCOL 1.5)."""
    talk = Talk()

    assert forwarded(talk.say("request", documentId=DOCUMENT, data=b"data", targetId="x"))[1:] == [
        sync_in()
    ]


def test_size_of_a_message_counts_against_the_connection() -> None:
    talk = Talk()
    frame = cbor2.dumps(
        {"type": "sync", "senderId": "client", "documentId": DOCUMENT, "data": b"x" * 1000}
    )

    forwards = [e for e in talk.frame(frame) if isinstance(e, Forward)]

    assert [forward.size for forward in forwards] == [0, len(frame)]


@pytest.mark.parametrize(("target", "expected"), [("server", None), ("somebody", "somebody")])
def test_broadcast_to_the_server_is_for_all_and_to_a_peer_for_one(
    target: str, expected: str | None
) -> None:
    talk = Talk()

    items = forwarded(talk.say("ephemeral", **{**MESSAGES["ephemeral"], "targetId": target}))

    assert items[-1] == EphemeralIn(7, DOCUMENT, "s", 1, b"x", expected)


def test_repeated_broadcast_is_dropped_and_gaps_are_normal() -> None:
    talk = Talk()
    passed = []
    for session_id, count in [("s", 1), ("s", 1), ("s", 5), ("s", 4), ("t", 1), ("t", 2)]:
        fields = {**MESSAGES["ephemeral"], "count": count, "sessionId": session_id}
        passed += [
            (i.session_id, i.count) for i in forwarded(talk.say("ephemeral", **fields), EphemeralIn)
        ]

    assert passed == [("s", 1), ("s", 5), ("t", 1), ("t", 2)]


def test_each_reported_storage_id_is_an_item() -> None:
    talk = Talk()
    heads = {name: {"heads": [name], "timestamp": 5} for name in ("a", "b")}

    items = forwarded(
        talk.say("remote-heads-changed", documentId=DOCUMENT, newHeads=heads), HeadsIn
    )

    assert items == [HeadsIn(7, DOCUMENT, name, (name,), 5) for name in ("a", "b")]


def test_subscriptions_reach_known_shards_the_storage_ids_own_and_those_met_later() -> None:
    talk = in_use()
    own = shard_of_storage("a", SHARDS)

    effects = talk.say("remote-subscription-change", add=["a"])

    found = {e.shard for e in effects if isinstance(e, Forward) and isinstance(e.item, SubscribeIn)}
    assert found == {own, SHARD}
    later = next(d for d in iter(generate_document_id, "") if shard_of(d, SHARDS) not in found)
    (opened,) = forwarded(talk.request(later), Open)
    assert opened.subscriptions == ("a",)

    talk.say("remote-subscription-change", remove=["a"])
    found.add(shard_of(later, SHARDS))
    other = next(d for d in iter(generate_document_id, "") if shard_of(d, SHARDS) not in found)
    (opened,) = forwarded(talk.request(other), Open)
    assert opened.subscriptions == ()


def test_subscriptions_are_bounded() -> None:
    talk = Talk()
    many = [f"storage-{number}" for number in range(MAX_SUBSCRIPTIONS)]
    talk.say("remote-subscription-change", add=many)

    assert talk.say("remote-subscription-change", add=["x"]) == [Count("too_many_subscriptions")]
    assert forwarded(talk.say("remote-subscription-change", remove=many[:1]), SubscribeIn)
    assert forwarded(talk.say("remote-subscription-change", add=["x"]), SubscribeIn)


def test_subscribing_again_to_the_same_takes_no_room() -> None:
    talk = Talk()
    many = [f"storage-{number}" for number in range(MAX_SUBSCRIPTIONS)]
    talk.say("remote-subscription-change", add=many)

    assert talk.say("remote-subscription-change", add=many[:5]) == []


# -- delivery and end


def test_shared_body_is_used_when_the_spelling_is_canonical() -> None:
    talk = in_use()

    shared = b"shared"

    assert talk.session.deliver(SyncOut([7], DOCUMENT, b"x"), shared) is shared


def test_only_broadcasts_may_be_dropped() -> None:
    talk = in_use()

    assert [e.droppable for e in talk.deliver(EphemeralOut([7], DOCUMENT, "o", "s", 1, b""))] == [
        True
    ]
    assert [e.droppable for e in talk.deliver(HeadsOut([7], DOCUMENT, "s", [], 1))] == [False]


def test_item_for_a_document_that_is_not_open_is_dropped() -> None:
    assert Talk().deliver(SyncOut([7], DOCUMENT, b"x")) == []


def test_every_shard_that_knows_the_connection_hears_of_its_end() -> None:
    talk = Talk()
    documents = [generate_document_id() for _ in range(30)]
    for document in documents:
        talk.request(document)

    talk.session.disconnected()
    effects = talk.session.take_effects()

    assert [e.shard for e in effects] == sorted({shard_of(d, SHARDS) for d in documents})
    assert set(forwarded(effects)) == {Close(7)}
    talk.session.disconnected()
    assert talk.session.take_effects() == []


def test_messages_still_queued_at_the_end_are_forgotten() -> None:
    talk = Talk(grant=None)
    talk.request()
    talk.session.disconnected()

    assert talk.session.take_effects() == []
    assert talk.decided(WRITE) == []


def test_numbers_of_shards_and_ids_agree() -> None:
    document = DocumentId(base58check_encode(b"x"))

    forwards = [e for e in Talk().request(document) if isinstance(e, Forward)]

    assert {e.shard for e in forwards} == {shard_of(document, SHARDS)}

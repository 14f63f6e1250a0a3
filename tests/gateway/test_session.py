"""The session without a socket: every state with every event, order, spelling, limits, access."""

import uuid
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsync.gateway.effects import Ask, CloseReason, CloseSocket, Count, Forward, Joined, Send
from amsync.gateway.limits import Creations, Limits
from amsync.gateway.outbound import encode
from amsync.gateway.session import MAX_SUBSCRIPTIONS, PeerSession, SessionSettings
from amsync.ids import (
    DocumentId,
    base58check_decode,
    base58check_encode,
    generate_document_id,
    shard_of,
    shard_of_storage,
)
from amsync.protocol.access import Access, Grant
from amsync.protocol.envelope import (
    AccessIn,
    Close,
    EphemeralIn,
    EphemeralOut,
    Greet,
    HeadsIn,
    HeadsOut,
    Offer,
    OfferDone,
    Open,
    SubscribeIn,
    SubscribeOut,
    SyncIn,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
)

SHARDS = 8
DOCUMENT = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")
RAW = base58check_decode(DOCUMENT)
SHARD = shard_of(DOCUMENT, SHARDS)
WRITE, READ, NONE = Grant(Access.WRITE), Grant(Access.READ), Grant(Access.NONE)
ANNOUNCE = Grant(Access.WRITE, announce=True)


class Talk:
    """A session with its surroundings: what it is told, and what it wants done."""

    def __init__(
        self,
        *,
        grant: Grant | None = WRITE,
        joined: bool = True,
        announces: bool = False,
        storage_id: str | None = "server-storage",
        creations: Creations | None = None,
        **limits: int,
    ) -> None:
        self.grants: dict[DocumentId, Grant | None] = {}
        self.grant = grant
        self.now = 100.0
        settings = SessionSettings(
            server_peer_id="server",
            storage_id=storage_id,
            shard_count=SHARDS,
            limits=Limits(**limits),
            decide=lambda _peer, document: self.grants.get(document, self.grant),
            may_announce=announces,
        )
        self.creations = creations or Creations(settings.limits.creations_per_minute)
        self.session = PeerSession(7, settings, self.creations)
        if joined:
            self.say("join", peerMetadata={"storageId": "client-storage"})

    def say(self, kind: str, **fields: Any) -> list[Any]:
        """Receive a message from the client; returns the effects."""
        message = {"type": kind, "senderId": "client", "targetId": "server", **fields}
        message = {key: value for key, value in message.items() if value is not ...}
        return self.frame(cbor2.dumps(message))

    def frame(self, data: bytes) -> list[Any]:
        self.session.receive(data, self.now)
        return self.session.take_effects()

    def request(self, document: str | bytes = DOCUMENT, data: bytes = b"data") -> list[Any]:
        return self.say("request", documentId=document, data=data)

    def decided(self, grant: Grant, document: DocumentId = DOCUMENT) -> list[Any]:
        self.session.decided(document, grant, self.now)
        return self.session.take_effects()

    def deliver(self, item: Any) -> list[Any]:
        self.session.deliver(item, encode(item, "server"))
        return self.session.take_effects()

    def offered(self, *documents: DocumentId, shard: int = SHARD) -> list[Any]:
        self.session.offered(shard, Offer(7, documents))
        return self.session.take_effects()

    def read(self, send: Send) -> dict[str, Any]:
        """A frame as the client decodes it."""
        message = cbor2.loads(send.shared + self.session.target_suffix)
        assert isinstance(message, dict)
        return message


def forwarded(effects: list[Any], kind: type | None = None) -> list[Any]:
    items = [effect.item for effect in effects if isinstance(effect, Forward)]
    return [item for item in items if kind is None or isinstance(item, kind)]


def sent(talk: Talk, effects: list[Any]) -> list[dict[str, Any]]:
    return [talk.read(effect) for effect in effects if isinstance(effect, Send)]


def counts(effects: list[Any]) -> list[str]:
    return [effect.reason for effect in effects if isinstance(effect, Count)]


def sync_in(data: bytes = b"data", **changes: Any) -> SyncIn:
    fields = {
        "connection": 7,
        "document_id": DOCUMENT,
        "access": 2,
        "may_create": True,
        "is_request": True,
        "data": data,
    }
    return SyncIn(**{**fields, **changes})


# -- states x events

MESSAGES: dict[str, dict[str, Any]] = {
    "join": {"peerMetadata": {}},
    "leave": {},
    "error": {"message": "x"},
    "sync": {"documentId": DOCUMENT, "data": b"x"},
    "request": {"documentId": DOCUMENT, "data": b"x"},
    "doc-unavailable": {"documentId": DOCUMENT},
    "ephemeral": {"documentId": DOCUMENT, "count": 1, "sessionId": "s", "data": b"x"},
    "remote-subscription-change": {"add": ["storage"]},
    "remote-heads-changed": {
        "documentId": DOCUMENT,
        "newHeads": {"storage": {"heads": ["h"], "timestamp": 5}},
    },
    "unknown": {},
}
EVENTS: dict[str, Callable[[Talk], list[Any]]] = {
    **{kind: lambda talk, kind=kind: talk.say(kind, **MESSAGES[kind]) for kind in MESSAGES},
    "garbage": lambda talk: talk.frame(b"\xff"),
    "empty": lambda talk: talk.frame(b""),
    "null": lambda talk: talk.frame(b"\xf6"),
    "text": lambda talk: (talk.session.receive_text(), talk.session.take_effects())[1],
    "decided": lambda talk: talk.decided(WRITE),
    "deliver sync": lambda talk: talk.deliver(SyncOut([7], DOCUMENT, b"x")),
    "deliver unavailable": lambda talk: talk.deliver(UnavailableOut([7], DOCUMENT)),
    "deliver subscription": lambda talk: talk.deliver(SubscribeOut([7], ["a"], [])),
    "offered": lambda talk: talk.offered(DOCUMENT),
    "recheck": lambda talk: (
        talk.session.recheck(talk.now, everything=True),
        talk.session.take_effects(),
    )[1],
    "closed": lambda talk: (
        talk.session.close(CloseReason.SHUTDOWN),
        talk.session.take_effects(),
    )[1],
    "disconnected": lambda talk: (talk.session.disconnected(), talk.session.take_effects())[1],
}

JOINING = {
    "join": ["Joined", "Send peer"],
    "leave": ["Send error", "CloseSocket not_join"],
    "error": ["Send error", "CloseSocket not_join"],
    "sync": ["Send error", "CloseSocket not_join"],
    "request": ["Send error", "CloseSocket not_join"],
    "doc-unavailable": ["Send error", "CloseSocket not_join"],
    "ephemeral": ["Send error", "CloseSocket not_join"],
    "remote-subscription-change": ["Send error", "CloseSocket not_join"],
    "remote-heads-changed": ["Send error", "CloseSocket not_join"],
    "unknown": ["Send error", "CloseSocket not_join"],
    "garbage": ["Count undecodable", "Send error", "CloseSocket bad_frame"],
    "empty": ["Count undecodable", "Send error", "CloseSocket bad_frame"],
    "null": ["Count not_a_map", "Send error", "CloseSocket bad_frame"],
    "text": ["Send error", "CloseSocket text_frame"],
    "decided": [],
    "deliver sync": [],
    "deliver unavailable": [],
    "deliver subscription": [],
    "offered": [],
    "recheck": [],
    "closed": ["Send error", "CloseSocket shutdown"],
    "disconnected": [],
}
OPEN = {
    **JOINING,
    "join": ["Send error", "CloseSocket second_join"],
    "leave": ["Count leave"],
    "error": ["Count peer_error"],
    "sync": ["Forward Open", "Forward SyncIn"],
    "request": ["Forward Open", "Forward SyncIn"],
    "doc-unavailable": ["Forward Open", "Forward UnavailableIn"],
    "ephemeral": ["Forward Open", "Forward EphemeralIn"],
    "remote-subscription-change": ["Forward Open", "Forward SubscribeIn"],
    "remote-heads-changed": ["Forward Open", "Forward HeadsIn"],
    "unknown": ["Count unknown_type"],
    "deliver subscription": ["Send remote-subscription-change"],
    "offered": ["Forward OfferDone"],
}
USING = {
    **OPEN,
    "sync": ["Forward SyncIn"],
    "request": ["Forward SyncIn"],
    "doc-unavailable": ["Forward UnavailableIn"],
    "ephemeral": ["Forward EphemeralIn"],
    "remote-heads-changed": ["Forward HeadsIn"],
    "remote-subscription-change": (
        ["Forward Open"] * (shard_of_storage("storage", SHARDS) != SHARD)
        + ["Forward SubscribeIn"] * (1 + (shard_of_storage("storage", SHARDS) != SHARD))
    ),
    "deliver sync": ["Send sync"],
    "deliver unavailable": ["Send doc-unavailable"],
    "recheck": ["Ask"],
    "disconnected": ["Forward Close"],
}
CLOSED: dict[str, list[str]] = {event: [] for event in EVENTS}
ENDED = {**CLOSED, "disconnected": ["Forward Close"]}


def in_use() -> Talk:
    talk = Talk()
    talk.request()
    return talk


def ended(talk: Talk) -> Talk:
    talk.session.close(CloseReason.SHUTDOWN)
    talk.session.take_effects()
    return talk


def gone() -> Talk:
    talk = in_use()
    talk.session.disconnected()
    talk.session.take_effects()
    return talk


STATES: dict[str, tuple[Callable[[], Talk], dict[str, list[str]]]] = {
    "joining": (lambda: Talk(joined=False), JOINING),
    "open": (Talk, OPEN),
    "using a document": (in_use, USING),
    "closed by us": (lambda: ended(in_use()), ENDED),
    "closed while joining": (lambda: ended(Talk(joined=False)), CLOSED),
    "gone": (gone, CLOSED),
}


def shown(effect: Any) -> str:
    match effect:
        case Send():
            return f"Send {effect.kind}"
        case Forward():
            return f"Forward {type(effect.item).__name__}"
        case CloseSocket():
            return f"CloseSocket {effect.reason.label}"
        case Count():
            return f"Count {effect.reason}"
        case _:
            return type(effect).__name__


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_state_and_event(state: str, event: str) -> None:
    make, table = STATES[state]

    effects = EVENTS[event](make())

    assert [shown(effect) for effect in effects] == table[event]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(sorted(EVENTS)), max_size=12), st.sampled_from([None, WRITE, NONE]))
def test_any_sequence_of_events_keeps_the_invariants(
    events: list[str], grant: Grant | None
) -> None:
    """A shard hears Open first, Close last, and nothing after it; a close is said once."""
    talk = Talk(joined=False, grant=grant)
    effects = [effect for event in events for effect in EVENTS[event](talk)]

    for shard in range(SHARDS):
        items = [e.item for e in effects if isinstance(e, Forward) and e.shard == shard]
        kinds = [type(item) for item in items if not isinstance(item, OfferDone)]
        assert kinds[:1] in ([], [Open])
        assert kinds.count(Open) <= 1
        assert Close not in kinds[:-1]
    assert len([e for e in effects if isinstance(e, CloseSocket)]) <= 1
    assert len([e for e in effects if isinstance(e, Joined)]) <= 1
    assert talk.session.queued_bytes >= 0


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


# -- spelling

LEGACY = str(uuid.UUID(bytes=RAW))
SPELLINGS: list[str | bytes] = [DOCUMENT, LEGACY, LEGACY.upper(), RAW, f"automerge:{DOCUMENT}"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_client_gets_back_its_own_spelling(spelling: str | bytes) -> None:
    talk = Talk()

    assert forwarded(talk.request(spelling), SyncIn) == [sync_in()]

    items = [
        SyncOut([7], DOCUMENT, b"x"),
        UnavailableOut([7], DOCUMENT),
        EphemeralOut([7], DOCUMENT, "other", "s", 1, b"x"),
        HeadsOut([7], DOCUMENT, "storage", ["h"], 5),
    ]
    for item in items:
        (message,) = sent(talk, talk.deliver(item))
        assert message["documentId"] == spelling
        assert message["targetId"] == "client"
        assert message["senderId"] == ("other" if isinstance(item, EphemeralOut) else "server")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_refusals_use_the_clients_spelling(spelling: str | bytes) -> None:
    talk = Talk(grant=NONE)

    (message,) = sent(talk, talk.request(spelling))

    assert (message["type"], message["documentId"]) == ("doc-unavailable", spelling)


def test_the_last_spelling_counts_and_the_table_does_not_grow() -> None:
    talk = Talk(max_documents_per_connection=1)
    for spelling in SPELLINGS * 2:
        assert forwarded(talk.request(spelling), SyncIn)
        (message,) = sent(talk, talk.deliver(SyncOut([7], DOCUMENT, b"x")))
        assert message["documentId"] == spelling
    assert talk.session.document_count == 1


def test_messages_queued_under_two_spellings_stay_in_order() -> None:
    talk = Talk(grant=None)
    talk.request(DOCUMENT, b"1")
    talk.request(LEGACY, b"2")
    talk.request(RAW, b"3")

    assert [item.data for item in forwarded(talk.decided(WRITE), SyncIn)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("spelling", ["", "x", "../..", b"", b"x" * 65, DOCUMENT + "1"])
def test_bad_id_is_unavailable_and_opens_nothing(spelling: str | bytes) -> None:
    talk = Talk()

    effects = talk.request(spelling)

    assert counts(effects) == ["bad_document_id"]
    (message,) = sent(talk, effects)
    assert (message["type"], message["documentId"]) == ("doc-unavailable", spelling)
    assert talk.session.document_count == 0
    assert forwarded(effects) == []


@pytest.mark.parametrize("kind", ["ephemeral", "doc-unavailable", "remote-heads-changed"])
def test_bad_id_in_what_asks_nothing_is_only_counted(kind: str) -> None:
    effects = Talk().say(kind, **{**MESSAGES[kind], "documentId": "bad"})

    assert effects == [Count("bad_document_id")]


def test_megabyte_of_id_is_not_repeated() -> None:
    assert Talk().request("1" * 1_000_000) == [Count("bad_document_id")]


# -- access


def test_nothing_passes_before_access_is_decided_and_then_all_in_order() -> None:
    talk = Talk(grant=None)

    assert talk.request(data=b"1") == [Ask((DOCUMENT,))]
    assert talk.say("ephemeral", **MESSAGES["ephemeral"]) == []
    assert talk.say("doc-unavailable", documentId=DOCUMENT) == []
    assert talk.request(data=b"2") == []
    assert talk.session.queued_bytes > 0

    items = forwarded(talk.decided(READ))

    assert [type(item) for item in items] == [Open, SyncIn, EphemeralIn, UnavailableIn, SyncIn]
    assert [item.access for item in items if isinstance(item, SyncIn)] == [1, 1]
    assert talk.session.queued_bytes == 0


def test_undecided_document_holds_back_no_other() -> None:
    talk = Talk(grant=None)
    other = generate_document_id()
    talk.grants[other] = WRITE
    talk.request()

    assert forwarded(talk.request(other), SyncIn)


def test_queue_that_is_refused_is_answered_message_by_message() -> None:
    talk = Talk(grant=None)
    talk.request(data=b"1")
    talk.request(data=b"2")
    talk.say("ephemeral", **MESSAGES["ephemeral"])

    effects = talk.decided(NONE)

    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"] * 2
    assert counts(effects) == ["access_denied"] * 3
    assert forwarded(effects) == []
    assert talk.session.queued_bytes == 0


def test_readers_may_not_create() -> None:
    talk = Talk(grant=READ, creations_per_minute=1)

    (item,) = forwarded(talk.request(), SyncIn)

    assert (item.access, item.may_create) == (1, False)
    assert talk.creations.take(talk.now)


@pytest.mark.parametrize(
    ("before", "after", "told", "shard_told"),
    [
        (WRITE, READ, [], [AccessIn(7, DOCUMENT, 1)]),
        (READ, WRITE, [], [AccessIn(7, DOCUMENT, 2)]),
        (WRITE, NONE, ["doc-unavailable"], [AccessIn(7, DOCUMENT, 0)]),
        (WRITE, WRITE, [], []),
        (WRITE, ANNOUNCE, [], []),
    ],
)
def test_changed_access_reaches_the_shard(
    before: Grant, after: Grant, told: list[str], shard_told: list[Any]
) -> None:
    talk = Talk(grant=before)
    talk.request()
    talk.session.recheck(talk.now, everything=True)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]

    effects = talk.decided(after)

    assert [m["type"] for m in sent(talk, effects)] == told
    assert forwarded(effects) == shard_told


def test_after_the_loss_nothing_comes_and_nothing_goes() -> None:
    talk = in_use()
    talk.decided(NONE)

    assert talk.deliver(SyncOut([7], DOCUMENT, b"x")) == []
    assert talk.deliver(EphemeralOut([7], DOCUMENT, "o", "s", 1, b"x")) == []
    effects = talk.request()
    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"]
    assert forwarded(effects) == []


def test_access_gained_is_told_to_the_shard_which_hears_of_the_connection_first() -> None:
    talk = Talk(grant=NONE)
    talk.request()

    items = forwarded(talk.decided(WRITE))

    assert [type(item) for item in items] == [Open, AccessIn]
    assert forwarded(talk.request(), SyncIn) == [sync_in()]


def test_decisions_are_made_again_when_their_time_is_over() -> None:
    talk = Talk(grant=Grant(Access.WRITE, expires_at=130.0))
    talk.request()

    talk.session.recheck(129.0)
    assert talk.session.take_effects() == []
    talk.session.recheck(130.0)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]
    talk.session.recheck(131.0)
    assert talk.session.take_effects() == []

    # Until then the old decision holds: an open document doesn't stall every 30 s.
    assert forwarded(talk.request(), SyncIn)
    talk.decided(Grant(Access.WRITE, expires_at=160.0))
    talk.session.recheck(161.0)
    assert talk.session.take_effects() == [Ask((DOCUMENT,))]


def test_decision_on_a_document_that_nobody_opened_is_ignored() -> None:
    assert Talk().decided(WRITE) == []


# -- limits


def test_documents_are_bounded_and_open_ones_go_on() -> None:
    talk = Talk(max_documents_per_connection=2)
    documents = [generate_document_id() for _ in range(3)]
    for document in documents[:2]:
        talk.request(document)

    effects = talk.request(documents[2])

    assert counts(effects) == ["too_many_documents"]
    assert [m["type"] for m in sent(talk, effects)] == ["doc-unavailable"]
    assert forwarded(talk.request(documents[0]), SyncIn)


def test_creations_are_reserved_and_given_back_when_nothing_was_created() -> None:
    talk = Talk(creations_per_minute=1)
    first, second = generate_document_id(), generate_document_id()
    (item,) = forwarded(talk.request(first), SyncIn)
    assert item.may_create

    effects = talk.request(second)
    assert counts(effects) == ["creation_rate"]
    assert not forwarded(effects, SyncIn)[0].may_create

    talk.deliver(SyncOut([7], first, b"x"))
    assert forwarded(talk.request(second), SyncIn)[0].may_create
    talk.deliver(UnavailableOut([7], second))
    assert forwarded(talk.request(second), SyncIn)[0].may_create


def test_creation_that_happened_is_spent_until_time_has_passed() -> None:
    talk = Talk(creations_per_minute=2)
    first, second, third = (generate_document_id() for _ in range(3))
    for document in (first, second):
        talk.request(document)
        talk.deliver(SyncOut([7], document, b"x", created=True))

    assert not forwarded(talk.request(third), SyncIn)[0].may_create
    talk.now += 30
    assert forwarded(talk.request(third), SyncIn)[0].may_create


def test_one_document_reserves_once() -> None:
    talk = Talk(creations_per_minute=1)
    for _ in range(5):
        assert forwarded(talk.request(), SyncIn)[0].may_create


def test_going_before_the_answer_gives_no_creation_back() -> None:
    """What was sent may still create; a client that always goes at once would have no bound."""
    creations = Creations(1)
    talk = Talk(creations=creations, creations_per_minute=1)
    talk.request()

    talk.session.disconnected()

    assert not creations.take(talk.now)


def test_connections_of_an_address_share_its_creations() -> None:
    creations = Creations(1)
    one, two = (Talk(creations=creations, creations_per_minute=1) for _ in range(2))

    assert forwarded(one.request(), SyncIn)[0].may_create
    assert not forwarded(two.request(generate_document_id()), SyncIn)[0].may_create


# -- announcements


def test_offered_documents_are_greeted_if_access_says_announce() -> None:
    talk = Talk(announces=True)
    documents = [generate_document_id() for _ in range(4)]
    talk.grants = dict(zip(documents, [ANNOUNCE, WRITE, NONE, ANNOUNCE], strict=True))

    items = forwarded(talk.offered(*documents))

    assert items == [Greet(7, documents[0], 2), Greet(7, documents[3], 2), OfferDone(7)]
    (message,) = sent(talk, talk.deliver(SyncOut([7], documents[0], b"x")))
    assert message["documentId"] == documents[0]


def test_offer_with_open_questions_is_done_when_all_are_answered() -> None:
    talk = Talk(announces=True, grant=None)
    first, second = generate_document_id(), generate_document_id()

    assert talk.offered(first, second) == [Ask((first, second))]
    assert forwarded(talk.decided(ANNOUNCE, first)) == [Greet(7, first, 2)]
    assert forwarded(talk.decided(WRITE, second)) == [OfferDone(7)]


def test_offered_document_that_the_client_opens_meanwhile_is_not_greeted() -> None:
    talk = Talk(announces=True, grant=None)
    talk.offered(DOCUMENT)
    talk.request()

    items = forwarded(talk.decided(ANNOUNCE))

    assert [type(item) for item in items] == [SyncIn, OfferDone]


def test_open_documents_are_not_greeted_again() -> None:
    talk = Talk(announces=True, grant=ANNOUNCE)
    talk.request()

    assert forwarded(talk.offered(DOCUMENT)) == [OfferDone(7)]


def test_offers_of_two_shards_are_apart() -> None:
    talk = Talk(announces=True, grant=None)
    documents: dict[int, DocumentId] = {}
    while len(documents) < 2:
        document = generate_document_id()
        documents[shard_of(document, SHARDS)] = document
    (one, first), (two, second) = documents.items()
    talk.offered(first, shard=one)
    talk.offered(second, shard=two)

    effects = talk.decided(ANNOUNCE, second)

    assert [(e.shard, type(e.item)) for e in effects] == [(two, Greet), (two, OfferDone)]
    assert [e.shard for e in talk.decided(NONE, first)] == [one]


@pytest.mark.parametrize("grant", [None, ANNOUNCE])
def test_announcements_stay_within_the_bound_of_documents(grant: Grant | None) -> None:
    talk = Talk(announces=True, grant=grant, max_documents_per_connection=2)
    documents = [generate_document_id() for _ in range(4)]
    talk.offered(*documents)
    for document in documents:
        talk.decided(ANNOUNCE, document)

    assert talk.session.document_count == 2


# -- delivery and end


def test_shared_body_is_used_when_the_spelling_is_canonical() -> None:
    talk = in_use()

    talk.session.deliver(SyncOut([7], DOCUMENT, b"x"), b"shared")

    assert talk.session.take_effects() == [Send("sync", b"shared", droppable=False)]


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

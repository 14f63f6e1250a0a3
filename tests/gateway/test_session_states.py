"""Every state of a session with every event, and what holds in any order of events."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsync.gateway.effects import CloseReason, CloseSocket, Count, Forward, Joined, Send
from amsync.ids import (
    shard_of_storage,
)
from amsync.protocol.access import Grant
from amsync.protocol.envelope import (
    Close,
    OfferDone,
    Open,
    SubscribeOut,
    SyncOut,
    UnavailableOut,
)

from .talk import DOCUMENT, MESSAGES, NONE, SHARD, SHARDS, WRITE, Talk, in_use

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

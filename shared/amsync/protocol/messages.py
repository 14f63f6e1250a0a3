"""The messages of automerge-repo's network protocol, version "1", as values.

What they look like on the wire is in `amsync.protocol.codec`. Ids that peers choose are
checked for length and control characters by the codec; document ids are kept as they were
spelled, and made canonical by the session.

Source: automerge-repo network/messages.ts and websocket messages.ts; PROTOCOL 2.
"""

from dataclasses import dataclass

from amsync.values import cheap

PROTOCOL_VERSION = "1"

Spelling = str | bytes
"""A document id as the client wrote it: base58check or UUID text, or (samod) raw bytes."""


@dataclass(frozen=True, slots=True)
class Join:
    """First message of a client."""

    sender_id: str
    versions: tuple[str, ...]
    storage_id: str | None
    is_ephemeral: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """A client's hint that it goes; the socket's close says the same."""

    sender_id: str


@dataclass(frozen=True, slots=True)
class PeerError:
    """An `error` from the peer. Clients only log it; so do we."""

    sender_id: str
    message: str


@cheap
@dataclass(frozen=True, slots=True)
class Sync:
    """A sync message for one document; `request` if the sender has nothing and looks for it."""

    sender_id: str
    document_id: Spelling
    data: bytes
    is_request: bool


@dataclass(frozen=True, slots=True)
class DocUnavailable:
    """The peer has no such document, or does not share it."""

    sender_id: str
    document_id: Spelling


@cheap
@dataclass(frozen=True, slots=True)
class Ephemeral:
    """A broadcast that is never stored. `count` grows per (sender, session) over all documents."""

    sender_id: str
    target_id: str
    document_id: Spelling
    session_id: str
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class RemoteSubscriptionChange:
    """The peer wants, or no longer wants, to hear of the heads of some storage ids."""

    sender_id: str
    add: tuple[str, ...]
    remove: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoteHeads:
    """Heads of one storage id as base58check texts; `timestamp` in ms of the reporter's clock."""

    storage_id: str
    heads: tuple[str, ...]
    timestamp: int


@dataclass(frozen=True, slots=True)
class RemoteHeadsChanged:
    """What the peer knows of other peers' heads of a document."""

    sender_id: str
    document_id: Spelling
    heads: tuple[RemoteHeads, ...]


Message = (
    Join
    | Leave
    | PeerError
    | Sync
    | DocUnavailable
    | Ephemeral
    | RemoteSubscriptionChange
    | RemoteHeadsChanged
)

"""A session without a socket, and what tests say to it and read of its effects."""

from typing import Any

import cbor2

from amsync.gateway.account import Account
from amsync.gateway.effects import Count, Forward, Send
from amsync.gateway.limits import Limits
from amsync.gateway.outbound import MESSAGE_TYPES, encode, is_droppable
from amsync.gateway.session import PeerSession, SessionSettings
from amsync.ids import (
    DocumentId,
    base58check_decode,
    shard_of,
)
from amsync.protocol.access import Access, Grant
from amsync.protocol.envelope import (
    Offer,
    SyncIn,
)

SHARDS = 8
DOCUMENT = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")
RAW = base58check_decode(DOCUMENT)
SHARD = shard_of(DOCUMENT, SHARDS)
WRITE, READ, NONE = Grant(Access.WRITE), Grant(Access.READ), Grant(Access.NONE)
ANNOUNCE = Grant(Access.WRITE, announce=True)


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


class Talk:
    """A session with its surroundings: what it is told, and what it wants done."""

    def __init__(
        self,
        *,
        grant: Grant | None = WRITE,
        joined: bool = True,
        announces: bool = False,
        storage_id: str | None = "server-storage",
        account: Account | None = None,
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
            may_announce=lambda _caller: announces,
        )
        self.account = account or Account("client", settings.limits, self.now)
        self.session = PeerSession(7, settings, self.account)
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
        shared = self.session.deliver(item, encode(item, "server"))
        assert not self.session.take_effects()
        return (
            [] if shared is None else [Send(MESSAGE_TYPES[type(item)], shared, is_droppable(item))]
        )

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


def in_use() -> Talk:
    talk = Talk()
    talk.request()
    return talk

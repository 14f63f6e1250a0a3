"""Any order of frames, decisions, deliveries and ends: the session raises nothing and stays true.

True means: its effects can be packed and sent; a shard hears `Open` first and `Close` last;
nothing but the end follows a close; nothing stays queued behind a decision that was made.
The input is a script: an opcode, then what it needs; see `one_input`. Run it with
`python tests/fuzz/run.py session`.
"""

from collections import deque

import cbor2

from amsync.gateway.account import Account
from amsync.gateway.effects import Ask, CloseSocket, Forward, Joined, Send
from amsync.gateway.limits import Limits
from amsync.gateway.outbound import MESSAGE_TYPES, encode
from amsync.gateway.session import PeerSession, SessionSettings
from amsync.ids import DocumentId
from amsync.protocol.access import Access, Grant
from amsync.protocol.codec import decode
from amsync.protocol.envelope import (
    Addressed,
    Close,
    EphemeralOut,
    HeadsOut,
    Offer,
    Open,
    SubscribeOut,
    SyncIn,
    SyncOut,
    UnavailableOut,
    pack_inbound,
    unpack_inbound,
)
from amsync.protocol.messages import Sync

DOCUMENTS = [
    DocumentId("4NMNnkMhL8jXrdJ9jamS58PAVdXu"),
    DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD"),
    DocumentId("2JWvEsPNY6Dd43oaUvGy73V2KgzE"),
]
SHARDS = 4
FRAME, TEXT, DECIDE, DELIVER, OFFER, RECHECK, WAIT, END = range(8)


class Script:
    """Reads a script; what is missing at its end is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.take(1)[0] if self.more() else 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken


class Harness:
    """One session, and the checks on everything that it wants done."""

    def __init__(self, mode: int) -> None:
        self.now = 0.0
        self.asked: deque[DocumentId] = deque()
        self.opened: set[int] = set()
        self.closed = self.ended = False
        self._mode = mode
        settings = SessionSettings(
            server_peer_id="server",
            storage_id=None if mode & 1 else "storage",
            shard_count=SHARDS,
            limits=Limits(max_documents_per_connection=3, creations_per_minute=mode & 2),
            decide=self._decide,
            may_announce=lambda _caller: bool(mode & 4),
        )
        self.session = PeerSession(7, settings, Account("client", settings.limits, 0.0))

    def _decide(self, _peer_id: str, document_id: DocumentId) -> Grant | None:
        if self._mode & 8:
            return None
        return Grant(Access(len(document_id) % 3), announce=bool(self._mode & 16))

    def check(self) -> None:
        for effect in self.session.take_effects():
            match effect:
                case Send(kind=kind, shared=shared):
                    self.check_sent(kind, shared)
                case Forward(shard=shard, item=item):
                    assert 0 <= shard < SHARDS
                    unpacked = unpack_inbound(pack_inbound("g", 1, 0.0, [item])).items[0]
                    assert type(unpacked) is type(item)
                    if isinstance(item, Open):
                        assert shard not in self.opened
                        self.opened.add(shard)
                    elif isinstance(item, Close):
                        self.opened.remove(shard)
                    else:
                        assert shard in self.opened
                        assert not self.closed
                case Ask(documents=documents):
                    self.asked.extend(documents)
                case Joined(peer_id=peer_id):
                    assert peer_id == self.session.peer_id
                case CloseSocket():
                    assert not self.closed
                    self.closed = True
                case _:
                    pass
        assert self.session.queued_bytes >= 0

    def check_sent(self, kind: str, shared: bytes) -> None:
        assert not self.ended
        assert not self.closed or kind == "error"
        sent = cbor2.loads(shared + self.session.target_suffix)
        assert sent["type"] == kind
        assert None not in sent.values()

    def receive(self, frame: bytes) -> None:
        """A sync message means what the decoder reads, whoever has read it."""
        self.session.receive(frame, self.now)
        for effect in self.session._effects:
            if isinstance(effect, Forward) and isinstance(effect.item, SyncIn) and effect.size:
                message = decode(frame)
                assert isinstance(message, Sync)
                assert message.sender_id == self.session.peer_id
                assert effect.item.data == message.data
                assert effect.item.is_request == message.is_request

    def decide(self, choice: int) -> None:
        if self.asked:
            grant = Grant(Access(choice % 3), bool(choice & 4), self.now + (choice >> 3))
            self.session.decided(self.asked.popleft(), grant, self.now)

    def deliver(self, kind: int, document_id: DocumentId) -> None:
        item: Addressed
        match kind % 5:
            case 0:
                item = SyncOut([7], document_id, b"data", bool(kind & 8))
            case 1:
                item = UnavailableOut([7], document_id)
            case 2:
                item = EphemeralOut([7], document_id, "other", "session", kind, b"data")
            case 3:
                item = HeadsOut([7], document_id, "other-storage", ["head"], kind)
            case _:
                item = SubscribeOut([7], ["add"], [])
        shared = self.session.deliver(item, encode(item, "server"))
        if shared is not None:
            self.check_sent(MESSAGE_TYPES[type(item)], shared)

    def end(self) -> None:
        self.session.disconnected()
        self.check()
        assert self.opened == set()
        self.closed = self.ended = True


def one_input(data: bytes) -> None:
    """Play one script."""
    script = Script(data)
    harness = Harness(script.byte())
    while script.more():
        match script.byte() % 8:
            case 0:
                length = int.from_bytes(script.take(2), "big")
                harness.receive(script.take(length))
            case 1:
                harness.session.receive_text()
            case 2:
                harness.decide(script.byte())
            case 3:
                kind, which = script.byte(), script.byte()
                harness.deliver(kind, DOCUMENTS[which % len(DOCUMENTS)])
            case 4:
                shard, count = script.byte() % SHARDS, script.byte() % 4
                if shard in harness.opened:  # others don't know the connection
                    harness.session.offered(shard, Offer(7, DOCUMENTS[:count]))
            case 5:
                harness.session.recheck(harness.now, everything=bool(script.byte() & 1))
            case 6:
                harness.now += script.byte()
            case _:
                harness.end()
        harness.check()
    while harness.asked:
        harness.decide(len(harness.asked))
        harness.check()
    if not harness.ended and harness.session.is_open:
        assert harness.session.queued_bytes == 0, "nothing is undecided, so nothing may wait"
    harness.end()

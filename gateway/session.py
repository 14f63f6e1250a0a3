"""One client's conversation: from the first frame to the last, without a socket.

Sans-IO. Frames, decisions, items of the bus and `now` in; effects out of `take_effects`.

States: JOINING (only a `join` is taken), OPEN, CLOSED. Invariants:
- After the join every message must carry the id that joined; others are dropped and counted
  (JavaScript clients gossip other people's broadcasts back, PROTOCOL 4.1).
- Per document, messages reach the shard in the order in which they came, and none before access
  was decided. None is dropped without doc-unavailable (PROTOCOL 0.1).
- Document ids are canonical behind this module; the client gets back its own spelling.
- A shard hears of the connection (`Open`) before anything else of it.

Long because the conversation is one state machine: states, documents, access and offers.
"""

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from amsync.errors import InvalidDocumentId, RemoteProtocolError
from amsync.gateway.account import Account
from amsync.gateway.caller import Caller, Proof, caller
from amsync.gateway.effects import (
    Ask,
    CloseReason,
    CloseSocket,
    Count,
    Effect,
    Forward,
    Joined,
    Send,
)
from amsync.gateway.limits import Limits
from amsync.gateway.opened import Known, OpenDocument, canonical
from amsync.gateway.outbound import encode
from amsync.gateway.shortcuts import Shortcuts
from amsync.ids import DocumentId, shard_of, shard_of_storage
from amsync.protocol import codec
from amsync.protocol.access import Access, Grant, strictest
from amsync.protocol.codec import UnknownMessageType
from amsync.protocol.envelope import (
    AccessIn,
    Addressed,
    Close,
    EphemeralIn,
    Greet,
    HeadsIn,
    Inbound,
    Offer,
    OfferDone,
    Open,
    Resume,
    SubscribeIn,
    SubscribeOut,
    SyncIn,
    SyncOut,
    UnavailableIn,
    UnavailableOut,
)
from amsync.protocol.messages import (
    PROTOCOL_VERSION,
    DocUnavailable,
    Ephemeral,
    Join,
    Leave,
    Message,
    PeerError,
    RemoteHeadsChanged,
    RemoteSubscriptionChange,
    Spelling,
    Sync,
)
from amsync.protocol.sync import is_answer, names_no_heads

MAX_JOIN_BYTES = 64 * 1024
MAX_SUBSCRIPTIONS = 1_000
LEARN_AT = 4
FEW_UNANSWERED = 4
"""Fewer messages than the worker's window: a client that is so close behind waits for nothing."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What all sessions of a gateway share.

    `decide` answers at once, or None: then the session emits `Ask`. `may_announce`: there may be
    documents that a caller is told of.
    """

    server_peer_id: str
    storage_id: str | None
    shard_count: int
    limits: Limits
    decide: Callable[[Caller, DocumentId], Grant | None]
    may_announce: Callable[[Caller], bool]


class _State(enum.Enum):
    JOINING = 1
    OPEN = 2
    CLOSED = 3


class PeerSession:
    """See the module's text.

    Args:
        connection: Number of this connection, unique within the gateway's incarnation.
        account: Shared by all connections of the client.
        proof: What the client's token has proved; None without authentication.
    """

    __slots__ = (
        "_account",
        "_canonical",
        "_documents",
        "_effects",
        "_last_broadcast",
        "_may_announce",
        "_offers",
        "_proof",
        "_settings",
        "_shards",
        "_shortcuts",
        "_state",
        "_storage_id",
        "_subscriptions",
        "caller",
        "connection",
        "peer_id",
        "queued_bytes",
        "target_suffix",
    )

    def __init__(
        self,
        connection: int,
        settings: SessionSettings,
        account: Account,
        proof: Proof | None = None,
    ) -> None:
        self.connection = connection
        self.peer_id: str | None = None
        self.caller = Caller("", None, "")
        self._proof = proof
        self.target_suffix = b""
        self.queued_bytes = 0
        self._settings = settings
        self._account = account
        self._state = _State.JOINING
        self._storage_id: str | None = None
        self._may_announce = False
        self._documents: dict[DocumentId, OpenDocument] = {}
        self._canonical: dict[Spelling, DocumentId] = {}
        self._shards: set[int] = set()
        self._subscriptions: dict[str, None] = {}
        self._offers: dict[int, set[DocumentId]] = {}
        self._last_broadcast: tuple[str, int] = ("", -1)
        self._effects: list[Effect] = []
        self._shortcuts: Shortcuts[Known] | None = None

    @property
    def is_open(self) -> bool:
        """The client has joined and is not closed."""
        return self._state is _State.OPEN

    @property
    def document_count(self) -> int:
        """Documents that this connection has open."""
        return len(self._documents)

    def take_effects(self) -> list[Effect]:
        """What has to be done since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    # -- from the socket

    def receive(self, frame: bytes, now: float) -> str:
        """Take a binary frame; returns its message type, for metrics."""
        if self._shortcuts is not None:
            known = self._shortcuts.find(frame)
            if known is not None and self._sync_again(known, len(frame), now):
                return "sync"
        if self._state is _State.CLOSED:
            return "after_close"
        if self._state is _State.JOINING and len(frame) > MAX_JOIN_BYTES:
            self._close(CloseReason.BAD_JOIN)
            return "oversized_join"
        try:
            message = codec.decode(frame)
        except UnknownMessageType:
            if self._state is _State.JOINING:
                self._close(CloseReason.NOT_JOIN)
            else:
                self._count("unknown_type")
            return "unknown"
        except RemoteProtocolError as error:
            # A lost sync message would become an endless loop; a new connection heals it.
            self._count(error.reason)
            joining = self._state is _State.JOINING and error.reason == "bad_field"
            self._close(CloseReason.BAD_JOIN if joining else CloseReason.BAD_FRAME)
            return "undecodable"
        if self._state is _State.JOINING:
            self._join(message)
        else:
            self._message(message, len(frame), now)
        if isinstance(message, Sync):
            if message.is_request:
                return "request"
            self._learn(frame, message)
            return "sync"
        return _TYPES[type(message)]

    def _learn(self, frame: bytes, message: Sync) -> None:
        """Have what a client repeats read faster, once it has said enough for it to pay.

        Tried again ever more seldom: a client may write in a way that can't be learnt.
        """
        document_id = self._canonical.get(message.document_id)
        if document_id is None or message.sender_id != self.peer_id:
            return
        document = self._documents[document_id]
        document.heard += 1
        often = document.heard >= LEARN_AT and document.heard & (document.heard - 1) == 0
        if often and document.grant is not None:
            self._shortcuts = self._shortcuts or Shortcuts()
            self._shortcuts.learn(frame, message, (document_id, document))

    def _sync_again(self, known: tuple[Known, bytes], size: int, now: float) -> bool:
        """Take a sync message like one that was taken before; False if it is not so simple."""
        (document_id, document), data = known
        grant = document.grant
        if grant is None or grant.access == Access.NONE or document.shard not in self._shards:
            return False
        access = int(grant.access)
        may_create = grant.may_create and (document.exists or self._reserve(document, now))
        item = SyncIn(self.connection, document_id, access, may_create, False, data)
        # The worker holds back what is new from those who have not answered for long.
        may_wait = document.unanswered < FEW_UNANSWERED and is_answer(data)
        document.unanswered = 0
        document.syncs, document.asks, document.told_unavailable = True, False, False
        self._effects.append(Forward(document.shard, item, size, may_wait))
        return True

    def receive_text(self) -> None:
        """Take a text frame: no client sends any."""
        self._close(CloseReason.TEXT_FRAME)

    def close(self, reason: CloseReason) -> None:
        """End the session from our side; `disconnected` still has to follow."""
        self._close(reason)

    def disconnected(self) -> None:
        """The socket is gone: tell every shard that knows the connection."""
        self._state = _State.CLOSED
        self._shortcuts = None
        for shard in sorted(self._shards):
            self._effects.append(Forward(shard, Close(self.connection), 0))
        self._shards.clear()
        self._account.documents -= len(self._documents)
        self._documents.clear()
        self._canonical.clear()

    # -- from access control

    def decided(self, document_id: DocumentId, grant: Grant, now: float) -> None:
        """Access to a document was decided, for the first time or anew."""
        if self._state is not _State.OPEN:
            return
        document = self._documents.get(document_id)
        if document is not None:
            self._granted(document_id, document, grant, now)
        for shard in [s for s, documents in self._offers.items() if document_id in documents]:
            self._offer_decided(shard, document_id, grant)

    def recheck(self, now: float, *, everything: bool = False) -> None:
        """Have decisions made again whose time has come, or all of them."""
        if self._state is not _State.OPEN:
            return
        due: list[DocumentId] = []
        for document_id, document in self._documents.items():
            grant = document.grant
            if grant is None:
                continue
            if not document.asking:
                if everything or grant.renew_at <= now or grant.expires_at <= now:
                    due.append(document_id)
            elif grant.renew_at < grant.expires_at <= now and grant.access > Access.NONE:
                # It was asked for in time, and whoever should answer does not.
                self._count("decision_late")
                self.restrict(document_id, Access.NONE, now)
        self._ask(due)

    def review(self, document_id: DocumentId | None) -> None:
        """Have the decision on one document made again, or on all: more may be allowed now."""
        if self._state is not _State.OPEN:
            return
        chosen = [document_id] if document_id is not None else list(self._documents)
        self._ask([d for d in chosen if d in self._documents and self._documents[d].grant])

    def restrict(self, document_id: DocumentId | None, most: Access, now: float) -> None:
        """Take from now on what is above `most`, of one document or all, until decided anew."""
        if self._state is not _State.OPEN:
            return
        chosen = [document_id] if document_id is not None else list(self._documents)
        for each in chosen:
            document = self._documents.get(each)
            if document is None or document.grant is None or document.grant.access <= most:
                continue
            is_asking = document.asking
            limit = Grant(most, announce=True)
            self._granted(each, document, strictest((document.grant, limit)), now)
            document.asking = is_asking

    # -- from the bus

    def deliver(self, item: Addressed, shared: bytes) -> bytes | None:
        """What is sent of an item of a shard to the client, or None; no effect.

        `shared` is the item encoded for the canonical spelling, by the caller for all of its
        connections at once; it is encoded here again if the client spells otherwise.
        """
        if self._state is not _State.OPEN:
            return None
        if isinstance(item, SubscribeOut):
            return shared
        document = self._documents.get(item.document_id)
        if document is None or (document.grant and document.grant.access == Access.NONE):
            return None  # access was lost while this was on its way
        document.unanswered += 1
        if isinstance(item, SyncOut):
            document.token = item.token
            document.may_be_lost = document.may_be_lost and not item.resets
            if document.asks and not names_no_heads(item.data):
                document.asks = False
            document.told_unavailable = False
        elif isinstance(item, UnavailableOut):
            document.told_unavailable = True
        if document.reserved_creation or not document.exists:
            self._settle(document, item)
        if document.spelling != item.document_id:
            return encode(item, self._settings.server_peer_id, document.spelling)
        return shared

    def _settle(self, document: OpenDocument, item: Addressed) -> None:
        """Settle a reserved creation: the document was made for us, was there, or isn't."""
        if isinstance(item, SyncOut):
            if names_no_heads(item.data):
                return  # it asks for what the client has offered: not settled yet
            document.exists = True
        if document.reserved_creation and isinstance(item, SyncOut | UnavailableOut):
            document.reserved_creation = False
            if not (isinstance(item, SyncOut) and item.created):
                self._account.creations.give_back()

    def offered(self, shard: int, offer: Offer) -> None:
        """A shard has documents that the client could be told of."""
        if self._state is not _State.OPEN:
            return
        unknown: list[DocumentId] = []
        self._offers[shard] = pending = set()
        for document_id in map(DocumentId, offer.documents):
            if document_id in self._documents or not self._has_room():
                continue
            grant = self._settings.decide(self.caller, document_id)
            if grant is None:
                pending.add(document_id)
                unknown.append(document_id)
            elif grant.announce:
                self._greet(shard, document_id, grant)
        if unknown:
            self._effects.append(Ask(tuple(unknown)))
        else:
            self._offer_done(shard)

    # -- joining

    def _join(self, message: Message) -> None:
        if not isinstance(message, Join):
            self._close(CloseReason.NOT_JOIN)
            return
        self.target_suffix = codec.target_suffix(message.sender_id)
        if PROTOCOL_VERSION not in message.versions:
            self._close(CloseReason.VERSION)
            return
        self.peer_id = message.sender_id
        self.caller = caller(message.sender_id, self._proof)
        if not message.is_ephemeral:
            self._storage_id = message.storage_id
        self._state = _State.OPEN
        settings = self._settings
        self._effects.append(Joined(message.sender_id))
        self._effects.append(
            Send("peer", codec.encode_peer(settings.server_peer_id, settings.storage_id))
        )
        self._may_announce = settings.may_announce(self.caller)
        if self._may_announce:
            for shard in range(settings.shard_count):
                self._introduce(shard)

    def _introduce(self, shard: int) -> None:
        if shard not in self._shards:
            self._shards.add(shard)
            self._effects.append(Forward(shard, self._introduction(), 0))

    def _introduction(self) -> Open:
        return Open(
            self.connection,
            self.peer_id or "",
            self._storage_id,
            self._may_announce,
            tuple(self._subscriptions),
            self.caller.identity_mark,
        )

    def hand_over(self, shard: int, *, may_be_lost: bool) -> list[Inbound]:
        """What a new owner of a shard has to know of this connection.

        `may_be_lost`: something that the client said may not have reached any owner.
        """
        if shard not in self._shards:
            return []
        self._offers.pop(shard, None)
        items: list[Inbound] = [self._introduction()]
        for document_id, document in self._documents.items():
            # Of one that waits for a decision the shard has heard nothing.
            if document.shard != shard or document.grant is None:
                continue
            document.may_be_lost = document.may_be_lost or may_be_lost
            grant = document.grant
            items.append(
                Resume(
                    self.connection,
                    document_id,
                    int(grant.access),
                    # Who asks for it may have it made, and only for that a creation is reserved.
                    grant.may_create
                    and (document.exists or document.reserved_creation or not document.asks),
                    document.syncs,
                    document.token,
                    document.may_be_lost,
                    document.asks,
                    document.told_unavailable,
                )
            )
        return items

    # -- messages

    def _message(self, message: Message, size: int, now: float) -> None:
        if isinstance(message, Join):
            self._close(CloseReason.SECOND_JOIN)
            return
        if message.sender_id != self.peer_id:
            # PeerError of samod has no sender; it only says that the socket closes.
            self._count("other_sender" if message.sender_id else "peer_error")
            return
        match message:
            case RemoteSubscriptionChange():
                self._subscribe(message, size)
            case Leave() | PeerError():
                self._count("peer_error" if isinstance(message, PeerError) else "leave")
            case Ephemeral() if not self._is_new(message):
                self._count("repeated_ephemeral")
            case _:
                self._document_message(message, size, now)

    def _is_new(self, message: Ephemeral) -> bool:
        session_id, count = self._last_broadcast
        if session_id == message.session_id and message.count <= count:
            return False
        self._last_broadcast = (message.session_id, message.count)
        return True

    def _document_message(
        self,
        message: Sync | DocUnavailable | Ephemeral | RemoteHeadsChanged,
        size: int,
        now: float,
    ) -> None:
        spelling = message.document_id
        document_id = self._canonical.get(spelling)
        if document_id is None:
            document_id = self._open_document(message, spelling)
            if document_id is None:
                return
        document = self._documents[document_id]
        if document.spelling != spelling:
            # One spelling at a time, or a client could grow the table with upper and lower case.
            self._canonical.pop(document.spelling, None)
            document.spelling = spelling
            self._shortcuts = None
        if document.grant is None:
            if document.queue is None:
                document.queue = deque()
            document.queue.append((message, size))
            self.queued_bytes += size
            self._ask([document_id])
        else:
            self._pass(document_id, document, message, size, now)

    def _open_document(self, message: Message, spelling: Spelling) -> DocumentId | None:
        try:
            document_id = canonical(spelling)
        except InvalidDocumentId:
            self._count("bad_document_id")
            self._refuse(message, spelling)
            return None
        if document_id not in self._documents:
            if not self._has_room():
                self._count("too_many_documents")
                self._refuse(message, spelling)
                return None
            grant = self._settings.decide(self.caller, document_id)
            shard = shard_of(document_id, self._settings.shard_count)
            self._documents[document_id] = OpenDocument(spelling, shard, grant)
            self._account.documents += 1
        self._canonical[spelling] = document_id
        return document_id

    def _has_room(self) -> bool:
        limits = self._settings.limits
        return (
            len(self._documents) < limits.max_documents_per_connection
            and self._account.documents < limits.max_documents_per_client
        )

    def _refuse(self, message: Message, spelling: Spelling) -> None:
        if isinstance(message, Sync) and len(spelling) <= codec.LARGE_FRAME_BYTES:
            me = self._settings.server_peer_id
            shared = codec.encode_doc_unavailable(me, spelling)
            self._effects.append(Send("doc-unavailable", shared))

    def _pass(
        self,
        document_id: DocumentId,
        document: OpenDocument,
        message: Message,
        size: int,
        now: float,
    ) -> None:
        assert document.grant is not None
        grant = document.grant
        if grant.access == Access.NONE:
            self._count("access_denied")
            self._refuse(message, document.spelling)
            return
        for number, item in enumerate(self._items(document_id, document, message, grant, now)):
            self._introduce(document.shard)
            self._effects.append(Forward(document.shard, item, size if number == 0 else 0))

    def _items(
        self,
        document_id: DocumentId,
        document: OpenDocument,
        message: Message,
        grant: Grant,
        now: float,
    ) -> list[Inbound]:
        match message:
            case Sync():
                document.syncs, document.told_unavailable = True, False
                document.asks = message.is_request or names_no_heads(message.data)
                may_create = grant.may_create and self._reserve(document, now)
                return [
                    SyncIn(
                        self.connection,
                        document_id,
                        int(grant.access),
                        may_create,
                        message.is_request,
                        message.data,
                    )
                ]
            case DocUnavailable():
                document.syncs = document.asks = False
                return [UnavailableIn(self.connection, document_id)]
            case Ephemeral():
                me = self._settings.server_peer_id
                target = None if message.target_id == me else message.target_id
                return [
                    EphemeralIn(
                        self.connection,
                        document_id,
                        message.session_id,
                        message.count,
                        message.data,
                        target,
                    )
                ]
            case RemoteHeadsChanged():
                return [
                    HeadsIn(self.connection, document_id, h.storage_id, h.heads, h.timestamp)
                    for h in message.heads
                ]
            case _:
                return []

    def _reserve(self, document: OpenDocument, now: float) -> bool:
        if document.exists or document.reserved_creation:
            return True
        document.reserved_creation = self._account.creations.take(now)
        if not document.reserved_creation:
            self._count("creation_rate")
        return document.reserved_creation

    def _subscribe(self, message: RemoteSubscriptionChange, size: int) -> None:
        known = self._subscriptions
        add = tuple(dict.fromkeys(s for s in message.add if s not in known))
        remove = tuple(dict.fromkeys(s for s in message.remove if s in known))
        if len(known) + len(add) > MAX_SUBSCRIPTIONS:
            self._count("too_many_subscriptions")
            return
        if not add and not remove:
            return
        known.update(dict.fromkeys(add))
        for storage_id in remove:
            del known[storage_id]
        count = self._settings.shard_count
        for shard in sorted({shard_of_storage(s, count) for s in (*add, *remove)}):
            self._introduce(shard)
        item = SubscribeIn(self.connection, add, remove)
        for shard in sorted(self._shards):  # each copy counts against the connection's bound
            self._effects.append(Forward(shard, item, size))

    # -- access

    def _ask(self, document_ids: list[DocumentId]) -> None:
        fresh = [d for d in document_ids if not self._documents[d].asking]
        for document_id in fresh:
            self._documents[document_id].asking = True
        if fresh:
            self._effects.append(Ask(tuple(fresh)))

    def _granted(
        self, document_id: DocumentId, document: OpenDocument, grant: Grant, now: float
    ) -> None:
        before, document.grant = document.grant, grant
        document.asking = False
        if before is not None and (
            before.access != grant.access or before.may_create != grant.may_create
        ):
            gained = before.access == Access.NONE
            if gained:
                self._introduce(document.shard)
                # It is greeted, and asked again for what was refused meanwhile.
                document.syncs = document.may_be_lost = True
            if document.shard in self._shards:
                item = AccessIn(self.connection, document_id, int(grant.access), grant.may_create)
                self._effects.append(Forward(document.shard, item, 0))
            if grant.access == Access.NONE:
                me = self._settings.server_peer_id
                shared = codec.encode_doc_unavailable(me, document.spelling)
                self._effects.append(Send("doc-unavailable", shared))
        while document.queue:
            message, size = document.queue.popleft()
            self.queued_bytes -= size
            self._pass(document_id, document, message, size, now)
        document.queue = None

    def _greet(self, shard: int, document_id: DocumentId, grant: Grant) -> None:
        self._documents[document_id] = OpenDocument(document_id, shard, grant, syncs=True)
        self._account.documents += 1
        self._canonical[document_id] = document_id
        item = Greet(self.connection, document_id, int(grant.access))
        self._effects.append(Forward(shard, item, 0))

    def _offer_decided(self, shard: int, document_id: DocumentId, grant: Grant) -> None:
        pending = self._offers[shard]
        pending.discard(document_id)
        if grant.announce and document_id not in self._documents and self._has_room():
            self._greet(shard, document_id, grant)
        if not pending:
            self._offer_done(shard)

    def _offer_done(self, shard: int) -> None:
        del self._offers[shard]
        self._effects.append(Forward(shard, OfferDone(self.connection), 0))

    # -- ends

    def _close(self, reason: CloseReason) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._shortcuts = None
        me = self._settings.server_peer_id
        self._effects.append(
            Send("error", codec.encode_error(me, reason.text, has_target=bool(self.target_suffix)))
        )
        self._effects.append(CloseSocket(reason))

    def _count(self, reason: str) -> None:
        self._effects.append(Count(reason))


_TYPES: dict[type, str] = {
    Join: "join",
    Leave: "leave",
    PeerError: "error",
    DocUnavailable: "doc-unavailable",
    Ephemeral: "ephemeral",
    RemoteSubscriptionChange: "remote-subscription-change",
    RemoteHeadsChanged: "remote-heads-changed",
}

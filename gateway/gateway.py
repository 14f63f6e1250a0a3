"""The gateway: listens, drives the sessions, and carries their effects out.

Holds no document and asks no worker: what a session wants forwarded goes to the router, what
the router delivers goes to the sessions. One tick a second looks after time: handshakes that
take too long, clients without a sign of life, decisions that have run out. Long because it
implements all of `ConnectionHost` and all effects of a session.
"""

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from websockets.http11 import Request, Response

from amsync.auth import Authenticator
from amsync.bus import Bus, Position
from amsync.errors import BusError, NoOwner, TooLarge
from amsync.gateway.access import AccessPolicy
from amsync.gateway.admission import Admission, AdmissionOptions
from amsync.gateway.calls import CALL_SECONDS, Calls
from amsync.gateway.connection import ClientConnection, Later
from amsync.gateway.departed import Departed
from amsync.gateway.effects import (
    Ask,
    CloseReason,
    CloseSocket,
    Count,
    Forward,
    Joined,
    Send,
)
from amsync.gateway.intake import Intake
from amsync.gateway.limits import Limits
from amsync.gateway.orders import Enforcer
from amsync.gateway.outbound import MESSAGE_TYPES, encode, is_droppable
from amsync.gateway.router import Router
from amsync.gateway.session import PeerSession, SessionSettings
from amsync.ids import DocumentId, shard_of
from amsync.metrics import Metrics
from amsync.protocol.envelope import (
    Call,
    EphemeralOut,
    HeadsOut,
    Inbound,
    Offer,
    Query,
    Reply,
    Stamped,
    SubscribeOut,
    SyncOut,
    UnavailableOut,
)
from amsync.protocol.orders import EVERYBODY
from amsync.turns import Turns, next_step

log = logging.getLogger("amsync.gateway")

TICK_SECONDS = 1.0
GOODBYE_SECONDS = 2.0
PING_SECONDS = 10.0
SILENCE_SECONDS = 30.0
NO_CONNECTION = 0
"""In place of a connection's number, of what none has sent."""

BOUNDS = frozenset({"too_many_documents", "too_many_subscriptions", "creation_rate"})
"""Refusals of a session that are logged: somebody wants more than it may have."""


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Where a gateway listens and whom it is to its clients.

    `hands_over`: shards change hands, as in a cluster. `trim_bytes`: see `Router`. `entry_bytes`:
    the largest entry that the bus could take; None for any.
    """

    host: str
    port: int
    server_peer_id: str
    storage_id: str | None
    shard_count: int
    limits: Limits
    admission: AdmissionOptions
    prefix: str
    incarnation: str
    tls: ssl.SSLContext | None = None
    hands_over: bool = False
    trim_bytes: int = 0
    entry_bytes: int | None = None


class Gateway:
    """See the module's text."""

    def __init__(
        self,
        bus: Bus,
        metrics: Metrics,
        policy: AccessPolicy,
        options: GatewayOptions,
        turns: Turns | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._turns = turns or Turns()
        self.incarnation = options.incarnation
        self.limits = options.limits
        self._bus, self._metrics, self._policy, self._options = bus, metrics, policy, options
        self._connections: dict[int, ClientConnection] = {}
        self._by_peer: dict[tuple[str, str], ClientConnection] = {}
        self._departed = Departed()
        self._next_number = 1
        self._to_flush: list[ClientConnection] = []
        self._calls = Calls(self._forward_call)
        self._silent_workers: Collection[str] = ()
        self.loop_lag_seconds = 0.0
        """How late the last tick was."""
        self._draining = False
        self._hurried = asyncio.Event()
        self._one_ended = asyncio.Event()
        self._came_in: dict[str, tuple[list[float], list[float]]] = {}
        self._server: asyncio.Server | None = None
        self._asks: asyncio.TaskGroup | None = None
        self._intake = Intake(
            options.limits, self._connections, offends=self._slowed_down, now=self._now
        )
        self._router = Router(
            bus,
            metrics,
            prefix=options.prefix,
            incarnation=options.incarnation,
            credit=self._intake.credit,
            deliver=self._deliver,
            turns=self._turns,
            hand_over=self._hand_over if options.hands_over else None,
            trim_bytes=options.trim_bytes,
        )
        self.orders = Enforcer(bus, options.prefix, self, policy, metrics)
        self._admission = Admission(
            options.limits,
            metrics,
            options.admission,
            authenticator,
            refused_now=self._refused_now,
            is_kicked=self.orders.refuses,
            in_background=self._in_background,
        )
        self._settings = SessionSettings(
            server_peer_id=options.server_peer_id,
            storage_id=options.storage_id,
            shard_count=options.shard_count,
            limits=options.limits,
            decide=policy.decide,
            may_announce=policy.may_announce,
        )

    # -- life

    async def listen(self) -> int:
        """Start to accept sockets; returns the port.

        Raises:
            OSError: The address can't be listened on.
        """
        try:
            self._server = await self._create_server(self._options.port)
            ports = self._ports()
            if len(ports) > 1:
                # A name with several addresses and port 0: each took another free port.
                self._server.close()
                self._server = await self._create_server(min(ports))
        except OSError as error:
            text = f"port {self._options.port} of {self._options.host}: {error.strerror or error}"
            raise OSError(error.errno, text) from error
        return min(self._ports())

    async def _create_server(self, port: int) -> asyncio.Server:
        return await asyncio.get_running_loop().create_server(
            self._new_connection,
            self._options.host,
            port,
            ssl=self._options.tls,
            ssl_handshake_timeout=self.limits.handshake_seconds if self._options.tls else None,
            backlog=1024,
        )

    def _ports(self) -> set[int]:
        assert self._server is not None
        return {each.getsockname()[1] for each in self._server.sockets}

    async def run(self) -> None:
        """Move messages until cancelled; `listen` may come before or after its start."""
        async with asyncio.TaskGroup() as group:
            self._asks = group
            group.create_task(self._router.run())
            group.create_task(self.orders.run())
            group.create_task(self._ticks())

    @property
    def is_accepting(self) -> bool:
        """New sockets are welcome."""
        return self._server is not None and not self._draining

    @property
    def connection_count(self) -> int:
        """Clients that have joined, and not ended."""
        return len(self._by_peer)

    @property
    def known_shards(self) -> int:
        """Shards of which the owner is known."""
        return self._router.known_shards

    @property
    def bus_refusal(self) -> str:
        """Why the bus takes nothing of what clients say, though it is there; "" if it does."""
        return self._router.refusal

    @property
    def stream(self) -> str:
        """Name of the stream that the workers write for this gateway."""
        return self._router.stream

    def refresh_metrics(self) -> None:
        """Bring those gauges up to date that cost something to keep so."""
        every = self._connections.values()
        undecided = sum(each.session.queued_bytes for each in every if each.session is not None)
        self._metrics.inbound_queue_bytes.set(self._intake.held_bytes + undecided)
        self._metrics.outbound_queue_bytes.set(sum(each.unsent_bytes for each in every))
        self._metrics.connections_paused.set(sum(each.is_paused for each in every))

    def bus_is_away(self, is_away: bool) -> None:
        """Read no socket, and let nobody in, while what clients say can't be passed on."""
        self._intake.stop(is_away)

    def send_away(self) -> None:
        """Close every socket: what clients say can't be passed on for too long."""
        for connection in list(self._connections.values()):
            self._close(connection, CloseReason.AWAY)

    def note_workers(self, living: Collection[str], silent: Collection[str]) -> None:
        """Forget workers that are not among the living, unless they own something still.

        `silent`: those that are, and were not heard of for some time.
        """
        self._router.forget_workers(living)
        self._silent_workers = {*silent, *(self._router.owners() - set(living))}

    def begin_again(self, incarnation: str, *, forgets_epochs: bool) -> None:
        """Go on under another incarnation: the workers took this one for dead; see `Router`."""
        self.incarnation = incarnation
        self._router.begin_again(incarnation, forgets_epochs=forgets_epochs)
        if forgets_epochs:
            self.orders.bus_was_emptied()

    async def drain(self, seconds: float) -> dict[int, Position]:
        """Refuse new sockets, close the others in random order, pass on what they sent.

        Returns the last position of each shard's stream that holds something of ours.
        """
        self._draining = True
        if self._server is not None:
            self._server.close()
        connections = list(self._connections.values())
        random.shuffle(connections)
        pause = seconds / max(1, len(connections))
        for connection in connections:
            self._close(connection, CloseReason.SHUTDOWN)
            if pause > 0.001 and not self._hurried.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurried.wait(), pause)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._all_gone()
        for connection in list(self._connections.values()):
            connection.abort(CloseReason.SHUTDOWN.label)
        await self._all_gone()
        return await self._router.flush()

    def hurry(self) -> None:
        """Close what a drain has not closed yet without further pauses."""
        self._hurried.set()

    async def abandon(self) -> None:
        """Cut every socket and stop listening: nobody is behind us any more."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        self._calls.give_up()
        for connection in list(self._connections.values()):
            connection.abort("failed")
        await self._all_gone()

    async def _all_gone(self) -> None:
        while self._connections:
            self._one_ended.clear()
            await self._one_ended.wait()

    # -- the application

    async def call(
        self,
        operation: str,
        document_id: DocumentId,
        payload: bytes = b"",
        seconds: float | None = CALL_SECONDS,
    ) -> Reply:
        """Ask the owner of a document for something, and wait for its answer.

        Raises:
            BusError, NoOwner: It can't be asked at the moment. Nothing was done.
            TooLarge: The bus could not take it.
            NoAnswer, AmsyncError: See `Calls`.
        """
        most = self._options.entry_bytes
        if most is not None and len(payload) > most:
            raise TooLarge(f"{len(payload):,} bytes are more than the {most:,} that fit the bus")
        shard = shard_of(document_id, self._options.shard_count)
        self._check_reachable(shard)
        return await self._calls.of_document(shard, operation, document_id, payload, seconds)

    async def query(self, shard: int, operation: str, payload: bytes = b"") -> Reply:
        """Ask the owner of a shard for something, and wait for its answer. Raises as `call`."""
        self._check_reachable(shard)
        return await self._calls.of_owner(shard, operation, payload)

    def owner(self, shard: int) -> str:
        """The worker that spoke last for a shard; "" if none has, or it was not heard of since."""
        owner = self._router.owner(shard)
        return "" if owner in self._silent_workers else owner

    @property
    def shard_count(self) -> int:
        """Of the volume."""
        return self._options.shard_count

    @property
    def is_clustered(self) -> bool:
        """Shards change hands, and an owner may be missing."""
        return self._options.hands_over

    def _check_reachable(self, shard: int) -> None:
        if self._intake.is_stopped:
            raise BusError("the bus is out of reach")
        if self._options.hands_over and not self.owner(shard):
            raise NoOwner(f"nobody owns shard {shard} at the moment")

    def refresh_access(self) -> None:
        """Forget remembered decisions and make those of open documents again."""
        self.orders.decide_anew(EVERYBODY)

    # -- for orders of operators

    def live(self) -> list[ClientConnection]:
        """Every socket, also those that have not joined."""
        return list(self._connections.values())

    def send_off(self, connection: ClientConnection, reason: CloseReason) -> None:
        """Close a connection, as an operator has ordered."""
        self._metrics.refusals.inc(reason.label)
        self._close(connection, reason)

    def carry_out(self, connection: ClientConnection) -> None:
        """Do what a session wants done."""
        self._carry_out(connection)

    def now(self) -> float:
        """The clock of grants."""
        return self._now()

    # -- ConnectionHost

    def _new_connection(self) -> ClientConnection:
        number = self._next_number
        self._next_number += 1
        return ClientConnection(self, number)

    def connected(self, connection: ClientConnection) -> None:
        """A socket is there."""
        self._connections[connection.number] = connection
        if not self._admission.connected(connection):
            # So many that not even a refusal can be afforded: each holds a file descriptor.
            self._metrics.handshakes.inc("cut")
            connection.abort("too_many_connections")

    def answer(self, connection: ClientConnection, request: Request) -> Response | Later | None:
        """Refuse cheaply what must not come in; None lets the upgrade go on."""
        return self._admission.answer(connection, request)

    def _refused_now(self) -> str:
        if self._draining:
            return "draining"
        return "bus_away" if self._intake.is_stopped else ""

    def upgraded(self, connection: ClientConnection) -> PeerSession:
        """Make the session of a new WebSocket."""
        self._metrics.handshakes.inc("accepted")
        account = connection.account
        assert account is not None
        connection.rate = self._intake.new_rate()
        return PeerSession(connection.number, self._settings, account, connection.proof)

    def received(self, connection: ClientConnection, data: bytes) -> None:
        """Take a message from a client."""
        session = connection.session
        if session is None:
            return
        now, size = self._now(), len(data)
        if not self._intake.pace(connection, size, now):
            session.close(CloseReason.OVER_LIMIT)
        kind = session.receive(data, now)
        cells = self._came_in.get(kind)
        if cells is None:
            cells = self._came_in[kind] = (
                self._metrics.messages.cell(kind, "in"),
                self._metrics.message_bytes.cell(kind, "in"),
            )
        cells[0][0] += 1
        cells[1][0] += size
        self._carry_out(connection)
        self._intake.took(connection, session)

    def _slowed_down(self, connection: ClientConnection) -> None:
        self._metrics.refusals.inc("slowed_down")
        self._admission.offends(connection, "slowed_down")

    def received_text(self, connection: ClientConnection) -> None:
        """Refuse a text frame."""
        if connection.session is not None:
            connection.session.receive_text()
            self._carry_out(connection)

    def want_flush(self, connection: ClientConnection) -> None:
        """Flush a connection at the end of this loop turn."""
        if not self._to_flush:
            self._turns.soon(self._flush)
        self._to_flush.append(connection)

    def ended(self, connection: ClientConnection, reason: str) -> None:
        """Forget a socket, and tell the shards."""
        self._connections.pop(connection.number, None)
        self._one_ended.set()
        self._admission.ended(connection)
        self._metrics.closes.inc(reason)
        session = connection.session
        if session is None:
            return
        if session.peer_id is not None:
            self._metrics.connections.dec()
            who = (session.caller.identity_key, session.peer_id)
            self._departed.left(who, self._now())
            if self._by_peer.get(who) is connection:
                del self._by_peer[who]
        session.disconnected()
        self._carry_out(connection)

    # -- effects

    def _carry_out(self, connection: ClientConnection) -> None:
        session = connection.session
        assert session is not None
        for effect in session.take_effects():
            match effect:
                case Forward():
                    size = effect.size
                    self._intake.holds(connection, size)
                    self._router.forward(
                        effect.shard, effect.item, connection.number, size, effect.may_wait
                    )
                case Send():
                    self._send(connection, session, effect)
                case Ask():
                    self._in_background(self._ask(connection, effect.documents))
                case Joined():
                    self._joined(connection, (session.caller.identity_key, effect.peer_id))
                case CloseSocket():
                    self._metrics.refusals.inc(effect.reason.label)
                    connection.close(effect.reason)
                case Count():
                    self._metrics.refusals.inc(effect.reason)
                    if effect.reason in BOUNDS:
                        self._admission.offends(connection, effect.reason)

    def _send(self, connection: ClientConnection, session: PeerSession, effect: Send) -> None:
        if connection.send(effect.shared, session.target_suffix, droppable=effect.droppable):
            self._metrics.messages.inc(effect.kind, "out")
            self._metrics.message_bytes.inc(effect.kind, "out", by=len(effect.shared))
        else:
            self._metrics.count("messages_unsent", effect.kind)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._asks is not None
        self._asks.create_task(work)

    def _joined(self, connection: ClientConnection, who: tuple[str, str]) -> None:
        """`who`: identity and peer id. Somebody else's peer id takes nothing from its owner."""
        self._metrics.connections.inc()
        connection.allow_large_messages()
        older = self._by_peer.get(who)
        self._by_peer[who] = connection
        if older is not None or self._departed.comes_back(who, self._now()):
            self._metrics.reconnects.inc()
        if older is not None and older is not connection:
            self._close(older, CloseReason.REPLACED)

    def _close(self, connection: ClientConnection, reason: CloseReason) -> None:
        """Close a connection without an `error` message: nothing is wrong with the client."""
        connection.close(reason)
        if connection.session is not None:
            connection.session.disconnected()
            self._carry_out(connection)

    async def _ask(self, connection: ClientConnection, documents: tuple[DocumentId, ...]) -> None:
        session = connection.session
        assert session is not None
        grants = await self._policy.ask(session.caller, documents)
        try:
            for document_id, grant in zip(documents, grants, strict=True):
                session.decided(document_id, grant, self._now())
            self._carry_out(connection)
            self._intake.throttle(connection)
        except Exception:
            self._internal_error(connection, "decide")

    def _hand_over(self, shard: int, may_be_lost: bool) -> list[Inbound]:
        sessions = [each.session for each in self._connections.values() if each.session is not None]
        items: list[Inbound] = [
            item
            for session in sessions
            if session.is_open
            for item in session.hand_over(shard, may_be_lost=may_be_lost)
        ]
        return [*items, *self._calls.of_shard(shard)]

    def _forward_call(self, shard: int, item: Call | Query, size: int) -> None:
        self._intake.holds_call(size)
        self._router.forward(shard, item, NO_CONNECTION, size)

    def _flush(self) -> None:
        connections, self._to_flush = self._to_flush, []
        for connection in connections:
            connection.flush()

    # -- back from the shards

    def _deliver(self, stamped: Stamped) -> None:
        item = stamped.item
        match item:
            case Reply():
                self._calls.answered(item)
            case Offer():
                connection = self._connections.get(item.connection)
                if connection is not None and connection.session is not None:
                    connection.session.offered(stamped.shard, item)
                    self._carry_out(connection)
            case SyncOut() | UnavailableOut() | EphemeralOut() | HeadsOut() | SubscribeOut():
                self._deliver_to_many(item)
            case _:
                pass  # Progress is the router's

    def _deliver_to_many(
        self, item: SyncOut | UnavailableOut | EphemeralOut | HeadsOut | SubscribeOut
    ) -> None:
        shared = encode(item, self._options.server_peer_id)
        droppable = is_droppable(item)
        sent = size = 0
        for number in item.connections:
            connection = self._connections.get(number)
            if connection is None or connection.session is None:
                continue
            session = connection.session
            try:
                own = session.deliver(item, shared)
                if own is None:
                    continue
                if connection.send(own, session.target_suffix, droppable=droppable):
                    sent += 1
                    size += len(own)
                else:
                    self._metrics.count("messages_unsent", MESSAGE_TYPES[type(item)])
            except Exception:
                self._internal_error(connection, "deliver")
        if sent:
            kind = MESSAGE_TYPES[type(item)]
            self._metrics.messages.inc(kind, "out", by=sent)
            self._metrics.message_bytes.inc(kind, "out", by=size)
            if isinstance(item, SyncOut) and item.edited_at:
                self._metrics.edit_to_peer_seconds.observe(max(0.0, time.time() - item.edited_at))

    def _internal_error(self, connection: ClientConnection, where: str) -> None:
        """A defect of ours: one connection pays for it, not all of them."""
        log.exception("a connection failed unexpectedly; it is cut", extra={"where": where})
        self._metrics.count("internal_errors", where)
        connection.abort("internal_error")

    # -- time

    async def _ticks(self) -> None:
        while True:
            self.loop_lag_seconds = await next_step(TICK_SECONDS)
            now = self._now()
            self._metrics.loop_lag_seconds.observe(self.loop_lag_seconds)
            if self._options.hands_over:
                self._router.nudge(now)
            for connection in list(self._connections.values()):
                self._look_after(connection, now)
            self._admission.prune()
            self._departed.prune(now)
            self.orders.tick()

    def _look_after(self, connection: ClientConnection, now: float) -> None:
        session = connection.session
        if session is None or session.peer_id is None:
            if now - connection.connected_at > self.limits.handshake_seconds:
                if session is None:
                    connection.abort(CloseReason.HANDSHAKE_TIMEOUT.label)
                else:
                    session.close(CloseReason.HANDSHAKE_TIMEOUT)
                    self._carry_out(connection)
            return
        if connection.proof is not None and now >= connection.proof.ends_at:
            self._metrics.refusals.inc(CloseReason.TOKEN_ENDED.label)
            self._close(connection, CloseReason.TOKEN_ENDED)
            return
        if not self._policy.is_constant:
            session.recheck(now)
            self._carry_out(connection)
        connection.note_progress(now)
        if connection.is_paused:
            return
        if now - connection.heard_at > SILENCE_SECONDS:
            self._metrics.refusals.inc(CloseReason.SILENT.label)
            connection.abort(CloseReason.SILENT.label)
        elif now - max(connection.heard_at, connection.pinged_at) > PING_SECONDS:
            connection.ping(now)

    def _now(self) -> float:
        return time.monotonic()  # the clock of grants; loops may have another

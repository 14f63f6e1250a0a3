"""When sockets are read: as fast as what they send is digested, and no faster than is allowed.

Three reasons not to read: a connection has too much under way to the shards, all together have,
or the bus is away; and a client that sends more than its pace allows is read later. Nothing is
lost by any of it, since the client's own socket fills up.
"""

import asyncio
from collections.abc import Callable, Mapping

from amsync.gateway.buckets import Rate
from amsync.gateway.connection import ClientConnection
from amsync.gateway.limits import Limits
from amsync.gateway.session import PeerSession


class Intake:
    """See the module's text.

    Args:
        connections: All there are, by number; looked at, not changed.
        offends: Called when a client begins to be read slower.
    """

    def __init__(
        self,
        limits: Limits,
        connections: Mapping[int, ClientConnection],
        *,
        offends: Callable[[ClientConnection], None],
        now: Callable[[], float],
    ) -> None:
        self._limits, self._connections = limits, connections
        self._offends, self._now = offends, now
        self._held_bytes = 0
        self._all_paused = False
        self.is_stopped = False

    @property
    def held_bytes(self) -> int:
        """Input that is under way to the shards."""
        return self._held_bytes

    def new_rate(self) -> Rate:
        """The pace of a new connection."""
        limits = self._limits
        return Rate(limits.messages_per_second, limits.bytes_per_second, self._now())

    def stop(self, is_stopped: bool) -> None:
        """Read no socket while what clients say can't be passed on."""
        self.is_stopped = is_stopped
        self._throttle_all()

    def holds(self, connection: ClientConnection, size: int) -> None:
        """So much of a connection's input is under way."""
        connection.uncredited_bytes += size
        self._held_bytes += size

    def holds_call(self, size: int) -> None:
        """So much of an operator's, or the application's, is under way."""
        self._held_bytes += size

    def credit(self, number: int, size: int) -> None:
        """So much of it was dealt with; the connection may be gone."""
        self._held_bytes -= size
        connection = self._connections.get(number)
        if connection is not None:
            connection.uncredited_bytes -= size
            self.throttle(connection)
        else:
            self._throttle_all()

    def took(self, connection: ClientConnection, session: PeerSession) -> None:
        """A message was taken: look whether there may be more."""
        if (
            connection.uncredited_bytes + session.queued_bytes > self._limits.inbound_bytes
            or self._held_bytes > self._limits.gateway_inbound_bytes
            or self._all_paused
            or connection.is_paused
        ):
            self.throttle(connection)

    def throttle(self, connection: ClientConnection) -> None:
        """Stop or go on reading a connection, as it has to be."""
        session = connection.session
        held = connection.uncredited_bytes + (session.queued_bytes if session else 0)
        if connection.is_paused:
            is_slowed = connection.slowed_until > self._now()
            if held <= self._limits.inbound_bytes // 2 and not self._all_paused and not is_slowed:
                connection.throttle(pause=False)
        elif held > self._limits.inbound_bytes or (self._all_paused and held):
            connection.throttle(pause=True)
        self._throttle_all()

    def _throttle_all(self) -> None:
        """Stop reading every socket while all together hold too much, or the bus is away."""
        limits = self._limits
        everything = self._held_bytes > limits.gateway_inbound_bytes or self.is_stopped
        if everything != self._all_paused and (
            everything or self._held_bytes <= limits.gateway_inbound_bytes // 2
        ):
            self._all_paused = everything
            now = self._now()
            for each in self._connections.values():
                if everything or (
                    each.uncredited_bytes <= limits.inbound_bytes // 2 and each.slowed_until <= now
                ):
                    each.throttle(pause=everything)

    def pace(self, connection: ClientConnection, size: int, now: float) -> bool:
        """A message has come: read the next one later if it is owed; False if that lasts too long.

        Who is told False has to be closed.
        """
        rate, account = connection.rate, connection.account
        assert rate is not None
        assert account is not None
        owed = max(rate.spend(size, now), account.rate.spend(size, now))
        return not owed or self._slow_down(connection, owed, now)

    def _slow_down(self, connection: ClientConnection, owed: float, now: float) -> bool:
        before = connection.slowed_until
        if now - before > Rate.BURST_SECONDS:
            connection.slowed_seconds = 0.0
        elif before <= now and connection.slowed_seconds > self._limits.patience_seconds:
            return False
        until = now + min(owed, self._limits.patience_seconds)
        connection.slowed_seconds += until - max(before, now)
        connection.slowed_until = until
        connection.throttle(pause=True)
        if before <= now:  # else what was read already adds to it
            self._offends(connection)
            asyncio.get_running_loop().call_later(until - now, self._go_on, connection)
        return True

    def _go_on(self, connection: ClientConnection) -> None:
        left = connection.slowed_until - self._now()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._go_on, connection)
        else:
            self.throttle(connection)

"""A lean Redis client: pipelined commands over one connection that comes back by itself.

Holds: a call whose answer did not come fails with BusError, and its outcome is unknown; nothing
is ever sent again; while Redis is away calls fail at once. What `call` gives is a plain future,
so it can be awaited where there is no task (`amsync.turns.Routine`). Nothing bounds the calls
outstanding but their callers, who wait for the answers.

Not here: Redis Cluster's redirections, what comes of subscriptions (`on_push`), RESP3.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from amsync.bus.redis.address import Address, Endpoint, parse
from amsync.bus.redis.scripts import Script
from amsync.bus.redis.wire import Argument, ReplyError, Wire, pack
from amsync.errors import BusError, ConfigError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
MOST_BACK_OFF_SECONDS = 1.0
FIRST_BACK_OFF_SECONDS = 0.05

_REFUSALS = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})


async def _nothing(_: Wire) -> None:
    return


class RedisClient:
    """The client. `start`, then `wait_connected`; `close` at the end.

    Args:
        url: See `address`.
        name: What CLIENT LIST shows, and the logs.
        answer_seconds: A call that waits longer for its answer loses the connection.
        prepare: Done with each new connection before calls may use it.
        on_push: For a connection that listens: gets what answers no call, see `Wire`.

    Attributes:
        on_change: Called on the loop when `is_connected` has changed. Must not raise.
        client_id: What Redis calls the present connection.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "amsync",
        answer_seconds: float = ANSWER_SECONDS,
        prepare: Callable[[Wire], Awaitable[None]] = _nothing,
        on_push: Callable[[Any], None] | None = None,
    ) -> None:
        self._address: Address = parse(url)
        self._name = name
        self._answer_seconds = answer_seconds
        self._prepare, self._on_push = prepare, on_push
        self._wire: Wire | None = None
        self._lost = asyncio.Event()
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._was_connected = False
        self._refusal: ConfigError | None = None
        self._failure: type[Exception] | None = None  # what the logs have said since it was lost
        self._away_since = 0.0
        self.client_id = 0
        self.on_change: Callable[[], None] = lambda: None

    @property
    def is_connected(self) -> bool:
        """Calls can be made."""
        return self._wire is not None

    @property
    def database(self) -> int:
        """Number of the server's database that its URL names."""
        return self._address.database

    def start(self) -> None:
        """Begin to connect, on the running loop."""
        self._away_since = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._stay_connected())

    async def wait_connected(self) -> None:
        """Wait until calls can be made; for tasks only.

        Raises:
            ConfigError: Before the first connection: Redis refuses our name and password, or its
            host's name can't be one.
            BusError: Closed.
        """
        await self._connected.wait()
        if self._is_closed:
            raise BusError("the Redis client is closed")
        if self._refusal is not None:
            raise self._refusal

    async def close(self) -> None:
        """Fail what is outstanding, and stop."""
        self._is_closed = True
        self._connected.set()
        wire = self._wire
        if wire is not None:
            wire.lose("closed by ourselves")
            await wire.is_closed
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def call(self, *command: Argument, wait_seconds: float = 0) -> asyncio.Future[Any]:
        """Send a command; the future gives its reply: bytes, int, None or a list of these.

        Args:
            wait_seconds: For a command that blocks: how long it may, beside `answer_seconds`.

        Raises:
            ReplyError: (from the future) Redis refused it.
            BusError: (from the future) Not connected; or the answer didn't come, and it is not
                known whether the command was done.
        """
        return self.call_many([command], wait_seconds)[0]

    def call_many(
        self, commands: Sequence[tuple[Argument, ...]], wait_seconds: float = 0
    ) -> list[asyncio.Future[Any]]:
        """`call` for several commands, sent together; each future must be awaited."""
        packed = b"".join([pack(command) for command in commands])
        return self.send(packed, len(commands), wait_seconds)

    def send(self, packed: bytes, count: int, wait_seconds: float) -> list[asyncio.Future[Any]]:
        """`call_many` for so many commands that are packed already."""
        if self._wire is not None:
            return self._wire.send(packed, count, wait_seconds)
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Any]] = [loop.create_future() for _ in range(count)]
        for answer in answers:
            answer.set_exception(BusError(f"Redis at {self._address} is out of reach"))
        return answers

    def post(self, packed: bytes) -> None:
        """Send commands whose answers are for `on_push`; nothing while not connected."""
        if self._wire is not None:
            self._wire.post(packed)

    def lose(self, reason: str) -> None:
        """Give the present connection up, if there is one; another one is made."""
        if self._wire is not None:
            self._wire.lose(reason)

    async def script(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Run a script; raises what `call` raises."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.call("EVALSHA", script.digest, *rest)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.call("EVAL", script.text, *rest)

    async def _stay_connected(self) -> None:
        failures = 0
        while not self._is_closed:
            try:
                wire = await self._connect()
            except (BusError, ConfigError, OSError, TimeoutError) as error:
                self._failed(error)
                failures += 1
                await asyncio.sleep(_back_off_seconds(failures))
                continue
            if self._is_closed:
                wire.lose("closed by ourselves")
                await wire.is_closed
                return
            began = time.monotonic()
            self._lost.clear()
            self._now_connected(wire)
            await self._lost.wait()
            failures = 0 if time.monotonic() - began > MOST_BACK_OFF_SECONDS else failures + 1
            if failures:
                await asyncio.sleep(_back_off_seconds(failures))

    async def _connect(self) -> Wire:
        async with asyncio.timeout(self._answer_seconds):
            endpoint = await self._address.find()
            wire = await self._open(endpoint)
            try:
                await self._log_in(wire, endpoint)
                await self._prepare(wire)
            except BaseException as error:
                wire.lose(f"not usable: {error}")
                await wire.is_closed
                raise
        if wire.lost_because is not None:
            raise BusError(wire.lost_because)
        return wire

    async def _open(self, endpoint: Endpoint) -> Wire:
        loop = asyncio.get_running_loop()

        def make() -> Wire:
            return Wire(self._wire_lost, self._answer_seconds, self._on_push)

        if endpoint.path:
            _, wire = await loop.create_unix_connection(make, endpoint.path)
            return wire
        try:
            _, wire = await loop.create_connection(
                make, endpoint.host, endpoint.port, ssl=self._address.tls
            )
        except UnicodeError as error:
            raise ConfigError(f"{endpoint.host!r} can't be the name of a host") from error
        return wire

    async def _log_in(self, wire: Wire, endpoint: Endpoint) -> None:
        address = self._address
        commands: list[tuple[Argument, ...]] = []
        if address.password is not None:
            user = (address.username,) if address.username else ()
            commands.append(("AUTH", *user, address.password))
        if address.database:
            commands.append(("SELECT", address.database))
        commands += [
            ("CLIENT", "SETNAME", self._name),
            ("CLIENT", "ID"),
            ("ROLE",),
            ("PING",),  # refused while it loads, unlike the others
        ]
        answers = wire.call_many(commands)
        await asyncio.gather(*answers, return_exceptions=True)  # a time limit cancels them all
        for error in [answer.exception() for answer in answers]:
            if isinstance(error, ReplyError) and _is_refusal(error):
                raise ConfigError(
                    f"Redis at {endpoint} refuses to serve us: {error}; check user, password"
                    " and database of its URL"
                )
        *_, client_id, role, _ = [answer.result() for answer in answers]
        if role[0] != b"master":
            raise BusError(f"Redis at {endpoint} is no master but a {role[0].decode()}")
        self.client_id = client_id

    def _now_connected(self, wire: Wire) -> None:
        self._wire, self._refusal, self._failure = wire, None, None
        if self._was_connected:
            away = time.monotonic() - self._away_since
            logger.info(
                "Redis is back", extra={"redis_client": self._name, "seconds": round(away, 3)}
            )
        self._was_connected = True
        self._connected.set()
        self.on_change()

    def _wire_lost(self, wire: Wire, reason: str) -> None:
        if wire is not self._wire:
            return  # it was never used
        self._wire = None
        self._away_since = time.monotonic()
        if not self._is_closed:
            self._connected.clear()
            logger.warning("Redis was lost", extra={"redis_client": self._name, "error": reason})
        self._lost.set()
        self.on_change()

    def _failed(self, error: Exception) -> None:
        """Say once why it can't be reached, and to who waits for the first time, a refusal."""
        if type(error) is not self._failure:
            self._failure = type(error)
            why = str(error) or f"no answer for {self._answer_seconds:g} s"  # of a TimeoutError
            extra = {"redis_client": self._name, "redis": str(self._address), "error": why}
            logger.warning("Redis can't be reached, trying on", extra=extra)
        if isinstance(error, ConfigError) and not self._was_connected:
            self._refusal = error
            self._connected.set()


def _is_refusal(error: ReplyError) -> bool:
    """Trying again won't help, unlike with `ERR max number of clients reached`."""
    text = str(error)
    return error.code in _REFUSALS or "ERR AUTH" in text or "ERR DB index" in text


def _back_off_seconds(failures: int) -> float:
    most: float = min(MOST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** min(failures - 1, 10))
    return most * random.uniform(0.5, 1)  # noqa: S311 - spreads reconnects, no secret

"""The keys of an issuer that is asked for them: fetched in a task, kept, served when it is down.

At most one fetch of an issuer is under way, whoever asked for it.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable

from amsync.auth.fetch import Fetched, FetchFailed
from amsync.auth.freshness import Freshness
from amsync.auth.keys import KeySet
from amsync.seldom import Seldom

log = logging.getLogger("amsync.auth")

WAIT_SECONDS = 15.0
"""How long a client is kept waiting for a fetch."""


class RemoteKeys:
    """The keys of one issuer, for the loop's thread. `start` before, `close` after."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[Fetched]],
        *,
        max_stale_seconds: float,
        clock: Callable[[], float],
        count: Callable[[str, str], None],
    ) -> None:
        """Begin without keys.

        Args:
            name: The issuer's, for logs.
            fetch: Raises FetchFailed.
            clock: Monotonic.
        """
        self._name, self._fetch = name, fetch
        self._clock, self._count = clock, count
        self._freshness = Freshness(max_stale_seconds, random.random)
        self._keys: KeySet | None = None
        self.tenants: str | None = None
        self._wake = asyncio.Event()
        self._round: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._may_warn = Seldom(60.0, clock)
        self._is_failing = False

    def start(self) -> None:
        """Begin to fetch keys, at once and then whenever it is due or asked for."""
        self._task = asyncio.create_task(self._run(), name="amsync-auth-keys")

    async def close(self) -> None:
        """End fetching; whoever waits for a fetch goes on without."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._end_round()

    def current(self) -> KeySet | None:
        """The keys to be used now; None: there are none yet, or only too old ones."""
        now = self._clock()
        if now >= self._freshness.due_at:
            self._wake.set()  # `run` sleeps by another clock, which a machine's sleep stops
        return self._keys if self._freshness.is_usable(now) else None

    def may_help(self) -> bool:
        """Tell whether it is worth to `refresh`, or too early for that."""
        if self._task is None:
            return False
        if self._round is not None:
            return True
        now = self._clock()
        return now >= self._freshness.due_at or self._freshness.may_ask(now)

    async def refresh(self) -> None:
        """Have the keys fetched, and wait for it; the fetch may fail."""
        if self._task is None:
            return
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
            self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                await asyncio.shield(self._round)

    async def _run(self) -> None:
        while True:
            await self._sleep()
            await self._fetch_once()

    async def _sleep(self) -> None:
        while self._round is None and (pause := self._freshness.due_at - self._clock()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _fetch_once(self) -> None:
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        self._freshness.begins(self._clock())
        try:
            fetched = await self._fetch()
        except FetchFailed as error:
            self._fail(error.label, str(error))
        except Exception as error:  # the task must go on: nobody else fetches
            self._fail("internal", type(error).__name__)
        else:
            self._take(fetched)
        finally:
            self._end_round()

    def _end_round(self) -> None:
        if self._round is not None and not self._round.done():
            self._round.set_result(None)
        self._round = None

    def _take(self, fetched: Fetched) -> None:
        self._keys, self.tenants = fetched.keys, fetched.tenants
        self._freshness.succeeded(self._clock(), fetched.max_age)
        self._count("auth_key_fetches", "ok")
        fields = {
            "issuer": self._name,
            "count": len(fetched.keys),
            "unusable_count": fetched.unusable_count,
        }
        if not len(fetched.keys):
            log.warning("an issuer has no key that can be used", extra=fields)
        elif self._is_failing:
            log.info("an issuer's keys are there again", extra=fields)
        self._is_failing = False

    def _fail(self, label: str, detail: str) -> None:
        self._freshness.failed(self._clock())
        self._count("auth_key_fetches", label)
        self._is_failing = True
        if self._may_warn():
            log.warning(
                "an issuer's keys can't be fetched; those that are known are used on",
                extra={"issuer": self._name, "reason": label, "error": detail},
            )

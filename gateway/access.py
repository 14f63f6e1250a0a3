"""Who may do what with a document: the `share` of the operator, asked and remembered.

A constant `share` is answered at once. A callable is asked per (peer, document), plain ones in
a thread, and its answer is kept for 30 s. Whatever goes wrong on the way refuses: an exception,
a time-out, an answer that is no `Share`.
"""

import asyncio
import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from amsync.errors import ConfigError
from amsync.gateway.caller import Caller
from amsync.ids import DocumentId
from amsync.metrics import Metrics
from amsync.protocol.access import Grant, Share, grant_of
from amsync.threads import DaemonThreads

log = logging.getLogger("amsync.gateway")

LIFETIME_SECONDS = 30.0
TIMEOUT_SECONDS = 10.0
MAX_REMEMBERED = 100_000
MAX_AT_ONCE = 16
MAX_OF_ONE_PEER = 4

ShareCallable = Callable[..., Any]
"""(client_id, document_id) or (client_id, document_id, identity) -> Share, plain or async."""

_CONSTANTS = {None: Share.ALLOW, True: Share.ANNOUNCE, False: Share.DENY}


def parse_share(share: Share | bool | ShareCallable | None) -> Share | ShareCallable:
    """Check what was given as `share`.

    Raises:
        ConfigError: It is neither a Share, None, True, False nor a callable.
    """
    if isinstance(share, Share):
        return share
    if share is None or isinstance(share, bool):
        return _CONSTANTS[share]
    if callable(share):
        _takes_identity(share)
        return share
    raise ConfigError(
        f"share={share!r} is not allowed; give Share.ALLOW, Share.ANNOUNCE, Share.DENY"
        " or a callable (client_id, document_id)"
    )


def _takes_identity(share: ShareCallable) -> bool:
    try:
        signature = inspect.signature(share)
    except (TypeError, ValueError):  # some builtins have none
        return False
    for arguments in ((None, None, None), (None, None)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 3
    raise ConfigError(
        f"share={share!r} must take (client_id, document_id) or (client_id, document_id,"
        f" identity), not {signature}"
    )


class _Place:
    """The turn of one peer: a few of its documents at a time, so that others get theirs."""

    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(MAX_OF_ONE_PEER)
        self.users = 0


class AccessPolicy:
    """Decides on (caller, document); see the module's text."""

    def __init__(
        self,
        share: Share | ShareCallable,
        metrics: Metrics,
        *,
        lifetime_seconds: float = LIFETIME_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._metrics = metrics
        self._lifetime, self._timeout, self._clock = lifetime_seconds, timeout_seconds, clock
        self._remembered: OrderedDict[tuple[str, DocumentId], Grant] = OrderedDict()
        self._threads = DaemonThreads(MAX_AT_ONCE, "amsync-share")
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._of_peers: dict[str, _Place] = {}
        self._generation = 0
        self._constant = grant_of(share) if isinstance(share, Share) else None
        self.is_constant = isinstance(share, Share)
        self.may_announce = share is Share.ANNOUNCE or not isinstance(share, Share)

    def decide(self, caller: Caller, document_id: DocumentId) -> Grant | None:
        """What is known now, or None: then `ask`."""
        if self._constant is not None:
            return self._constant
        grant = self._remembered.get((caller.key, document_id))
        return grant if grant is not None and grant.expires_at > self._clock() else None

    async def ask(self, caller: Caller, document_ids: Sequence[DocumentId]) -> list[Grant]:
        """Decide on documents, in order; never raises but when cancelled."""
        place = self._of_peers.setdefault(caller.key, _Place())
        place.users += 1
        try:
            return await asyncio.gather(*(self._ask(place, caller, d) for d in document_ids))
        finally:
            place.users -= 1
            if place.users == 0:
                self._of_peers.pop(caller.key, None)

    def refresh(self) -> None:
        """Forget every remembered decision, also those that are being made."""
        self._generation += 1
        self._remembered.clear()

    def close(self) -> None:
        """Let go of the threads; one whose callable hangs ends with the process."""
        self._threads.close()

    async def _ask(self, place: _Place, caller: Caller, document_id: DocumentId) -> Grant:
        async with place.turn, self._places:
            while True:
                known = self.decide(caller, document_id)
                if known is not None:
                    return known
                generation = self._generation
                share = await self._call(caller, document_id)
                if generation == self._generation:
                    break  # else it may have answered by what is no longer true
        grant = grant_of(share, expires_at=self._clock() + self._lifetime)
        self._remembered[caller.key, document_id] = grant
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return grant

    async def _call(self, caller: Caller, document_id: DocumentId) -> Share:
        arguments: tuple[Any, ...] = (caller.peer_id, document_id)
        share = self._share
        assert not isinstance(share, Share)
        if _takes_identity(share):
            arguments = (*arguments, caller.identity)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._answer(share, arguments)
        except TimeoutError:
            return self._refuse("time-out", f"no answer within {self._timeout:g} s")
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise  # it is we who are cancelled, not something that the callable awaits
            return self._refuse("exception", f"{type(error).__name__}: {error}")
        if isinstance(answer, Share):
            return answer
        if answer is None or isinstance(answer, bool):
            return _CONSTANTS[answer]
        return self._refuse("bad_answer", f"it answered a {type(answer).__name__}")

    async def _answer(self, share: ShareCallable, arguments: tuple[Any, ...]) -> Any:
        if inspect.iscoroutinefunction(share) or inspect.iscoroutinefunction(
            getattr(share, "__call__", None)  # noqa: B004 - an instance with an async __call__
        ):
            return await share(*arguments)
        answer = await self._threads.run(lambda: share(*arguments))
        return await answer if inspect.isawaitable(answer) else answer

    def _refuse(self, label: str, what: str) -> Share:
        self._metrics.count("share_refused", label)
        log.warning("share callable failed; access is refused", extra={"what": what})
        return Share.DENY

"""Asks everybody who has a say on (caller, document), and keeps the strictest of what they said.

What costs nothing is asked first: a constant `share`, the claims of the token. Callables and the
webhook are asked only where these leave something to forbid, a few at a time, and for one
caller fewer, so that others get their turn.

A decision is good for as long as those who made it said, and is renewed shortly before its end
where it is in use. Whoever can't be asked then may be asked again until that end; at it, and
where there was no decision, it counts as a no, for 5 s: an outage ends soon after it is over,
and is no storm of questions while it lasts.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from amsync.gateway.access.callables import (
    MAX_AT_ONCE,
    SHARE_TIMEOUT_SECONDS,
    CheckSource,
    ShareCallable,
    ShareSource,
)
from amsync.gateway.access.claims import Claims
from amsync.gateway.access.config import LIFETIME_SECONDS, AccessConfig, Decision
from amsync.gateway.access.source import Source, SourceFailed
from amsync.gateway.access.webhook import WebhookSource
from amsync.gateway.caller import Caller
from amsync.ids import DocumentId
from amsync.metrics import Metrics
from amsync.protocol.access import UNLIMITED, Access, Grant, Share, grant_of, strictest
from amsync.seldom import Seldom

log = logging.getLogger("amsync.gateway")

FAILURE_SECONDS = 5.0
MAX_REMEMBERED = 100_000
MAX_OF_ONE_CALLER = 4


class _Place:
    """The turn of one caller: a few of its documents at a time."""

    def __init__(self) -> None:
        self.turn = asyncio.Semaphore(MAX_OF_ONE_CALLER)
        self.users = 0


class AccessPolicy:
    """See the module's text. `close` it.

    Args:
        lifetime_seconds: Of answers that don't say how long they are good.
        timeout_seconds: Of the callables.

    Attributes:
        limit: What operators' orders leave a caller of a document, beside everything else.
        is_constant: Decisions end only by such orders.

    Raises:
        ConfigError: The webhook's `ca` can't be used.
    """

    def __init__(
        self,
        share: Share | ShareCallable,
        metrics: Metrics,
        access: AccessConfig | None = None,
        *,
        lifetime_seconds: float = LIFETIME_SECONDS,
        timeout_seconds: float = SHARE_TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        access = access or AccessConfig()
        self._metrics, self._lifetime, self._clock = metrics, lifetime_seconds, clock
        self._share = grant_of(share) if isinstance(share, Share) else UNLIMITED
        self._claims: Claims | None = None
        if access.claim is not None:
            self._claims = Claims(
                access.claim, partial(metrics.access_failures.inc, "claim"), clock
            )
        self._sources: list[Source] = []
        if not isinstance(share, Share):
            self._sources.append(ShareSource(share, timeout_seconds))
        if access.check is not None:
            self._sources.append(CheckSource(access.check, timeout_seconds))
        if access.webhook is not None:
            self._sources.append(WebhookSource(access.webhook))
        self._kept: OrderedDict[tuple[str, DocumentId], tuple[Grant, str]] = OrderedDict()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)
        self._of_callers: dict[str, _Place] = {}
        self._generation = 0
        self._may_warn = {each.name: Seldom(60.0, clock) for each in self._sources}
        self.is_constant = not self._sources
        self.limit: Callable[[Caller, DocumentId], Access] = lambda _caller, _id: Access.WRITE

    def may_announce(self, caller: Caller) -> bool:
        """There may be documents that the caller is to be told of."""
        return self._share.announce and (self._claims is None or self._claims.may_announce(caller))

    def decide(self, caller: Caller, document_id: DocumentId) -> Grant | None:
        """What is known now, or None: then `ask`."""
        grant = self._known(caller, document_id)
        if grant is None or grant.expires_at <= self._clock():
            return None
        self._decided("known", grant.access)
        return self._limited(caller, document_id, grant)

    async def ask(self, caller: Caller, document_ids: Sequence[DocumentId]) -> list[Grant]:
        """Decide on documents, in order; never raises but when cancelled."""
        place = self._of_callers.setdefault(caller.key, _Place())
        place.users += 1
        try:
            grants = await asyncio.gather(*(self._ask(place, caller, d) for d in document_ids))
        finally:
            place.users -= 1
            if place.users == 0:
                self._of_callers.pop(caller.key, None)
        # At the last moment: an order that comes meanwhile counts.
        pairs = zip(document_ids, grants, strict=True)
        return [self._limited(caller, document_id, grant) for document_id, grant in pairs]

    def refresh(self, identity_key: str | None = None) -> None:
        """Forget decisions, of one identity or all, also those that are being made."""
        self._generation += 1
        if identity_key is None:
            self._kept.clear()
            return
        for key in [key for key, (_, whose) in self._kept.items() if whose == identity_key]:
            del self._kept[key]

    async def close(self) -> None:
        """Let go of threads and connections."""
        for each in self._sources:
            await each.close()

    # -- one document

    def _at_once(self, caller: Caller, document_id: DocumentId) -> Grant:
        """What those say who needn't be waited for."""
        if self._claims is None:
            return self._share
        return strictest((self._share, self._claims.decide(caller, document_id)))

    def _known(self, caller: Caller, document_id: DocumentId) -> Grant | None:
        grant = self._at_once(caller, document_id)
        if not self._sources or grant.access is Access.NONE:
            return grant
        kept = self._kept.get((caller.key, document_id))
        return None if kept is None else kept[0]

    def _decided(self, source: str, access: Access) -> None:
        self._metrics.access_decisions.inc(source, access.name.lower())

    def _limited(self, caller: Caller, document_id: DocumentId, grant: Grant) -> Grant:
        most = self.limit(caller, document_id)
        if grant.access <= most:
            return grant
        return strictest((grant, Grant(most, announce=True)))

    async def _ask(self, place: _Place, caller: Caller, document_id: DocumentId) -> Grant:
        async with place.turn, self._places:
            while True:
                known = self._known(caller, document_id)
                if known is not None and known.renew_at > self._clock() < known.expires_at:
                    return known
                generation = self._generation
                grant = await self._consult(caller, document_id, known)
                if generation == self._generation:
                    break  # else it may have been made of what is no longer true
        self._kept[caller.key, document_id] = (grant, caller.identity_key)
        self._kept.move_to_end((caller.key, document_id))
        while len(self._kept) > MAX_REMEMBERED:
            self._kept.popitem(last=False)
        return grant

    async def _consult(self, caller: Caller, document_id: DocumentId, last: Grant | None) -> Grant:
        """Ask until somebody says no; `last` is the decision that there was, maybe over."""
        grant = self._at_once(caller, document_id)
        for source in self._sources:
            if grant.access is Access.NONE:
                break
            try:
                decision = await self._opinion(source, caller, document_id)
            except SourceFailed as failure:
                return strictest((grant, self._after_failure(source, failure, last)))
            self._decided(source.name, decision.access)
            grant = strictest((grant, self._granted(source, decision)))
        return grant

    async def _opinion(self, source: Source, caller: Caller, document_id: DocumentId) -> Decision:
        try:
            async with asyncio.timeout(source.timeout_seconds):
                return await source.ask(caller, document_id)
        except TimeoutError:
            what = f"no answer within {source.timeout_seconds:g} s"
            raise SourceFailed("time-out", what) from None
        except SourceFailed:
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise  # it is we who are cancelled, not something that a callable awaits
            raise SourceFailed("exception", f"{type(error).__name__}: {error}"[:200]) from None

    def _granted(self, source: Source, decision: Decision) -> Grant:
        lifetime = decision.lifetime_seconds or self._lifetime
        end = self._clock() + lifetime
        # So early that the next one is there in time, unless nothing could be lost by waiting.
        ahead = min(lifetime / 2, source.timeout_seconds + 1)
        renew_at = end - ahead if decision.access > Access.NONE else end
        return Grant(decision.access, decision.announce, end, decision.create, renew_at)

    def _after_failure(self, source: Source, failure: SourceFailed, last: Grant | None) -> Grant:
        self._metrics.access_decisions.inc(source.name, "failed")
        self._metrics.access_failures.inc(source.name, failure.label)
        if self._may_warn[source.name]():
            log.warning(
                "who decides on access can't be asked; it counts as a no",
                extra={"source": source.name, "reason": failure.label, "error": str(failure)},
            )
        now = self._clock()
        again_at = now + FAILURE_SECONDS
        if last is not None and last.expires_at > now:
            return replace(last, renew_at=min(again_at, last.expires_at))
        return Grant(Access.NONE, expires_at=again_at, renew_at=again_at)

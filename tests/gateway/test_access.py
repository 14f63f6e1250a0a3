"""What `share` may be, what it means, and that whatever goes wrong refuses."""

import asyncio
import functools
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from amsync import Share
from amsync.errors import ConfigError
from amsync.gateway.access import AccessPolicy, callables, parse_share
from amsync.gateway.access import policy as access
from amsync.gateway.caller import caller
from amsync.ids import DocumentId, generate_document_id
from amsync.metrics import Metrics
from amsync.protocol.access import Access, Grant, grant_of

PEER, OTHER = caller("peer", None), caller("other", None)

DOCUMENT = generate_document_id()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refused(metrics: Metrics, label: str) -> float:
    labels = {"source": "share", "reason": label}
    return metrics.registry.get_sample_value("amsync_access_failures_total", labels) or 0.0


def run(
    share: Any,
    scenario: Callable[[AccessPolicy, Metrics, Clock], Coroutine[Any, Any, Any]],
    **options: Any,
) -> Any:
    async def main() -> Any:
        metrics, clock = Metrics(), Clock()
        policy = AccessPolicy(parse_share(share), metrics, clock=clock, **options)
        try:
            return await scenario(policy, metrics, clock)
        finally:
            await policy.close()

    return asyncio.run(main())


def ask_once(share: Any, **options: Any) -> Grant:
    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> Grant:
        assert policy.decide(PEER, DOCUMENT) is None
        (grant,) = await policy.ask(PEER, [DOCUMENT])
        return grant

    grant = run(share, scenario, **options)
    assert isinstance(grant, Grant)
    return grant


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, Share.ALLOW),
        (True, Share.ANNOUNCE),
        (False, Share.DENY),
        *((share, share) for share in Share),
    ],
)
def test_constants(given: Any, expected: Share) -> None:
    assert parse_share(given) is expected


@pytest.mark.parametrize(
    ("share", "rights", "announces"),
    [
        (Share.ALLOW, Access.WRITE, False),
        (Share.ANNOUNCE, Access.WRITE, True),
        (Share.DENY, Access.NONE, False),
    ],
)
def test_constants_are_decided_at_once(share: Share, rights: Access, announces: bool) -> None:
    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        grant = policy.decide(PEER, DOCUMENT)
        assert grant == Grant(rights, announces)
        assert await policy.ask(PEER, [DOCUMENT]) == [grant]
        assert policy.may_announce(PEER) is announces

    run(share, scenario)


@pytest.mark.parametrize("given", ["allow", 1, 0, [], {}, object()])
def test_other_values_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"Share\.ALLOW"):
        parse_share(given)


@pytest.mark.parametrize(
    "given",
    [lambda: None, lambda a: None, lambda a, b, c, d: None, lambda a, b, *, c: None],
    ids=["0", "1", "4", "keyword"],
)
def test_callable_of_the_wrong_shape_is_refused_at_once(given: Any) -> None:
    with pytest.raises(ConfigError, match="must take"):
        parse_share(given)


def two(peer_id: str, document_id: str) -> Share:
    assert (peer_id, document_id) == ("peer", DOCUMENT)
    return Share.ANNOUNCE


def three(peer_id: str, document_id: str, identity: object) -> Share:
    assert identity is None
    return two(peer_id, document_id)


def defaulted(peer_id: str, document_id: str, identity: object = "default") -> Share:
    return three(peer_id, document_id, identity)


def anything(*arguments: Any) -> Share:
    return three(*arguments)


async def two_async(peer_id: str, document_id: str) -> Share:
    await asyncio.sleep(0)
    return two(peer_id, document_id)


async def three_async(peer_id: str, document_id: str, identity: object) -> Share:
    return three(peer_id, document_id, identity)


class Method:
    def two(self, peer_id: str, document_id: str) -> Share:
        return two(peer_id, document_id)

    async def three(self, peer_id: str, document_id: str, identity: object) -> Share:
        return three(peer_id, document_id, identity)

    def __call__(self, peer_id: str, document_id: str) -> Share:
        return two(peer_id, document_id)


class AsyncCall:
    async def __call__(self, peer_id: str, document_id: str, identity: object) -> Share:
        return three(peer_id, document_id, identity)


def gives_coroutine(peer_id: str, document_id: str) -> Any:
    return two_async(peer_id, document_id)


@pytest.mark.parametrize(
    "share",
    [
        two,
        three,
        defaulted,
        anything,
        two_async,
        three_async,
        Method().two,
        Method().three,
        Method(),
        AsyncCall(),
        gives_coroutine,
        functools.partial(three, identity=None),
        functools.partial(two_async),
    ],
)
def test_every_kind_of_callable_is_asked(share: Any) -> None:
    assert ask_once(share) == Grant(Access.WRITE, announce=True, expires_at=130.0, renew_at=119.0)


def test_plain_callable_runs_in_a_thread_and_holds_up_nobody() -> None:
    threads: list[threading.Thread] = []
    gate = threading.Event()

    def slow(peer_id: str, document_id: str) -> Share:
        threads.append(threading.current_thread())
        gate.wait(5)
        return Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        asking = asyncio.ensure_future(policy.ask(PEER, [DOCUMENT]))
        for _ in range(1000):
            await asyncio.sleep(0.001)
            if threads:
                break
        assert not asking.done()
        gate.set()
        assert (await asking)[0].access is Access.WRITE

    run(slow, scenario)
    assert threads[0] is not threading.main_thread()


def test_async_callable_runs_in_the_loop() -> None:
    seen: list[threading.Thread] = []

    async def share(peer_id: str, document_id: str) -> Share:
        seen.append(threading.current_thread())
        return Share.ALLOW

    ask_once(share)
    assert seen == [threading.main_thread()]


@pytest.mark.parametrize(
    ("answer", "rights"),
    [
        (None, Access.WRITE),
        (True, Access.WRITE),
        (False, Access.NONE),
        (Share.DENY, Access.NONE),
        ("allow", Access.NONE),
        (1, Access.NONE),
        (Access.WRITE, Access.NONE),
        ([], Access.NONE),
    ],
)
def test_answers(answer: Any, rights: Access) -> None:
    assert ask_once(lambda a, b: answer).access is rights


def raises(peer_id: str, document_id: str) -> Share:
    raise ValueError("secret")


async def raises_async(peer_id: str, document_id: str) -> Share:
    raise KeyError("secret")


async def times_out(peer_id: str, document_id: str) -> Share:
    raise TimeoutError


async def never(peer_id: str, document_id: str) -> Share:
    await asyncio.Event().wait()
    return Share.ALLOW


async def cancels(peer_id: str, document_id: str) -> Share:
    raise asyncio.CancelledError


def sleeps(peer_id: str, document_id: str) -> Share:
    time.sleep(1.0)
    return Share.ALLOW


@pytest.mark.parametrize(
    ("share", "label"),
    [
        (raises, "exception"),
        (raises_async, "exception"),
        (times_out, "time-out"),
        (never, "time-out"),
        (sleeps, "time-out"),
        (lambda a, b: "ALLOW", "bad_answer"),
    ],
)
def test_what_goes_wrong_refuses_and_is_counted(
    share: Any, label: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(policy: AccessPolicy, metrics: Metrics, _clock: Clock) -> None:
        (grant,) = await policy.ask(PEER, [DOCUMENT])
        assert grant.access is Access.NONE
        assert refused(metrics, label) == 1

    # What answers must not seem late where threads start slowly.
    run(share, scenario, timeout_seconds=0.1 if share in (never, sleeps) else 20.0)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_callable_that_raises_cancelled_error_refuses() -> None:
    """A future of somebody else was cancelled in it; our own task was not."""
    assert ask_once(cancels).access is Access.NONE


def test_decision_is_kept_for_its_lifetime_and_per_peer_and_document() -> None:
    asked: list[tuple[str, str]] = []

    def share(peer_id: str, document_id: str) -> Share:
        asked.append((peer_id, document_id))
        return Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, clock: Clock) -> None:
        other = generate_document_id()
        for _ in range(2):
            await policy.ask(PEER, [DOCUMENT, other])
            await policy.ask(OTHER, [DOCUMENT])
        assert sorted(asked) == sorted([("peer", DOCUMENT), ("peer", other), ("other", DOCUMENT)])
        assert policy.decide(PEER, DOCUMENT) == Grant(
            Access.WRITE, expires_at=130.0, renew_at=119.0
        )

        clock.now = 129.9
        assert policy.decide(PEER, DOCUMENT) is not None
        clock.now = 130.0
        assert policy.decide(PEER, DOCUMENT) is None
        (grant,) = await policy.ask(PEER, [DOCUMENT])
        assert grant.expires_at == 160.0
        assert len(asked) == 4

    run(share, scenario)


def test_refusals_are_kept_too() -> None:
    asked = []

    def share(peer_id: str, document_id: str) -> Share:
        asked.append(peer_id)
        raise ValueError

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        for _ in range(3):
            await policy.ask(PEER, [DOCUMENT])
        assert len(asked) == 1

    run(share, scenario)


def test_refresh_drops_decisions_also_those_being_made() -> None:
    gate = asyncio.Event()
    asked = []

    async def share(peer_id: str, document_id: str) -> Share:
        asked.append(document_id)
        await gate.wait()
        return Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        asking = asyncio.ensure_future(policy.ask(PEER, [DOCUMENT]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        policy.refresh()
        gate.set()
        await asking

        # What was answered before the refresh is asked again at once.
        assert len(asked) == 2
        assert policy.decide(PEER, DOCUMENT) is not None
        policy.refresh()
        assert policy.decide(PEER, DOCUMENT) is None
        await policy.ask(PEER, [DOCUMENT])
        assert len(asked) == 3

    run(share, scenario)


@pytest.mark.parametrize(
    ("peers", "bound"), [(1, access.MAX_OF_ONE_CALLER), (40, callables.MAX_AT_ONCE)]
)
def test_questions_at_once_are_bounded_and_answers_in_order(peers: int, bound: int) -> None:
    documents = [generate_document_id() for _ in range(100)]
    running, most = 0, 0

    async def share(peer_id: str, document_id: str) -> Share:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Share.DENY if documents.index(DocumentId(document_id)) % 2 else Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        asked = (policy.ask(caller(f"peer-{number}", None), documents) for number in range(peers))
        for grants in await asyncio.gather(*asked):
            assert [grant.access for grant in grants] == [Access.WRITE, Access.NONE] * 50

    run(share, scenario)
    assert most == bound


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_REMEMBERED", 3)
    documents = [generate_document_id() for _ in range(5)]

    async def share(peer_id: str, document_id: str) -> Share:
        return Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        for document in documents:
            await policy.ask(PEER, [document])
        known = [policy.decide(PEER, document) is not None for document in documents]
        assert known == [False, False, True, True, True]

    run(share, scenario)


def test_hanging_callable_does_not_hold_up_the_end() -> None:
    gate = threading.Event()

    def share(peer_id: str, document_id: str) -> Share:
        gate.wait(20)
        return Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        await policy.ask(PEER, [DOCUMENT])

    started = time.monotonic()
    try:
        run(share, scenario, timeout_seconds=0.05)
        assert time.monotonic() - started < 15
    finally:
        gate.set()


def test_threads_taken_by_hanging_callables_refuse_and_do_not_pile_up() -> None:
    gate = threading.Event()

    def share(peer_id: str, document_id: str) -> Share:
        if peer_id == "hangs":
            gate.wait(20)
        return Share.ALLOW

    async def scenario(policy: AccessPolicy, _metrics: Metrics, _clock: Clock) -> None:
        documents = [generate_document_id() for _ in range(3 * callables.MAX_AT_ONCE)]
        before = threading.active_count()
        grants = await policy.ask(caller("hangs", None), documents)
        assert {grant.access for grant in grants} == {Access.NONE}
        assert threading.active_count() - before <= callables.MAX_AT_ONCE
        gate.set()

    try:
        run(share, scenario, timeout_seconds=0.05)
    finally:
        gate.set()


def test_grants() -> None:
    assert grant_of(Share.ALLOW) == Grant(Access.WRITE)
    assert Access.NONE < Access.READ < Access.WRITE

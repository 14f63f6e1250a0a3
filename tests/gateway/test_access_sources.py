"""Claims, the callable of an `AccessConfig`, the webhook; and that the strictest of all wins."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from amsync import Access, AccessConfig, ConfigError, Decision, Identity, Share, Webhook
from amsync.gateway.access import AccessPolicy, parse_share
from amsync.gateway.caller import Caller, Proof, caller
from amsync.ids import DocumentId, base58check_decode, generate_document_id
from amsync.metrics import Metrics
from amsync.protocol.access import UNLIMITED, Grant, strictest

DOCUMENT = DocumentId("3uQLXrx4C7D8TPUoYUsWQYp1tytD")
AS_UUID = str(UUID(bytes=base58check_decode(DOCUMENT)))
OTHER = generate_document_id()
NOTHING = Grant(Access.NONE, create=False)


def somebody(claims: dict[str, Any] | None = None, subject: str = "somebody") -> Caller:
    identity = Identity("https://issuer", subject, "a@b.example", claims or {}, 1e12)
    return caller("peer", Proof.of(identity, json.dumps(claims) + subject, 1e12))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Hook:
    """A webhook on loopback. `answer` may be changed; `asked` has what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.headers: list[Any] = []
        self.answer: Callable[[], Awaitable[web.StreamResponse]] = self.saying(access="write")
        self.url = ""
        self._runner: web.AppRunner | None = None

    @staticmethod
    def saying(*things: Any, **fields: Any) -> Callable[[], Awaitable[web.StreamResponse]]:
        async def answer() -> web.StreamResponse:
            return web.json_response(things[0] if things else fields)

        return answer

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.headers.append(dict(request.headers))
        return await self.answer()

    async def _elsewhere(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"access": "write"})

    async def __aenter__(self) -> "Hook":
        application = web.Application()
        application.router.add_post("/ask", self._take)
        application.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/ask"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()


class Asked:
    """A policy with its clock and what it counts."""

    def __init__(self, access: AccessConfig, share: Any = Share.ANNOUNCE) -> None:
        self.metrics, self.clock = Metrics(), Clock()
        self.policy = AccessPolicy(parse_share(share), self.metrics, access, clock=self.clock)

    async def ask(self, who: Caller, document_id: DocumentId = DOCUMENT) -> Grant:
        (grant,) = await self.policy.ask(who, [document_id])
        return grant

    def failures(self, source: str, reason: str) -> float:
        labels = {"source": source, "reason": reason}
        return self.metrics.registry.get_sample_value("amsync_access_failures_total", labels) or 0.0

    async def __aenter__(self) -> "Asked":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.policy.close()


def answering(decision: Decision) -> Callable[[object, str], Decision]:
    return lambda _who, _id: decision


def by_claim(value: Any, document_id: DocumentId = DOCUMENT) -> Grant:
    async def main() -> Grant:
        async with Asked(AccessConfig(claim="amsync")) as asked:
            claims = {} if value is ... else {"amsync": value}
            grant = asked.policy.decide(somebody(claims), document_id)
            assert grant is not None
            return grant

    return asyncio.run(main())


# -- the strictest wins

WRITE, READ = Grant(Access.WRITE), Grant(Access.READ)


@pytest.mark.parametrize(
    ("grants", "found"),
    [
        ([], UNLIMITED),
        ([WRITE], WRITE),
        ([WRITE, READ], READ),
        ([READ, Grant(Access.NONE)], Grant(Access.NONE)),
        ([UNLIMITED, Grant(Access.NONE, announce=True)], Grant(Access.NONE)),
        ([UNLIMITED, UNLIMITED], UNLIMITED),
        ([UNLIMITED, WRITE], WRITE),
        ([Grant(Access.WRITE, create=False), WRITE], Grant(Access.WRITE, create=False)),
        (
            [Grant(Access.WRITE, expires_at=5, renew_at=4), Grant(Access.READ, expires_at=9)],
            Grant(Access.READ, expires_at=5, renew_at=4),
        ),
    ],
)
def test_strictest(grants: list[Grant], found: Grant) -> None:
    assert strictest(grants) == found
    assert strictest(reversed(grants)) == found


# -- claims


@pytest.mark.parametrize(
    ("claim", "found"),
    [
        ({"write": [DOCUMENT]}, Grant(Access.WRITE)),
        ({"read": [DOCUMENT]}, Grant(Access.READ)),
        ({"read": [DOCUMENT], "write": ["*"]}, Grant(Access.WRITE)),
        ({"write": [AS_UUID]}, Grant(Access.WRITE)),
        ({"write": [AS_UUID.upper()]}, Grant(Access.WRITE)),
        ({"write": [f"automerge:{DOCUMENT}"]}, Grant(Access.WRITE)),
        ({"read": [f"{DOCUMENT[:4]}*"]}, Grant(Access.READ)),
        ({"read": [f"{DOCUMENT}*"]}, Grant(Access.READ)),
        ({"read": ["*"], "create": False}, Grant(Access.READ, create=False)),
        ({"write": ["*"], "announce": ["*"]}, Grant(Access.WRITE, announce=True)),
        ({"announce": ["*"]}, NOTHING),
        ({"read": [OTHER]}, NOTHING),
        ({"read": [f"{DOCUMENT[:4].lower()}*"]}, NOTHING),
        ({"read": []}, NOTHING),
        ({}, NOTHING),
    ],
)
def test_claim_says_what_its_token_may(claim: dict[str, Any], found: Grant) -> None:
    assert by_claim(claim) == found


@pytest.mark.parametrize(
    "claim",
    [
        ...,
        None,
        "write",
        ["*"],
        7,
        {"write": "*"},
        {"write": {"*": True}},
        {"write": ["*", 7]},
        {"write": ["*", "no-document"]},
        {"write": ["*", "a*b"]},
        {"write": ["*", "**"]},
        {"write": ["*", "0*"]},
        {"write": ["*", "../*"]},
        {"write": ["*", f"{DOCUMENT[:-1]}x"]},
        {"write": ["*"], "read": None},
        {"write": ["*"], "create": 1},
        {"write": ["*"], "deny": [DOCUMENT]},
    ],
)
def test_missing_or_malformed_claim_gives_nothing(claim: Any) -> None:
    assert by_claim(claim) == NOTHING


def test_refused_claims_are_counted_once_for_a_token(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Asked(AccessConfig(claim="amsync")) as asked:
            for subject in ("one", "two"):
                for _ in range(3):
                    asked.policy.decide(somebody(subject=subject), DOCUMENT)
            asked.policy.decide(somebody({"amsync": 7}), DOCUMENT)
            assert asked.failures("claim", "missing") == 2
            assert asked.failures("claim", "bad") == 1

    asyncio.run(main())
    assert len(caplog.records) == 1


def test_without_authentication_a_claim_gives_nothing() -> None:
    async def main() -> None:
        async with Asked(AccessConfig(claim="amsync")) as asked:
            assert asked.policy.decide(caller("peer", None), DOCUMENT) == NOTHING

    asyncio.run(main())


def test_claims_need_no_waiting_and_never_expire() -> None:
    async def main() -> None:
        async with Asked(AccessConfig(claim="amsync")) as asked:
            assert asked.policy.is_constant
            who = somebody({"amsync": {"write": ["*"]}})
            assert await asked.ask(who) == asked.policy.decide(who, DOCUMENT)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("share", "claim", "may"),
    [
        (Share.ANNOUNCE, {"read": ["*"], "announce": ["*"]}, True),
        (Share.ANNOUNCE, {"read": ["*"]}, False),
        (Share.ALLOW, {"read": ["*"], "announce": ["*"]}, False),
        (lambda a, b: True, {"read": ["*"], "announce": [DOCUMENT]}, True),
    ],
)
def test_who_can_have_nothing_announced_is_known_beforehand(
    share: Any, claim: dict[str, Any], may: bool
) -> None:
    async def main() -> None:
        async with Asked(AccessConfig(claim="amsync"), share) as asked:
            assert asked.policy.may_announce(somebody({"amsync": claim})) is may

    asyncio.run(main())


# -- the callable


@pytest.mark.parametrize(
    ("answer", "access", "announce", "create"),
    [
        (Access.WRITE, Access.WRITE, False, True),
        ("read", Access.READ, False, True),
        ("none", Access.NONE, False, True),
        (True, Access.WRITE, True, True),
        (None, Access.WRITE, False, True),
        (False, Access.NONE, False, True),
        (Share.ANNOUNCE, Access.WRITE, True, True),
        (Decision(Access.READ, True, False), Access.READ, True, False),
    ],
)
def test_answers_of_the_callable(answer: Any, access: Access, announce: bool, create: bool) -> None:
    async def main() -> None:
        async with Asked(AccessConfig(check=lambda _who, _id: answer)) as asked:
            grant = await asked.ask(somebody())
            assert (grant.access, grant.announce, grant.create) == (access, announce, create)

    asyncio.run(main())


@pytest.mark.parametrize("answer", ["WRITE", "admin", 2, 1.0, {}, {"access": "write"}, object()])
def test_other_answers_of_the_callable_refuse(answer: Any) -> None:
    async def main() -> None:
        async with Asked(AccessConfig(check=lambda _who, _id: answer)) as asked:
            assert (await asked.ask(somebody())).access is Access.NONE
            assert asked.failures("access_check", "bad_answer") == 1

    asyncio.run(main())


def test_decisions_are_counted_by_who_was_asked_and_what_came_of_it() -> None:
    answers: list[Any] = ["read", None, "nonsense"]

    async def main() -> None:
        async with Asked(AccessConfig(check=lambda _who, _id: answers.pop(0))) as asked:
            for number in range(3):
                await asked.ask(somebody(), DocumentId(f"document {number}"))
            for _ in range(2):
                asked.policy.decide(somebody(), DocumentId("document 0"))

            cells = asked.metrics.access_decisions
            assert cells.cell("access_check", "read") == [1]
            assert cells.cell("access_check", "write") == [1]
            assert cells.cell("access_check", "failed") == [1]
            assert cells.cell("known", "read") == [2]

    asyncio.run(main())


def test_callable_gets_identity_document_and_if_it_wants_the_client() -> None:
    seen: list[Any] = []
    who = somebody()

    async def two(identity: Identity, document_id: str) -> Access:
        seen.append((identity, document_id))
        return Access.WRITE

    def three(identity: Identity, document_id: str, client_id: str) -> Access:
        seen.append((identity, document_id, client_id))
        return Access.WRITE

    async def main() -> None:
        for check in (two, three):
            async with Asked(AccessConfig(check=check)) as asked:
                await asked.ask(who)

    asyncio.run(main())
    assert seen == [(who.identity, DOCUMENT), (who.identity, DOCUMENT, "peer")]


def test_lifetime_of_an_answer_is_kept_and_clamped() -> None:
    async def main() -> None:
        for seconds, end in [(10, 110.0), (0, 101.0), (1e9, 3700.0), (None, 130.0)]:
            decision = Decision(Access.WRITE, lifetime_seconds=seconds)
            async with Asked(AccessConfig(check=answering(decision))) as asked:
                assert (await asked.ask(somebody())).expires_at == end

    asyncio.run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"access": "all"},
        {"access": 2},
        {"access": "read", "announce": 1},
        {"access": "read", "create": None},
        {"access": "read", "lifetime_seconds": "1"},
        {"access": "read", "lifetime_seconds": float("nan")},
        {"access": "read", "lifetime_seconds": True},
    ],
)
def test_decision_that_can_not_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Decision(**arguments)


# -- the webhook


def test_webhook_is_asked_with_who_and_what_and_its_token() -> None:
    async def main() -> None:
        async with Hook() as hook:
            config = AccessConfig(webhook=Webhook(hook.url, "hook-token"))
            async with Asked(config) as asked:
                hook.answer = hook.saying(
                    access="read", announce=True, create=False, lifetime_seconds=10
                )
                grant = await asked.ask(somebody())
                assert grant == Grant(Access.READ, True, 110.0, False, 105.0)
                await asked.ask(somebody())  # remembered
            assert hook.asked == [
                {
                    "issuer": "https://issuer",
                    "subject": "somebody",
                    "email": "a@b.example",
                    "client_id": "peer",
                    "document_id": DOCUMENT,
                }
            ]
            assert hook.headers[0]["Authorization"] == "Bearer hook-token"

    asyncio.run(main())


def raw(status: int = 200, body: bytes = b"", **headers: str) -> Any:
    async def answer() -> web.StreamResponse:
        return web.Response(status=status, body=body, headers=headers)

    return answer


GOOD = b'{"access": "write"}'


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (raw(500, GOOD), "status"),
        (raw(201, GOOD), "status"),
        (raw(302, GOOD, Location="/elsewhere"), "status"),
        (raw(200, b"yes"), "malformed"),
        (raw(200, b"[" * 50_000), "malformed"),
        (raw(200, b"\xff"), "malformed"),
        (raw(200, b'"write"'), "malformed"),
        (raw(200, b"{}"), "malformed"),
        (raw(200, b'{"access": true}'), "malformed"),
        (raw(200, b'{"access": "admin"}'), "malformed"),
        (raw(200, b'{"access": "write", "announce": 1}'), "malformed"),
        (raw(200, b'{"access": "write", "create": "no"}'), "malformed"),
        (raw(200, b'{"access": "write", "lifetime_seconds": "1"}'), "malformed"),
        (raw(200, b'{"access": "write", "lifetime_seconds": NaN}'), "malformed"),
        (raw(200, GOOD + b" " * 70_000), "too_large"),
    ],
)
def test_what_is_no_answer_of_the_webhook_refuses_and_is_counted(answer: Any, label: str) -> None:
    async def main() -> None:
        async with Hook() as hook:
            hook.answer = answer
            async with Asked(AccessConfig(webhook=Webhook(hook.url))) as asked:
                assert (await asked.ask(somebody())).access is Access.NONE
                assert asked.failures("access_webhook", label) == 1

    asyncio.run(main())


def test_webhook_that_does_not_answer_in_time_refuses() -> None:
    async def main() -> None:
        async with Hook() as hook:
            released = asyncio.Event()

            async def wait() -> web.StreamResponse:
                await released.wait()
                return web.json_response({"access": "write"})

            hook.answer = wait
            async with Asked(AccessConfig(webhook=Webhook(hook.url, timeout_seconds=0.05))) as a:
                assert (await a.ask(somebody())).access is Access.NONE
                assert a.failures("access_webhook", "time-out") == 1
            released.set()

    asyncio.run(main())


def test_webhook_that_is_down_refuses_and_is_asked_again_soon() -> None:
    async def main() -> None:
        hook = Hook()
        async with hook:
            pass
        async with Asked(AccessConfig(webhook=Webhook(hook.url))) as asked:
            grant = await asked.ask(somebody())
            assert (grant.access, grant.expires_at) == (Access.NONE, 105.0)
            assert asked.failures("access_webhook", "connection") == 1
            await asked.ask(somebody())
            assert asked.failures("access_webhook", "connection") == 1
            asked.clock.now = 105.0
            await asked.ask(somebody())
            assert asked.failures("access_webhook", "connection") == 2

    asyncio.run(main())


def test_outage_costs_nothing_until_a_decision_ends() -> None:
    async def main() -> None:
        async with Hook() as hook, Asked(AccessConfig(webhook=Webhook(hook.url))) as asked:
            hook.answer = hook.saying(access="write", lifetime_seconds=60)
            assert await asked.ask(somebody()) == Grant(
                Access.WRITE, expires_at=160.0, renew_at=154.0
            )
            hook.answer = raw(503)

            asked.clock.now = 154.0
            kept = await asked.ask(somebody())
            asked.clock.now = 160.0
            ended = await asked.ask(somebody())

            assert kept == Grant(Access.WRITE, expires_at=160.0, renew_at=159.0)
            assert ended.access is Access.NONE

            hook.answer = hook.saying(access="write")
            asked.clock.now = ended.expires_at
            assert (await asked.ask(somebody())).access is Access.WRITE

    asyncio.run(main())


def test_answer_that_takes_away_counts_at_once_when_it_is_renewed() -> None:
    async def main() -> None:
        async with Hook() as hook, Asked(AccessConfig(webhook=Webhook(hook.url))) as asked:
            hook.answer = hook.saying(access="write", lifetime_seconds=60)
            await asked.ask(somebody())
            hook.answer = hook.saying(access="none")
            asked.clock.now = 154.0

            assert (await asked.ask(somebody())).access is Access.NONE

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://example.org/ask", {}),
        ("http://10.0.0.1/ask", {}),
        ("ftp://127.0.0.1/", {}),
        ("https://user:word@example.org/", {}),
        ("/ask", {}),
        (7, {}),
        ("https://a.example", {"token": "with space"}),
        ("https://a.example", {"token": "with\nline"}),
        ("https://a.example", {"timeout_seconds": 0}),
        ("https://a.example", {"timeout_seconds": float("nan")}),
        ("https://a.example", {"timeout_seconds": True}),
    ],
)
def test_webhook_that_can_not_be_is_refused(url: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Webhook(url, **options)


def test_token_of_the_webhook_is_not_shown() -> None:
    assert "secret" not in repr(AccessConfig(webhook=Webhook("https://a.example", "secret")))


# -- all together


def test_whoever_could_only_forbid_more_is_not_asked() -> None:
    async def main() -> None:
        async with Hook() as hook:
            config = AccessConfig(
                claim="amsync",
                check=lambda _who, document_id: document_id != OTHER,
                webhook=Webhook(hook.url),
            )
            async with Asked(config) as asked:
                who = somebody({"amsync": {"read": [DOCUMENT, OTHER]}})
                third = generate_document_id()
                assert asked.policy.decide(who, third) == NOTHING
                grants = await asked.policy.ask(who, [DOCUMENT, OTHER, third])
                found = [grant.access for grant in grants]
                assert found == [Access.READ, Access.NONE, Access.NONE]
                assert [each["document_id"] for each in hook.asked] == [DOCUMENT]

    asyncio.run(main())


def test_refresh_of_one_identity_forgets_nobody_elses_decisions() -> None:
    async def main() -> None:
        async with Asked(AccessConfig(check=lambda _who, _id: "write")) as asked:
            one, two = somebody(subject="one"), somebody(subject="two")
            await asked.ask(one)
            await asked.ask(two)
            asked.policy.refresh(one.identity_key)
            assert asked.policy.decide(one, DOCUMENT) is None
            assert asked.policy.decide(two, DOCUMENT) is not None

    asyncio.run(main())


def test_limit_of_orders_counts_even_if_it_comes_while_somebody_is_asked() -> None:
    async def main() -> None:
        released = asyncio.Event()

        async def check(_who: object, _id: str) -> str:
            await released.wait()
            return "write"

        async with Asked(AccessConfig(check=check)) as asked:
            asking = asyncio.ensure_future(asked.ask(somebody()))
            await asyncio.sleep(0)
            asked.policy.limit = lambda _caller, _id: Access.READ
            released.set()
            assert (await asking).access is Access.READ
            asked.policy.limit = lambda _caller, _id: Access.WRITE
            known = asked.policy.decide(somebody(), DOCUMENT)
            assert known is not None
            assert known.access is Access.WRITE

    asyncio.run(main())


def test_token_with_other_claims_is_judged_anew() -> None:
    async def main() -> None:
        async with Asked(AccessConfig(claim="amsync")) as asked:
            may, may_not = somebody({"amsync": {"read": ["*"]}}), somebody({"amsync": {}})
            assert asked.policy.decide(may, DOCUMENT) == Grant(Access.READ)
            assert asked.policy.decide(may_not, DOCUMENT) == NOTHING

    asyncio.run(main())

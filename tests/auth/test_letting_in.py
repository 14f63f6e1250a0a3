"""Who of those that are known may come in; the examples of the R documentation."""

import asyncio
import functools
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from amsync.auth import AuthConfig, AuthRefused
from support.issuer import CLIENT_ID, IssuerServer

from .trying import Trial, trying

EMAIL = (403, "email_refused")
CLAIM = (403, "claim_refused")
NO = (403, "validator_refused")
FAILED = (403, "validator_failed")


def config_of(issuer: IssuerServer, **more: Any) -> AuthConfig:
    return AuthConfig(CLIENT_ID, issuer.url, issuer_ca=issuer.ca, **more)


def outcome(config: AuthConfig, token: str, **options: Any) -> tuple[int, str] | str:
    """The subject, or status and reason."""

    async def scenario(trial: Trial) -> tuple[int, str] | str:
        try:
            return (await trial.verify(token)).subject
        except AuthRefused as refused:
            return refused.status, refused.reason

    found: tuple[int, str] | str = trying(config, scenario, **options)
    return found


def mailed(issuer: IssuerServer, email: object, verified: object = True) -> str:
    return issuer.token(email=email, email_verified=verified)


class TestExamplesOfTheRPackage:
    """From the documentation of `auth_config`, the issuers being ours."""

    def test_google(self, issuer: IssuerServer) -> None:
        config = AuthConfig(
            client_id="123456789.apps.googleusercontent.com",
            allowed_domains="mycompany.com",
        )
        assert config.issuer == "https://accounts.google.com"
        assert config.allowed_emails is None
        assert config.allowed_domains == ("mycompany.com",)
        assert config.custom_validator is None
        config = replace(config, issuer=issuer.url, issuer_ca=issuer.ca)
        mine = {"aud": config.client_id, "email_verified": True}
        assert outcome(config, issuer.token(email="a@mycompany.com", **mine)) == "somebody"
        assert outcome(config, issuer.token(email="a@partner.org", **mine)) == EMAIL
        assert outcome(config, mailed(issuer, "a@mycompany.com")) == (401, "audience_refused")

    def test_microsoft_entra(self, issuer: IssuerServer) -> None:
        config = AuthConfig(
            client_id="abcdef-1234-5678",
            issuer="https://login.microsoftonline.com/common/v2.0",
            allowed_emails="alice@mycompany.com",
        )
        assert config.allowed_emails == ("alice@mycompany.com",)
        config = replace(config, issuer=issuer.url, issuer_ca=issuer.ca)
        mine = {"aud": config.client_id, "email": "alice@mycompany.com"}
        assert outcome(config, issuer.token(**mine, email_verified=True)) == "somebody"
        assert outcome(config, issuer.token(**mine)) == EMAIL
        mine["email"] = "bob@mycompany.com"
        assert outcome(config, issuer.token(**mine, email_verified=True)) == EMAIL

    def test_custom_validator(self, issuer: IssuerServer) -> None:
        config = AuthConfig(
            client_id="0oaXXXXXXXX",
            issuer="https://dev-123456.okta.com/oauth2/default",
            custom_validator=lambda claims: "editors" in claims["groups"],
        )
        config = replace(config, issuer=issuer.url, issuer_ca=issuer.ca)
        mine = {"aud": config.client_id}
        assert outcome(config, issuer.token(**mine, groups=["staff", "editors"])) == "somebody"
        assert outcome(config, issuer.token(**mine, groups=["staff"])) == NO
        assert outcome(config, issuer.token(**mine)) == FAILED

    def test_two_domains_and_two_addresses(self, issuer: IssuerServer) -> None:
        domains = config_of(issuer, allowed_domains=["mycompany.com", "partner.org"])
        emails = config_of(issuer, allowed_emails=["alice@example.com", "bob@example.com"])
        assert outcome(domains, mailed(issuer, "a@partner.org")) == "somebody"
        assert outcome(domains, mailed(issuer, "a@example.com")) == EMAIL
        assert outcome(emails, mailed(issuer, "bob@example.com")) == "somebody"
        assert outcome(emails, mailed(issuer, "carol@example.com")) == EMAIL


@pytest.mark.parametrize(
    ("allowed", "email", "may"),
    [
        ("example.com", "a@example.com", True),
        ("Example.COM", "A@eXample.com", True),
        ("example.com", "a@b.example.com", False),
        ("*.example.com", "a@b.example.com", True),
        ("*.example.com", "a@c.b.example.com", True),
        ("*.example.com", "a@example.com", False),
        ("*.example.com", "a@notexample.com", False),
        ("example.com", "a@example.com.", False),
        ("example.com", "a@b@example.com", True),
        ("example.com", "a b@example.com", False),
        ("example.com", "a@example.com\n", False),
        ("example.com", "a\nb@example.com", False),
        ("kelvin.com", "a@\u212aelvin.com", False),  # its small letter is k
        ("example.com", "", False),
        ("example.com", "x" * 320 + "@example.com", False),
    ],
)
def test_domains(issuer: IssuerServer, allowed: str, email: str, may: bool) -> None:
    config = config_of(issuer, allowed_domains=allowed)
    assert outcome(config, mailed(issuer, email)) == ("somebody" if may else EMAIL)


@pytest.mark.parametrize(
    ("email", "verified", "may"),
    [
        ("alice@example.com", True, True),
        ("Alice@EXAMPLE.com", True, True),
        ("alice@example.com", "true", True),
        ("alice@example.com", "True", False),
        ("alice@example.com", False, False),
        ("alice@example.com", None, False),
        ("alice@example.com", 1, False),
        ("alice@example.com", [True], False),
        ("alice@example.org", True, False),
        ("alice@example.com ", True, False),
        ("\u00e4lice@example.com", True, False),
    ],
)
def test_addresses(issuer: IssuerServer, email: str, verified: object, may: bool) -> None:
    config = config_of(issuer, allowed_emails={"alice@example.com"})
    assert outcome(config, mailed(issuer, email, verified)) == ("somebody" if may else EMAIL)


def test_addresses_and_domains_must_both_be_allowed(issuer: IssuerServer) -> None:
    """As in the R package."""
    config = config_of(issuer, allowed_emails="a@x.org", allowed_domains="example.com")
    assert outcome(config, mailed(issuer, "a@x.org")) == EMAIL
    assert outcome(config, mailed(issuer, "a@example.com")) == EMAIL


def test_without_lists_an_address_that_is_not_verified_is_only_not_told(
    issuer: IssuerServer,
) -> None:
    async def scenario(trial: Trial) -> None:
        identity = await trial.verify(mailed(issuer, "a@example.com", False))
        assert identity.email is None
        assert identity.claims["email"] == "a@example.com"

    trying(config_of(issuer), scenario)


@pytest.mark.parametrize(
    ("required", "claims", "may"),
    [
        ({"hd": "example.com"}, {"hd": "example.com"}, True),
        ({"hd": "example.com"}, {"hd": "Example.com"}, False),
        ({"hd": "example.com"}, {}, False),
        ({"hd": None}, {"hd": "anything"}, True),
        ({"hd": None}, {}, False),
        ({"groups": "a"}, {"groups": ["b", "a"]}, True),
        ({"groups": "a"}, {"groups": ["b"]}, False),
        ({"groups": ["a", "b"]}, {"groups": ["c", "b", "a"]}, True),
        ({"groups": ["a", "b"]}, {"groups": ["a"]}, False),
        ({"groups": "a"}, {"groups": [["a"], {"a": 1}, None]}, False),
        ({"admin": True}, {"admin": True}, True),
        ({"admin": "true"}, {"admin": True}, True),
        ({"admin": True}, {"admin": 1}, False),
        ({"level": 3}, {"level": 3}, True),
        ({"level": 3}, {"level": 3.5}, False),
        ({"scope": "sync"}, {"scope": "openid sync"}, True),
        ({"scope": "sync"}, {"scope": "openid synchronize"}, False),
        ({"note": "sync"}, {"note": "openid sync"}, False),
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
    ],
)
def test_required_claims(
    issuer: IssuerServer, required: dict[str, Any], claims: dict[str, Any], may: bool
) -> None:
    config = config_of(issuer, required_claims=required)
    assert outcome(config, issuer.token(**claims)) == ("somebody" if may else CLAIM)


def plain(claims: Mapping[str, Any]) -> object:
    return claims["answer"]


async def awaited(claims: Mapping[str, Any]) -> object:
    await asyncio.sleep(0)
    return claims["answer"]


class AsyncObject:
    async def __call__(self, claims: Mapping[str, Any]) -> object:
        return claims["answer"]


def later(claims: Mapping[str, Any]) -> Any:
    return awaited(claims)


VALIDATORS = {
    "plain": plain,
    "async": awaited,
    "object": AsyncObject(),
    "partial": functools.partial(plain),
    "plain that returns a coroutine": later,
}


@pytest.mark.parametrize("kind", VALIDATORS)
def test_validator_of_every_kind_is_asked_and_exactly_true_is_yes(
    issuer: IssuerServer, kind: str
) -> None:
    config = config_of(issuer, custom_validator=VALIDATORS[kind])
    assert outcome(config, issuer.token(answer=True)) == "somebody"
    for answer in (False, 1, "yes", [1], {"a": 1}):
        assert outcome(config, issuer.token(answer=answer)) == NO
    assert outcome(config, issuer.token()) == FAILED


def test_plain_validator_is_not_called_on_the_loop(issuer: IssuerServer) -> None:
    threads: list[threading.Thread] = []

    def note(_claims: Mapping[str, Any]) -> bool:
        threads.append(threading.current_thread())
        return True

    assert outcome(config_of(issuer, custom_validator=note), issuer.token()) == "somebody"
    assert threads[0] is not threading.main_thread()


def test_validator_is_asked_last(issuer: IssuerServer) -> None:
    asked: list[object] = []

    def note(claims: Mapping[str, Any]) -> bool:
        asked.append(claims["sub"])
        return True

    config = config_of(issuer, custom_validator=note, required_claims={"hd": None})
    assert outcome(config, issuer.token(exp=1)) == (401, "token_expired")
    assert outcome(config, issuer.token()) == CLAIM
    assert asked == []


def raises(error: BaseException) -> Any:
    def validator(_claims: object) -> bool:
        raise error

    return validator


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), TimeoutError(), StopIteration(), SystemExit(0), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("is_async", [False, True])
def test_validator_that_raises_refuses(
    issuer: IssuerServer, error: BaseException, is_async: bool
) -> None:
    validator = raises(error)

    async def wrapped(claims: object) -> bool:
        return bool(validator(claims))

    config = config_of(issuer, custom_validator=wrapped if is_async else validator)
    assert outcome(config, issuer.token()) == FAILED


def test_validator_that_takes_too_long_refuses_and_others_are_served(
    issuer: IssuerServer,
) -> None:
    released = threading.Event()

    def hangs(claims: Mapping[str, Any]) -> bool:
        return claims["sub"] == "quick" or released.wait(60)

    async def scenario(trial: Trial) -> None:
        slow = [trial.refused(issuer.token(sub=f"slow-{n}")) for n in range(10)]
        assert await asyncio.gather(*slow) == [FAILED] * 10
        assert (await trial.verify(issuer.token(sub="quick"))).subject == "quick"

    config = config_of(issuer, custom_validator=hangs)
    try:
        trying(config, scenario, validator_timeout_seconds=0.3)
    finally:
        released.set()


def test_validator_whose_threads_all_hang_refuses_without_piling_up(
    issuer: IssuerServer,
) -> None:
    released, calls = threading.Event(), []

    def hangs(_claims: object) -> bool:
        calls.append(1)
        return released.wait(60)

    async def scenario(trial: Trial) -> None:
        tries = [trial.refused(issuer.token(sub=f"user-{n}")) for n in range(60)]
        assert await asyncio.gather(*tries) == [FAILED] * 60
        released.set()
        assert (await trial.verify(issuer.token())).subject == "somebody"
        assert len(calls) == 17  # as many as there are threads, and the last one

    config = config_of(issuer, custom_validator=hangs)
    try:
        trying(config, scenario, validator_timeout_seconds=0.5)
    finally:
        released.set()


def test_client_that_goes_away_cancels_its_verification(issuer: IssuerServer) -> None:
    async def forever(_claims: object) -> bool:
        await asyncio.sleep(60)
        return True

    async def scenario(trial: Trial) -> None:
        await trial.until("auth_key_fetches", "ok")
        waiting = asyncio.create_task(trial.verify(issuer.token()))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    trying(config_of(issuer, custom_validator=forever), scenario)


def test_failing_validator_is_logged_once_a_minute_and_without_the_token(
    issuer: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(trial: Trial) -> None:
        def logged() -> list[logging.LogRecord]:
            return [each for each in caplog.records if each.name == "amsync.auth"]

        token = issuer.token()
        for _ in range(5):
            await trial.refused(token)
        assert len(logged()) == 1
        trial.monotonic.now += 61
        await trial.refused(token)
        assert len(logged()) == 2
        for record in logged():
            shown = logging.Formatter().format(record) + str(record.__dict__)
            assert not any(part in shown for part in token.split("."))

    trying(config_of(issuer, custom_validator=raises(RuntimeError("broken"))), scenario)


def test_claims_can_not_be_changed_by_a_validator(issuer: IssuerServer) -> None:
    def promotes(claims: Any) -> bool:
        claims["sub"] = "administrator"
        return True

    assert outcome(config_of(issuer, custom_validator=promotes), issuer.token()) == FAILED


def test_fast_path_leaves_everything_to_the_other_where_there_is_a_validator(
    issuer: IssuerServer,
) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token(answer=True))
        assert trial.authenticator.verify_now(issuer.token(answer=True)) is None
        assert trial.authenticator.verify_now("") is None

    trying(config_of(issuer, custom_validator=plain), scenario)

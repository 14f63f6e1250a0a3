"""Every bad token is refused with its status and counter; every good one is taken."""

from dataclasses import replace

import pytest

from amsync.auth import AuthRefused, Identity
from support.badtokens import ACCEPTED, BAD_TOKENS, BadToken, auth_of
from support.issuer import CLIENT_ID, IssuerServer

from .trying import Clock, Trial, trying


@pytest.mark.parametrize("bad", BAD_TOKENS, ids=lambda bad: bad.name)
def test_bad_token_is_refused_with_its_status_and_counter(
    issuer: IssuerServer, bad: BadToken
) -> None:
    async def scenario(trial: Trial) -> None:
        assert await trial.refused(bad.make(issuer)) == (bad.status, bad.reason)
        counts = {key: n for key, n in trial.counts.items() if key[0] != "auth_key_fetches"}
        assert counts == {("auth_refused", bad.reason): 1}

    trying(auth_of(issuer), scenario)


@pytest.mark.parametrize(
    "bad", [b for b in BAD_TOKENS if "validator" not in b.reason], ids=lambda bad: bad.name
)
def test_bad_token_is_refused_by_the_fast_path_or_left_to_the_other(
    issuer: IssuerServer, bad: BadToken
) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.until("auth_key_fetches", "ok")
        token = bad.make(issuer)
        if bad.reason == "key_unknown":
            # The first fetch was too short a time ago for another one.
            trial.monotonic.now += 31
            assert trial.authenticator.verify_now(token) is None
            trial.monotonic.now -= 31
        assert trial.refused_now(token) == (bad.status, bad.reason)
        assert trial.counts["auth_refused", bad.reason] == 1

    trying(replace(auth_of(issuer), custom_validator=None), scenario)


@pytest.mark.parametrize("name", ACCEPTED)
def test_good_token_is_taken(issuer: IssuerServer, name: str) -> None:
    async def scenario(trial: Trial) -> None:
        identity = await trial.verify(ACCEPTED[name](issuer))
        assert identity.issuer == issuer.url
        assert identity.claims["iss"] == issuer.url
        assert trial.counts["auth_accepted", "RS256"] == 1

    trying(auth_of(issuer), scenario)


@pytest.mark.parametrize("token", [None, b"abc", 7, ["a.b.c"]])
def test_what_is_no_text_is_refused(issuer: IssuerServer, token: object) -> None:
    async def scenario(trial: Trial) -> None:
        assert await trial.refused(token) == (401, "token_malformed")

    trying(auth_of(issuer), scenario)


def test_good_token_tells_who_it_is(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> Identity:
        token = ACCEPTED["plain"](issuer)
        return await trial.verify(token)

    identity = trying(auth_of(issuer), scenario)
    assert identity.subject == "somebody"
    assert identity.email == "somebody@example.com"
    assert identity.key == f"{issuer.url} somebody"
    assert identity.expires_at == identity.claims["exp"]
    assert identity.claims["aud"] == CLIENT_ID
    with pytest.raises(TypeError):
        identity.claims["sub"] = "another"
    assert "team" not in repr(identity)


def test_refusal_never_holds_the_token(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        for bad in BAD_TOKENS:
            token = bad.make(issuer)
            with pytest.raises(AuthRefused) as caught:
                await trial.authenticator.verify(token)
            error: BaseException | None = caught.value
            assert error is not None
            assert str(error) == f"{bad.status}: {bad.reason}"
            assert error.__cause__ is None
            assert error.__suppress_context__ or error.__context__ is None

    trying(auth_of(issuer), scenario)


def test_token_is_taken_until_the_leeway_after_its_end(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.until("auth_key_fetches", "ok")
        for now, is_taken in ((999.0, True), (1029.9, True), (1030.0, False), (99.0, False)):
            clock.now = now
            token = issuer.token(iat=130, nbf=130, exp=1000)
            if is_taken:
                assert (await trial.verify(token)).expires_at == 1000
            elif now > 1000:
                assert await trial.refused(token) == (401, "token_expired")
            else:
                assert await trial.refused(token) == (401, "token_not_yet_valid")

    clock = Clock(0.0)
    config = replace(auth_of(issuer), allowed_domains=None, required_claims={})
    trying(config, scenario, clock=clock)


def test_mistake_of_ours_refuses_and_is_logged_without_the_token(
    issuer: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> float:
        raise ZeroDivisionError(token)

    async def scenario(trial: Trial) -> None:
        await trial.until("auth_key_fetches", "ok")
        for _ in range(3):
            assert await trial.refused(token) == (401, "internal")
            assert trial.refused_now(token) == (401, "internal")
        assert trial.counts["auth_refused", "internal"] == 6

    token = ACCEPTED["plain"](issuer)
    trying(replace(auth_of(issuer), custom_validator=None), scenario, clock=broken)
    (record,) = [each for each in caplog.records if each.name == "amsync.auth"]
    assert record.levelname == "ERROR"
    assert "ZeroDivisionError in broken" in record.__dict__["error"]
    assert token not in str(record.__dict__)

"""Keys of a real issuer over HTTPS: fetched, rotated, withdrawn, kept while it is down."""

import asyncio
import gzip
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvloop

from amsync.auth import AuthConfig
from amsync.auth import fetch as fetch_module
from amsync.auth import remote as remote_module
from support.issuer import (
    CLIENT_ID,
    Answer,
    IssuerServer,
    SigningKey,
    answering,
    hanging,
    saying,
)

from .trying import Trial, trying

KEYS = "/keys"
UNAVAILABLE = (401, "keys_unavailable")
UNKNOWN = (401, "key_unknown")


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[IssuerServer]:
    """One that a test may change."""
    with IssuerServer(tmp_path / "issuer") as server:
        yield server


def config_of(issuer: IssuerServer, **more: Any) -> AuthConfig:
    return AuthConfig(CLIENT_ID, issuer.url, issuer_ca=issuer.ca, **more)


def test_keys_are_fetched_once_and_then_known(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        assert trial.authenticator.verify_now(issuer.token()) is None
        await trial.verify(issuer.token())
        for _ in range(100):
            assert trial.authenticator.verify_now(issuer.token()) is not None

    trying(config_of(issuer), scenario)
    assert issuer.asked[KEYS] == 1


def test_many_first_clients_wait_for_one_fetch(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        tokens = [issuer.token(sub=f"user-{number}") for number in range(50)]
        found = await asyncio.gather(*map(trial.verify, tokens))
        assert len({each.subject for each in found}) == 50

    trying(config_of(issuer), scenario)
    assert issuer.asked[KEYS] == 1


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_every_kind_of_key_is_taken_from_an_issuer(tmp_path: Path, algorithm: str) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        assert trial.counts["auth_accepted", algorithm] == 1

    with IssuerServer(tmp_path, key=SigningKey("k", algorithm)) as issuer:
        trying(config_of(issuer), scenario)


def test_new_key_is_found_when_its_first_token_comes(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        issuer.rotate(SigningKey("second", "ES256"))
        trial.monotonic.now += 31
        assert trial.authenticator.verify_now(issuer.token()) is None
        assert (await trial.verify(issuer.token())).subject == "somebody"
        assert (await trial.verify(issuer.keys[1].sign(issuer.claims()))).subject == "somebody"

    trying(config_of(issuer), scenario)
    assert issuer.asked[KEYS] == 2


def test_unknown_keys_ask_the_issuer_at_a_bounded_rate(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        for number in range(10):
            stranger = SigningKey(f"stranger-{number}", "ES256")
            for _ in range(10):
                assert await trial.refused(stranger.sign(issuer.claims())) == UNKNOWN
            trial.monotonic.now += 10

    trying(config_of(issuer), scenario)
    assert 2 <= issuer.asked[KEYS] <= 5  # in 100 s one for every 30


def test_withdrawn_key_is_dropped_with_the_next_fetch(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        old = issuer.token()
        await trial.verify(old)
        issuer.rotate(SigningKey("second"), keep=False)
        await trial.verify(old)
        trial.monotonic.now += 31
        await trial.verify(issuer.token())
        assert await trial.refused(old) == UNKNOWN

    trying(config_of(issuer), scenario)


def test_all_keys_withdrawn_leaves_none(
    issuer: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        issuer.published = []
        trial.monotonic.now += 3600
        trial.authenticator.verify_now(issuer.token())
        await trial.until("auth_key_fetches", "ok", 2)
        assert await trial.refused(issuer.token()) == UNKNOWN

    trying(config_of(issuer), scenario)
    assert "no key that can be used" in caplog.text


def test_keys_are_fetched_again_before_their_time_is_over(issuer: IssuerServer) -> None:
    """And nobody waits for it."""
    issuer.cache_control = "max-age=1000"

    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        for seconds, count in ((700, 1), (820, 2)):
            trial.monotonic.now = 1000.0 + seconds
            assert trial.authenticator.verify_now(issuer.token()) is not None
            await trial.until("auth_key_fetches", "ok", count)

    trying(config_of(issuer), scenario)
    assert issuer.asked[KEYS] == 2


def test_known_keys_are_used_while_the_issuer_is_down_and_not_for_ever(
    issuer: IssuerServer,
) -> None:
    issuer.cache_control = "max-age=1000"

    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        issuer.stop()
        trial.monotonic.now += 1000 + 7199
        assert trial.authenticator.verify_now(issuer.token()) is not None
        await trial.until("auth_key_fetches", "connection")
        trial.monotonic.now += 2
        assert await trial.refused(issuer.token()) == UNAVAILABLE
        issuer.start()
        trial.monotonic.now += 61
        assert (await trial.verify(issuer.token())).subject == "somebody"

    trying(config_of(issuer, max_stale_seconds=7200), scenario)


def test_issuer_that_is_down_at_the_start_refuses_and_is_asked_again(
    issuer: IssuerServer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.stop()

    async def scenario(trial: Trial) -> None:
        with caplog.at_level(logging.INFO, logger="amsync.auth"):
            assert await trial.refused(issuer.token()) == UNAVAILABLE
            assert trial.refused_now(issuer.token()) == UNAVAILABLE
            issuer.start()
            trial.monotonic.now += 2
            assert (await trial.verify(issuer.token())).subject == "somebody"

    trying(config_of(issuer), scenario)
    assert "can't be fetched" in caplog.text
    assert "are there again" in caplog.text


def test_issuer_that_stays_down_is_asked_ever_more_seldom(issuer: IssuerServer) -> None:
    issuer.fail(answering(503))

    async def scenario(trial: Trial) -> None:
        token = issuer.token()
        for _ in range(300):
            trial.monotonic.now += 1
            await trial.refused(token)

    trying(config_of(issuer), scenario)
    discovery = issuer.asked["/.well-known/openid-configuration"]
    assert 5 <= discovery <= 25  # 1, 2, 4, ... 60 s with jitter


def _redirect(to: str) -> Answer:
    return answering(302, Location=to)


FAILURES: dict[str, tuple[str, Answer, str]] = {
    # case: (path, answer, label)
    "error": ("*", answering(500), "status"),
    "not found": ("*", answering(404), "status"),
    "redirect": ("*", _redirect("https://127.0.0.1/"), "status"),
    "redirect of the keys": (KEYS, _redirect("/other"), "status"),
    "no content": ("*", answering(204), "status"),
    "empty": ("*", answering(), "malformed"),
    "a page": ("*", answering(body=b"<html>log in</html>"), "malformed"),
    "no UTF-8": ("*", answering(body=b'"\xff"'), "malformed"),
    "compressed": (  # it was asked not to be, and a bound on what came would be none
        KEYS,
        answering(body=gzip.compress(b'{"keys": []}'), Content_Encoding="gzip"),
        "malformed",
    ),
    "very deep": (KEYS, answering(body=b"[" * 500_000), "malformed"),
    "too large": (KEYS, answering(body=b" " * (1024 * 1024 + 1)), "too_large"),
    "discovery too large": ("*", answering(body=b" " * (1024 * 1024 + 1)), "too_large"),
    "keys no object": (KEYS, saying([]), "malformed"),
    "keys no list": (KEYS, saying({"keys": {}}), "malformed"),
    "very many keys": (KEYS, saying({"keys": [{}] * 201}), "malformed"),
    "discovery a list": ("*", saying([]), "malformed"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_bad_answer_is_a_failure_and_the_known_keys_stay(
    issuer: IssuerServer, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, answer, label = FAILURES[case]

    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        issuer.answers = {path: answer}
        trial.monotonic.now += 31
        assert await trial.refused(SigningKey("new", "ES256").sign(issuer.claims())) == UNKNOWN
        assert trial.counts["auth_key_fetches", label] == 1
        assert trial.authenticator.verify_now(issuer.token()) is not None

    trying(config_of(issuer), scenario)
    (record,) = [each for each in caplog.records if each.name == "amsync.auth"]
    assert record.levelname == "WARNING"
    assert record.__dict__["issuer"] == issuer.url


DISCOVERIES: dict[str, tuple[dict[str, Any], str]] = {
    "other issuer": ({"issuer": "https://example.com"}, "issuer_differs"),
    "no issuer": ({"issuer": None}, "issuer_differs"),
    "http keys": ({"jwks_uri": "http://127.0.0.1/keys"}, "malformed"),
    "keys of a file": ({"jwks_uri": "file:///etc/passwd"}, "malformed"),
    "no keys": ({"jwks_uri": None}, "malformed"),
    "keys with a user": ({"jwks_uri": "https://user@127.0.0.1/keys"}, "malformed"),
    "tenants of nobody": ({"issuer": "https://127.0.0.1/{tenantid}/v2.0"}, "issuer_differs"),
}


@pytest.mark.parametrize("case", DISCOVERIES)
def test_discovery_document_of_somebody_else_is_not_used(issuer: IssuerServer, case: str) -> None:
    changes, label = DISCOVERIES[case]
    issuer.discovery = changes

    async def scenario(trial: Trial) -> None:
        assert await trial.refused(issuer.token()) == UNAVAILABLE
        assert trial.counts["auth_key_fetches", label] == 1

    trying(config_of(issuer), scenario)
    assert issuer.asked[KEYS] == 0


def test_certificate_that_is_not_trusted_is_a_failure(issuer: IssuerServer, tmp_path: Path) -> None:
    with IssuerServer(tmp_path / "other") as other:
        config = replace(config_of(issuer), issuer_ca=other.ca)

    async def scenario(trial: Trial) -> None:
        assert await trial.refused(issuer.token()) == UNAVAILABLE
        assert trial.counts["auth_key_fetches", "tls"] == 1

    trying(config, scenario)


def test_issuer_that_hangs_keeps_nobody_longer_than_the_bound(
    issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "WAIT_SECONDS", 0.1)
    released = threading.Event()
    issuer.fail(hanging(released))

    async def scenario(trial: Trial) -> None:
        assert await trial.refused(issuer.token()) == UNAVAILABLE

    try:
        trying(config_of(issuer), scenario)
    finally:
        released.set()


def test_issuer_that_never_answers_is_a_failure(
    issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "TIMEOUT_SECONDS", 0.2)
    released = threading.Event()
    issuer.fail(hanging(released))

    async def scenario(trial: Trial) -> None:
        assert await trial.refused(issuer.token()) == UNAVAILABLE
        assert trial.counts["auth_key_fetches", "timeout"] == 1

    try:
        trying(config_of(issuer), scenario)
    finally:
        released.set()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_closing_refuses_who_waits(
    issuer: IssuerServer, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """And leaves no connection open, not even in the middle of a request."""
    released = threading.Event()
    issuer.fail(hanging(released))
    discovery = "/.well-known/openid-configuration"

    async def main() -> None:
        trial = Trial(config_of(issuer))
        await trial.authenticator.start()
        waiting = asyncio.create_task(trial.refused(issuer.token()))
        await asyncio.sleep(0)
        await asyncio.to_thread(issuer.wait_begun, discovery, 1)
        await trial.authenticator.close()
        assert await waiting == UNAVAILABLE
        assert trial.counts == {("auth_refused", "keys_unavailable"): 1}

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    finally:
        released.set()


def test_closing_in_the_middle_of_a_handshake_leaves_no_connection_open(
    issuer: IssuerServer,
) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}"
            trial = Trial(AuthConfig(CLIENT_ID, url))
            await trial.authenticator.start()
            accepted, _ = await asyncio.to_thread(silent.accept)
            with accepted:
                await asyncio.to_thread(accepted.recv, 1)
                await trial.authenticator.close()

    asyncio.run(main(), debug=True)


def test_without_start_no_issuer_is_asked(issuer: IssuerServer) -> None:
    async def main() -> None:
        trial = Trial(config_of(issuer))
        assert await trial.refused(issuer.token()) == UNAVAILABLE
        await trial.authenticator.close()

    asyncio.run(main())
    assert not issuer.asked


def test_cancelled_client_does_not_end_the_fetch_of_others(issuer: IssuerServer) -> None:
    async def scenario(trial: Trial) -> None:
        first = asyncio.create_task(trial.verify(issuer.token()))
        second = asyncio.create_task(trial.verify(issuer.token()))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).subject == "somebody"
        with pytest.raises(asyncio.CancelledError):
            await first

    trying(config_of(issuer), scenario)


def test_jwks_url_is_asked_without_discovery(issuer: IssuerServer) -> None:
    config = config_of(issuer, jwks_url=issuer.url + KEYS)

    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())

    trying(config, scenario)
    assert dict(issuer.asked) == {KEYS: 1}


def test_key_without_id_that_was_replaced_is_found(tmp_path: Path) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        issuer.rotate(SigningKey(None, "ES256"), keep=False)
        assert await trial.refused(issuer.token()) == (401, "signature_invalid")
        trial.monotonic.now += 31
        await trial.verify(issuer.token())

    with IssuerServer(tmp_path, key=SigningKey(None, "ES256")) as issuer:
        trying(config_of(issuer), scenario)


UNUSABLE: dict[str, dict[str, Any]] = {
    "for encryption": {"use": "enc"},
    "for signing only": {"key_ops": ["sign"]},
    "operations of nothing": {"key_ops": []},
    "for another algorithm": {"alg": "RS512"},
    "for HS256": {"alg": "HS256"},
    "for no signature": {"alg": "none"},
    "private": {"d": "AQAB"},
    "a secret": {"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "HS256"},
    "of another kind": {"kty": "EC"},
    "of no kind": {"kty": None},
    "id a number": {"kid": 7},
    "modulus missing": {"n": None},
    "modulus no text": {"n": 7},
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_key_that_is_not_for_this_is_not_used_and_others_are(
    issuer: IssuerServer, case: str
) -> None:
    other = SigningKey("other", "ES256")
    first = {k: v for k, v in issuer.keys[0].jwk(**UNUSABLE[case]).items() if v is not None}
    issuer.published = [first, {}, other.jwk()]  # type: ignore[list-item]

    async def scenario(trial: Trial) -> None:
        await trial.verify(other.sign(issuer.claims()))
        assert await trial.refused(issuer.token()) == UNKNOWN

    trying(config_of(issuer), scenario)


def test_weak_key_is_not_used(tmp_path: Path) -> None:
    async def scenario(trial: Trial) -> None:
        assert await trial.refused(token) == UNKNOWN

    with IssuerServer(tmp_path, key=SigningKey("weak", bits=1024)) as issuer:
        with pytest.warns(match="below the minimum"):
            token = issuer.token()
        trying(config_of(issuer), scenario)


def test_secret_of_a_jwk_set_verifies_nothing(issuer: IssuerServer) -> None:
    """Whoever reads the set could sign with it."""
    secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"
    issuer.published = [{"kty": "oct", "kid": "s", "alg": "HS256", "k": secret}]
    forged = json.dumps(issuer.claims()).encode()

    async def scenario(trial: Trial) -> None:
        token = jwt.PyJWS().encode(
            forged, jwt.utils.base64url_decode(secret), "HS256", headers={"kid": "s"}
        )
        assert await trial.refused(token) == (401, "algorithm_refused")

    trying(config_of(issuer), scenario)

"""Whose keys verify whose tokens: several issuers, many tenants, keys that are given."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from amsync import Issuer
from amsync.auth import AuthConfig
from support.issuer import CLIENT_ID, IssuerServer, SigningKey

from .trying import Trial, trying

SECRET = "a secret of more than thirty-two bytes"
TENANT = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_TENANT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
UNKNOWN_ISSUER = (401, "issuer_unknown")


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[IssuerServer]:
    """One that a test may change."""
    with IssuerServer(tmp_path / "issuer") as server:
        yield server


@pytest.fixture
def other(tmp_path: Path) -> Iterator[IssuerServer]:
    with IssuerServer(tmp_path / "issuer", key=SigningKey("first")) as server:
        yield server


def pem_of(key: SigningKey) -> str:
    found: bytes = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found.decode()


def with_secret(claims: dict[str, Any], secret: str = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret, algorithm)


def test_keys_of_one_issuer_never_verify_tokens_of_another(
    issuer: IssuerServer, other: IssuerServer
) -> None:
    """Both call their keys `first`."""
    config = AuthConfig(CLIENT_ID, issuer.url, issuers=[Issuer(other.url)], issuer_ca=issuer.ca)

    async def scenario(trial: Trial) -> None:
        assert (await trial.verify(issuer.token())).issuer == issuer.url
        assert (await trial.verify(other.token())).issuer == other.url
        for key, named in ((issuer.keys[0], other), (other.keys[0], issuer)):
            token = key.sign(named.claims())
            assert await trial.refused(token) == (401, "signature_invalid")
        assert await trial.refused(issuer.token(iss="https://example.com")) == UNKNOWN_ISSUER

    trying(config, scenario)


def test_one_issuer_that_is_down_does_not_keep_the_others_out(
    issuer: IssuerServer, other: IssuerServer
) -> None:
    other.stop()
    config = AuthConfig(CLIENT_ID, issuer.url, issuers=[Issuer(other.url)], issuer_ca=issuer.ca)

    async def scenario(trial: Trial) -> None:
        assert (await trial.verify(issuer.token())).issuer == issuer.url
        assert await trial.refused(other.token()) == (401, "keys_unavailable")

    trying(config, scenario)


def test_every_issuer_has_its_own_audiences(issuer: IssuerServer, other: IssuerServer) -> None:
    further = Issuer(other.url, audiences="b", authorized_parties=["c"])
    config = AuthConfig(
        CLIENT_ID, issuer.url, audiences=["a"], issuers=[further], issuer_ca=issuer.ca
    )

    async def scenario(trial: Trial) -> None:
        for aud in (CLIENT_ID, "a", ["x", "a"]):
            await trial.verify(issuer.token(aud=aud, azp=CLIENT_ID))
        await trial.verify(other.token(aud="b", azp="c"))
        for aud in (CLIENT_ID, "a"):
            refused = await trial.refused(other.token(aud=aud, azp="c"))
            assert refused == (401, "audience_refused")
        assert await trial.refused(issuer.token(aud="b")) == (401, "audience_refused")
        assert await trial.refused(other.token(aud="b")) == (401, "party_refused")
        assert await trial.refused(other.token(aud="b", azp="b")) == (401, "party_refused")

    trying(config, scenario)


def test_subjects_of_the_same_name_are_not_the_same(
    issuer: IssuerServer, other: IssuerServer
) -> None:
    config = AuthConfig(CLIENT_ID, issuer.url, issuers=[Issuer(other.url)], issuer_ca=issuer.ca)

    async def scenario(trial: Trial) -> None:
        keys = {(await trial.verify(each.token())).key for each in (issuer, other)}
        assert len(keys) == 2

    trying(config, scenario)


def tenants(folder: Path, **more: Any) -> IssuerServer:
    """An issuer like Microsoft's for many tenants."""
    server = IssuerServer(folder, path="/common/v2.0")
    server.discovery = {"issuer": f"https://127.0.0.1:{server.port}/{{tenantid}}/v2.0"}
    return server


def of_tenant(server: IssuerServer, tenant: str, **more: Any) -> dict[str, Any]:
    claims = server.claims(iss=f"https://127.0.0.1:{server.port}/{tenant}/v2.0", tid=tenant)
    return {**claims, **more}


def test_issuer_of_many_tenants_signs_for_each_in_its_own_name(tmp_path: Path) -> None:
    async def scenario(trial: Trial) -> None:
        key = server.keys[0]
        one = await trial.verify(key.sign(of_tenant(server, TENANT)))
        two = await trial.verify(key.sign(of_tenant(server, OTHER_TENANT)))
        assert one.issuer == f"https://127.0.0.1:{server.port}/{TENANT}/v2.0"
        assert one.key != two.key
        bad = [
            server.claims(tid=TENANT),  # in nobody's name
            of_tenant(server, TENANT, tid=OTHER_TENANT),
            of_tenant(server, TENANT, tid=None),
            of_tenant(server, "everybody"),
            of_tenant(server, f"{TENANT}/x"),
            of_tenant(server, "{tenantid}"),
        ]
        for claims in bad:
            assert await trial.refused(key.sign(claims)) == UNKNOWN_ISSUER, claims

    with tenants(tmp_path) as server:
        trying(AuthConfig(CLIENT_ID, server.url, issuer_ca=server.ca), scenario)


def test_key_of_one_tenant_does_not_sign_for_another(tmp_path: Path) -> None:
    async def scenario(trial: Trial) -> None:
        await trial.verify(key.sign(of_tenant(server, TENANT)))
        assert await trial.refused(key.sign(of_tenant(server, OTHER_TENANT))) == (
            401,
            "key_unknown",
        )
        await trial.verify(general.sign(of_tenant(server, OTHER_TENANT)))

    with tenants(tmp_path) as server:
        key, general = server.keys[0], SigningKey("general", "ES256")
        before = f"https://127.0.0.1:{server.port}"
        server.published = [
            key.jwk(issuer=f"{before}/{TENANT}/v2.0"),
            general.jwk(issuer=f"{before}/{{tenantid}}/v2.0"),
        ]
        trying(AuthConfig(CLIENT_ID, server.url, issuer_ca=server.ca), scenario)


def test_issuer_with_such_a_name_but_without_tenants_signs_in_its_own(tmp_path: Path) -> None:
    async def scenario(trial: Trial) -> None:
        assert (await trial.verify(server.token())).issuer == server.url
        token = server.keys[0].sign(of_tenant(server, TENANT))
        assert await trial.refused(token) == UNKNOWN_ISSUER

    with IssuerServer(tmp_path, path="/common/v2.0") as server:
        trying(AuthConfig(CLIENT_ID, server.url, issuer_ca=server.ca), scenario)


@pytest.mark.parametrize("name", ["https://accounts.google.com", "accounts.google.com"])
def test_both_names_of_google_are_one_issuer(name: str) -> None:
    key = SigningKey("k", "ES256")
    config = AuthConfig(CLIENT_ID, "https://accounts.google.com", keys={"keys": [key.jwk()]})

    async def scenario(trial: Trial) -> None:
        now = int(time.time())
        token = key.sign({"iss": name, "aud": CLIENT_ID, "sub": "1", "exp": now + 60})
        assert (await trial.verify(token)).key == "https://accounts.google.com 1"

    trying(config, scenario)


@pytest.mark.parametrize("form", ["dict", "text", "one", "pem", "file", "pem file", "path"])
def test_keys_may_be_given_in_several_forms(tmp_path: Path, form: str) -> None:
    key, path = SigningKey("k", "ES256"), tmp_path / "keys"
    jwks = {"keys": [key.jwk(), SigningKey("other").jwk()]}
    path.write_text(pem_of(key) if form == "pem file" else json.dumps(jwks))
    keys: Any = {
        "dict": jwks,
        "text": json.dumps(jwks),
        "one": json.dumps(key.jwk()),
        "pem": f"Ours:\n{pem_of(SigningKey('other', 'EdDSA'))}\n{pem_of(key)}",
        "file": str(path),
        "pem file": str(path),
        "path": path,
    }[form]

    async def scenario(trial: Trial) -> None:
        now = int(time.time())
        claims = {"iss": "ours", "aud": CLIENT_ID, "sub": "1", "exp": now + 60}
        identity = trial.authenticator.verify_now(key.sign(claims))
        assert identity is not None
        assert identity.key == "ours 1"
        stranger = SigningKey("k", "ES256").sign(claims)
        assert trial.refused_now(stranger) == (401, "signature_invalid")

    trying(AuthConfig(CLIENT_ID, "ours", keys=keys), scenario)


def test_certificate_may_be_given_as_key(issuer: IssuerServer) -> None:
    """It is only a form of the key: whether it is valid is nobody's question."""
    config = AuthConfig(CLIENT_ID, "ours", keys=issuer.ca)
    assert len(config.all_issuers[0].own_keys() or ()) == 1


def test_shared_secret_verifies_hs256_and_nothing_else() -> None:
    config = AuthConfig(CLIENT_ID, "ours", shared_secret=SECRET)

    async def scenario(trial: Trial) -> None:
        now = int(time.time())
        claims = {"iss": "ours", "aud": CLIENT_ID, "sub": "1", "exp": now + 60}
        assert trial.authenticator.verify_now(with_secret(claims)) is not None
        assert trial.counts["auth_accepted", "HS256"] == 1
        other = with_secret(claims, SECRET[::-1])
        assert trial.refused_now(other) == (401, "signature_invalid")
        for algorithm in ("HS384", "HS512"):
            token = with_secret(claims, SECRET * 2, algorithm)
            assert trial.refused_now(token) == (401, "algorithm_refused")
        asymmetric = SigningKey("k").sign(claims)
        assert trial.refused_now(asymmetric) == (401, "algorithm_refused")

    trying(config, scenario)


def test_secret_of_one_issuer_does_not_sign_for_one_with_keys(issuer: IssuerServer) -> None:
    further = Issuer("ours", shared_secret=SECRET.encode())
    config = AuthConfig(CLIENT_ID, issuer.url, issuers=[further], issuer_ca=issuer.ca)

    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.token())
        await trial.verify(with_secret(issuer.claims(iss="ours")))
        forged = with_secret(issuer.claims())
        assert await trial.refused(forged) == (401, "algorithm_refused")

    trying(config, scenario)


def test_algorithms_can_be_narrowed(issuer: IssuerServer) -> None:
    issuer.keys.append(SigningKey("second", "ES256"))
    config = AuthConfig(CLIENT_ID, issuer.url, issuer_ca=issuer.ca, algorithms="ES256")

    async def scenario(trial: Trial) -> None:
        await trial.verify(issuer.keys[1].sign(issuer.claims()))
        assert await trial.refused(issuer.token()) == (401, "algorithm_refused")

    trying(config, scenario)


def test_configuration_shows_no_secret() -> None:
    key = SigningKey("k", "ES256")
    first = AuthConfig(CLIENT_ID, "ours", shared_secret=SECRET)
    second = dataclasses.replace(first, issuers=[Issuer("theirs", shared_secret=SECRET)])
    third = AuthConfig(CLIENT_ID, "ours", keys={"keys": [key.jwk()]})
    for config in (first, second, third):
        assert SECRET not in repr(config)
        assert "P-256" not in repr(config)
        assert SECRET not in repr(config.all_issuers)

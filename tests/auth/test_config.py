"""What `AuthConfig` and `Issuer` take, and what they say of what they don't."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from amsync import AuthConfig, ConfigError, Issuer
from support.issuer import SigningKey

from .test_several_issuers import SECRET, pem_of

URL = "https://issuer.example.com"


def test_defaults_are_those_of_the_r_package() -> None:
    config = AuthConfig("mine")
    assert config.client_id == "mine"
    assert config.issuer == "https://accounts.google.com"
    assert config.allowed_emails is None
    assert config.allowed_domains is None
    assert config.custom_validator is None
    assert config.leeway_seconds == 30
    assert config.allow_query_token is False
    (issuer,) = config.all_issuers
    assert issuer.audiences == ("mine",)
    assert issuer.own_keys() is None
    assert issuer.accepted == {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }


def test_first_five_arguments_need_no_names() -> None:
    config = AuthConfig("mine", URL, "a@b.org", ["b.org"], print)
    assert config.issuer == URL
    assert config.allowed_emails == ("a@b.org",)
    assert config.allowed_domains == ("b.org",)
    assert config.custom_validator is print


def test_environment_fills_in_client_id_and_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_CLIENT_ID", "from-environment")
    monkeypatch.setenv("OIDC_ISSUER", URL)
    assert AuthConfig().client_id == "from-environment"
    assert AuthConfig().issuer == URL
    assert AuthConfig("given", "https://given.example.com").client_id == "given"
    assert AuthConfig("given", "https://given.example.com").issuer == "https://given.example.com"


def test_empty_environment_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_CLIENT_ID", "")
    monkeypatch.setenv("OIDC_ISSUER", "")
    assert AuthConfig("given").issuer == "https://accounts.google.com"
    with pytest.raises(ConfigError, match="OIDC_CLIENT_ID"):
        AuthConfig()


def test_a_changed_copy_is_checked_again() -> None:
    config = AuthConfig("mine", URL, allowed_emails="a@b.org")
    assert dataclasses.replace(config, leeway_seconds=5).allowed_emails == ("a@b.org",)
    with pytest.raises(ConfigError, match="leeway_seconds"):
        dataclasses.replace(config, leeway_seconds=-1)


def jwks(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys)}


KEY = SigningKey("k", "ES256")
PUBLIC = KEY.jwk()
PRIVATE = {**PUBLIC, "d": "AQAB"}
WEAK = SigningKey("weak", bits=1024)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    # case: (arguments, what the message has to match)
    "no client id": ({"client_id": None}, "client_id=None.*OIDC_CLIENT_ID"),
    "client id a number": ({"client_id": 7}, "client_id=7"),
    "client id with a space": ({"client_id": "a b"}, "client_id='a b'.*without spaces"),
    "issuer over http": ({"issuer": "http://example.com"}, "issuer=.*https://"),
    "issuer no URL": ({"issuer": "example.com"}, "issuer=.*https://"),
    "issuer with a query": ({"issuer": URL + "?a=b"}, "issuer=.*query"),
    "issuer with a fragment": ({"issuer": URL + "#a"}, "issuer=.*fragment"),
    "issuer with a user": ({"issuer": "https://a:b@example.com"}, "issuer=.*user"),
    "issuer with a bad port": ({"issuer": "https://example.com:x"}, "issuer="),
    "issuer without a host": ({"issuer": "https:///x"}, "issuer="),
    "issuer with a newline": ({"issuer": URL + "\n"}, "issuer="),
    "issuer with other letters": ({"issuer": "https://ex\u0430mple.com"}, "issuer="),
    "issuer a file": ({"issuer": "file:///etc/passwd"}, "issuer=.*https://"),
    "issuer very long": ({"issuer": URL + "/x" * 2000}, "issuer has .* characters"),
    "emails empty": ({"allowed_emails": []}, "allowed_emails=.*nobody"),
    "emails a number": ({"allowed_emails": 7}, "allowed_emails=7.*list of texts"),
    "emails no address": ({"allowed_emails": "example.com"}, "allowed_emails=.*name@domain"),
    "emails with an empty one": ({"allowed_emails": ["a@b.c", ""]}, "allowed_emails=''"),
    "emails with a number": ({"allowed_emails": ["a@b.c", 7]}, "allowed_emails=7"),
    "domains empty": ({"allowed_domains": ()}, "allowed_domains=.*nobody"),
    "domains an address": ({"allowed_domains": "a@b.c"}, "allowed_domains=.*example.com"),
    "domains everything": ({"allowed_domains": "*"}, "allowed_domains='\\*'"),
    "domains star inside": ({"allowed_domains": "a.*.c"}, "allowed_domains="),
    "domains star dot": ({"allowed_domains": "*."}, "allowed_domains="),
    "domains a URL": ({"allowed_domains": "https://b.c"}, "allowed_domains="),
    "validator a text": ({"custom_validator": "m:f"}, "custom_validator='m:f'.*callable"),
    "audiences": ({"audiences": [7]}, "audiences=7"),
    "parties": ({"authorized_parties": ""}, "authorized_parties=''"),
    "jwks url": ({"jwks_url": "http://example.com/keys"}, "jwks_url=.*https://"),
    "keys no JSON": ({"keys": "{"}, "keys of .*JSON"),
    "keys no file": ({"keys": "/no/such/file"}, "keys of .*/no/such/file.*can't be read"),
    "keys a list": ({"keys": [PUBLIC]}, "keys of .*list"),
    "keys none": ({"keys": jwks()}, "keys of "),
    "keys private": ({"keys": jwks(PRIVATE)}, "keys of .*can't be used"),
    "keys one unusable": ({"keys": jwks(PUBLIC, {})}, "1 of its keys"),
    "keys a secret": ({"keys": jwks({"kty": "oct", "k": "c2VjcmV0"})}, "1 of its keys"),
    "keys weak": ({"keys": jwks(WEAK.jwk())}, "1 of its keys.*2048"),
    "keys weak PEM": ({"keys": pem_of(WEAK)}, "1024 bits.*2048"),
    "keys cut PEM": ({"keys": pem_of(KEY)[:60]}, "0 keys"),
    "keys bad PEM": ({"keys": pem_of(KEY).replace("M", "!", 1)}, "PEM that can't be read"),
    "keys many PEM": ({"keys": pem_of(KEY) * 5}, "5 keys"),
    "keys private PEM": (
        {"keys": "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"},
        "something else than public keys",
    ),
    "secret short": ({"shared_secret": "short"}, "5 bytes.*32"),
    "secret a number": ({"shared_secret": 7}, "shared_secret.*int"),
    "secret a public key": ({"shared_secret": pem_of(KEY)}, "others have"),
    "secret and keys": ({"shared_secret": SECRET, "keys": jwks(PUBLIC)}, "don't go together"),
    "secret and jwks url": ({"shared_secret": SECRET, "jwks_url": URL}, "don't go together"),
    "keys and jwks url": ({"keys": jwks(PUBLIC), "jwks_url": URL}, "don't go together"),
    "HS256 without a secret": ({"algorithms": "HS256"}, "HS256.*shared_secret"),
    "RS256 with a secret": ({"shared_secret": SECRET, "algorithms": "RS256"}, "RS256"),
    "no algorithm": ({"algorithms": ["none"]}, "'none'.*allowed are"),
    "required claims a list": ({"required_claims": ["a"]}, "required_claims=.*dict"),
    "required claim an object": ({"required_claims": {"a": {}}}, "required_claims=.*'a'"),
    "required claim without name": ({"required_claims": {"": "a"}}, "required_claims="),
    "leeway negative": ({"leeway_seconds": -1}, "leeway_seconds=-1.*300"),
    "leeway large": ({"leeway_seconds": 301}, "leeway_seconds=301.*300"),
    "leeway true": ({"leeway_seconds": True}, "leeway_seconds=True"),
    "leeway no number": ({"leeway_seconds": float("nan")}, "leeway_seconds=nan"),
    "stale": ({"max_stale_seconds": 1e9}, "max_stale_seconds"),
    "token bytes": ({"max_token_bytes": 100}, "max_token_bytes=100.*256"),
    "token bytes large": ({"max_token_bytes": 10**6}, "max_token_bytes.*65536"),
    "query token": ({"allow_query_token": "yes"}, "allow_query_token='yes'"),
    "ca missing": ({"issuer_ca": "/no/such/file"}, "issuer_ca=.*/no/such/file"),
    "ca no certificate": ({"issuer_ca": __file__}, "issuer_ca=.*PEM"),
    "issuers one": ({"issuers": Issuer(URL)}, "issuers.*list"),
    "issuers texts": ({"issuers": [URL]}, "issuers.*amsync.Issuer"),
    "issuers twice": ({"issuers": [Issuer(URL)]}, "twice"),
    "issuers twice among themselves": (
        {"issuers": [Issuer("https://a.org"), Issuer("https://a.org")]},
        "twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument_is_named_with_what_is_allowed(case: str) -> None:
    arguments, message = WRONG[case]
    with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
        AuthConfig(**{"client_id": "mine", "issuer": URL, **arguments})
    assert SECRET not in str(caught.value)


def test_google_under_both_names_is_there_twice() -> None:
    further = Issuer("accounts.google.com", keys=jwks(PUBLIC))
    with pytest.raises(ConfigError, match="twice"):
        AuthConfig("mine", issuers=[further])


@pytest.mark.parametrize("arguments", [{"keys": jwks(PUBLIC)}, {"shared_secret": SECRET}])
def test_own_keys_need_a_named_issuer(arguments: dict[str, Any]) -> None:
    """Google's tokens are not signed by them."""
    with pytest.raises(ConfigError, match="issuer=None"):
        AuthConfig("mine", **arguments)


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:1/a"])
def test_issuer_of_this_machine_may_do_without_tls(url: str) -> None:
    assert AuthConfig("mine", url).issuer == url


def test_issuer_that_says_nothing_of_audiences_has_those_of_the_first() -> None:
    config = AuthConfig("mine", audiences=["api"], authorized_parties="app", issuers=[Issuer(URL)])
    assert config.all_issuers[1].audiences == ("mine", "api")
    assert config.all_issuers[1].authorized_parties == ("app",)


def test_keys_of_a_file_are_read_when_it_is_made(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(jwks(PUBLIC)))
    config = AuthConfig("mine", "ours", keys=path)
    assert len(config.all_issuers[0].own_keys() or ()) == 1

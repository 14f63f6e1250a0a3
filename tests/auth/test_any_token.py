"""No text whatever makes verification raise anything but AuthRefused, or lets anybody in."""

import contextlib
import json
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsync.auth import AuthConfig, Authenticator, AuthRefused, Identity
from amsync.auth.keys import UnusableKey, from_jwk_set, from_text
from support.badtokens import part
from support.issuer import CLIENT_ID, SigningKey

KEYS = [SigningKey("rsa"), SigningKey("ec", "ES256"), SigningKey(None, "EdDSA")]
NOW = 1_800_000_000
CONFIG = AuthConfig(
    CLIENT_ID,
    "ours",
    keys={"keys": [each.jwk() for each in KEYS]},
    allowed_domains="example.com",
    required_claims={"team": "docs"},
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
near_now = st.integers(NOW - 100, NOW + 100) | st.floats(NOW - 100, NOW + 100)
claims = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.just("ours") | json_values,
        "aud": st.just(CLIENT_ID) | st.just([CLIENT_ID, "b"]) | json_values,
        "azp": st.just(CLIENT_ID) | json_values,
        "sub": st.text() | json_values,
        "exp": near_now | json_values,
        "nbf": near_now | json_values,
        "iat": near_now | json_values,
        "email": st.just("a@example.com") | st.text() | json_values,
        "email_verified": st.booleans() | json_values,
        "team": st.just("docs") | json_values,
        "tid": json_values,
    },
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "PS256", "ES256", "EdDSA", "HS256", "none", "ES512"])
        | json_values,
        "kid": st.sampled_from(["rsa", "ec", "other"]) | json_values,
        "typ": st.sampled_from(["JWT", "at+jwt"]) | json_values,
        "crit": json_values,
        "b64": json_values,
        "jwk": json_values,
        "jku": json_values,
        "x5c": json_values,
    },
)


COUNTS: list[tuple[str, str]] = []
AUTHENTICATOR = Authenticator(CONFIG, clock=lambda: NOW, count=lambda *event: COUNTS.append(event))


def outcome(token: Any) -> Identity | None:
    """None if it was refused; both ways must say the same."""
    COUNTS.clear()
    results: list[Identity | str | None] = []
    try:
        results.append(AUTHENTICATOR.verify_now(token))
    except AuthRefused as refused:
        results.append(refused.reason)
    try:
        AUTHENTICATOR.verify(token).send(None)  # with keys that are given nothing waits
    except StopIteration as result:
        results.append(result.value)
    except AuthRefused as refused:
        results.append(refused.reason)
    assert len(results) == 2
    assert results[0] == results[1]
    assert results[0] is not None
    assert ("auth_refused", "internal") not in COUNTS
    return results[0] if isinstance(results[0], Identity) else None


@given(st.text() | st.binary() | json_values)
def test_any_text_is_refused(text: object) -> None:
    assert outcome(text) is None


@given(st.lists(st.binary(max_size=40).map(part), min_size=3, max_size=3).map(".".join))
def test_any_bytes_in_three_parts_are_refused(token: str) -> None:
    assert outcome(token) is None


@given(headers, claims, st.binary(max_size=300))
def test_any_header_and_claims_without_a_signature_are_refused(
    header: dict[str, Any], payload: dict[str, Any], signature: bytes
) -> None:
    assert outcome(f"{part(header)}.{part(payload)}.{part(signature)}") is None


@settings(max_examples=300)
@given(st.sampled_from(KEYS), headers, claims)
def test_any_claims_that_are_signed_are_taken_or_refused(
    key: SigningKey, header: dict[str, Any], payload: dict[str, Any]
) -> None:
    """Signed in truth: what is behind the signature sees all of this."""
    header = {"alg": key.algorithm, **({} if key.key_id is None else {"kid": key.key_id}), **header}
    text = f"{part(header)}.{part(payload)}"
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    identity = outcome(f"{text}.{part(algorithm.sign(text.encode(), key.private))}")
    if identity is not None:
        assert identity.issuer == payload["iss"] == "ours"
        assert identity.subject == payload["sub"]
        assert CLIENT_ID in payload["aud"]
        assert payload["exp"] > NOW - 30
        assert payload["email_verified"] in (True, "true")
        assert header["alg"] == key.algorithm


GOOD = {
    "iss": "ours",
    "aud": CLIENT_ID,
    "sub": "somebody",
    "exp": NOW + 60,
    "email": "a@example.com",
    "email_verified": True,
    "team": "docs",
}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.algorithm)
def test_good_one_is_taken(key: SigningKey) -> None:
    """Else the tests here would show nothing."""
    identity = outcome(key.sign(GOOD))
    assert identity is not None
    assert identity.email == "a@example.com"


@settings(max_examples=400)
@given(st.sampled_from(KEYS), st.data())
def test_any_change_of_one_letter_is_refused(key: SigningKey, data: st.DataObject) -> None:
    token = key.sign(GOOD)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters(min_codepoint=32, max_codepoint=126))
    changed = token[:place] + letter + token[place + 1 :]
    assert (outcome(changed) is None) == (changed != token)


@given(st.sampled_from(KEYS), st.integers(0, 2000))
def test_any_beginning_is_refused(key: SigningKey, length: int) -> None:
    token = key.sign(GOOD)
    assert (outcome(token[:length]) is None) == (length < len(token))


def test_what_is_behind_the_signature_is_never_reached_without_one() -> None:
    """A wrong claim is not told to those who can't sign."""
    for changes in ({"exp": 1}, {"aud": "b"}, {"email": "a@b.c"}):
        forged = SigningKey("rsa").sign({**GOOD, **changes})
        with pytest.raises(AuthRefused) as caught:
            AUTHENTICATOR.verify_now(forged)
        assert caught.value.reason == "signature_invalid"


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_jwk_set_is_read_or_refused(document: bytes) -> None:
    try:
        keys, unusable_count = from_jwk_set(json.loads(document))
    except (ValueError, UnusableKey):
        pass
    else:
        assert len(keys) + unusable_count >= 0
    with contextlib.suppress(UnusableKey):
        from_text(document.decode("latin-1"))

"""Every kind of token that must not let anybody in, with what each of them is refused with.

One configuration refuses them all, `auth_of(issuer)`; so they can be tried on an `Authenticator`
and on a server's URL. `ACCEPTED` are those that it takes.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization

from amsync import AuthConfig

from .issuer import CLIENT_ID, IssuerServer, SigningKey

Make = Callable[[IssuerServer], str]
MAX_TOKEN_BYTES = 8192


def validator(claims: Mapping[str, Any]) -> object:
    """What the configuration asks; the subject says what it does."""
    match claims["sub"]:
        case "refused":
            return False
        case "raises":
            raise RuntimeError("this validator raises")
        case "truthy":
            return 1
    return True


def auth_of(issuer: IssuerServer) -> AuthConfig:
    """The configuration; other parts of it may be added, but these have to stay."""
    return AuthConfig(
        CLIENT_ID,
        issuer.url,
        allowed_domains="example.com",
        custom_validator=validator,
        required_claims={"team": "docs"},
        issuer_ca=issuer.ca,
        max_token_bytes=MAX_TOKEN_BYTES,
    )


@dataclass(frozen=True)
class BadToken:
    """One that is refused.

    Attributes:
        name: What is wrong with it.
        make: Makes it, by the issuer's keys as they are then.
    """

    name: str
    make: Make
    status: int
    reason: str


def good(issuer: IssuerServer, **more: Any) -> str:
    """A token that the configuration takes, but for what is given; None leaves a claim out."""
    return issuer.token(**_known(more))


def _known(more: dict[str, Any]) -> dict[str, Any]:
    return {"email": "somebody@example.com", "email_verified": True, "team": "docs", **more}


def part(value: object) -> str:
    """A part of a token: JSON, or bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(issuer: IssuerServer, header: object, payload: object) -> str:
    """Signed in truth by the issuer's key, whatever header and payload are."""
    key = issuer.keys[0]
    text = f"{part(header)}.{part(payload)}"
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return f"{text}.{part(algorithm.sign(text.encode(), key.private))}"


def _claims(issuer: IssuerServer, **more: Any) -> dict[str, Any]:
    return issuer.claims(**_known(more))


def _header(issuer: IssuerServer, **more: Any) -> dict[str, Any]:
    key = issuer.keys[0]
    header = {"typ": "JWT", "alg": key.algorithm, "kid": key.key_id, **more}
    return {name: value for name, value in header.items() if value is not None}


def _with_header(**more: Any) -> Make:
    return lambda issuer: signed(issuer, _header(issuer, **more), _claims(issuer))


def _with_claims(**more: Any) -> Make:
    return lambda issuer: signed(issuer, _header(issuer), _claims(issuer, **more))


def _with_json(text: str) -> Make:
    """Claims written by hand, after the good ones: of two of one name the later one counts."""

    def make(issuer: IssuerServer) -> str:
        claims = json.dumps(_claims(issuer)).rstrip("}")
        return signed(issuer, _header(issuer), f"{claims}, {text}}}".encode())

    return make


def _with_time(name: str, seconds: float) -> Make:
    return lambda issuer: good(issuer, **{name: time.time() + seconds})


def _none(issuer: IssuerServer) -> str:
    return f"{part(_header(issuer, alg='none'))}.{part(_claims(issuer))}."


def _confused(issuer: IssuerServer) -> str:
    """HS256 with the public key, as everybody can read it, for a secret."""
    public = issuer.keys[0].private.public_key()
    secret = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f"{part(_header(issuer, alg='HS256'))}.{part(_claims(issuer))}"
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def _by_another(key_id: str | None = None, **header: Any) -> Make:
    def make(issuer: IssuerServer) -> str:
        other = SigningKey(key_id or issuer.keys[0].key_id)
        return other.sign(_claims(issuer), **header)

    return make


def _embedded(issuer: IssuerServer) -> str:
    """Brings its own key along."""
    other = SigningKey("mine")
    return other.sign(_claims(issuer), jwk=other.jwk())


def _tampered(place: int) -> Make:
    def make(issuer: IssuerServer) -> str:
        parts = good(issuer).split(".")
        if place == 1:
            parts[1] = part(_claims(issuer, sub="administrator"))
        else:
            letter = "B" if parts[place][10] != "B" else "C"
            parts[place] = parts[place][:10] + letter + parts[place][11:]
        return ".".join(parts)

    return make


def _oversized(issuer: IssuerServer) -> str:
    return good(issuer, filling="x" * MAX_TOKEN_BYTES)


def _deep(issuer: IssuerServer) -> str:
    return f"{part(_header(issuer))}.{part(b'[' * 4000)}.{part(b'x' * 256)}"


def _text(text: str) -> Make:
    return lambda _issuer: text


def _issuer_list(issuer: IssuerServer) -> str:
    return signed(issuer, _header(issuer), _claims(issuer, iss=[issuer.url]))


def _cut(count: int) -> Make:
    return lambda issuer: ".".join(good(issuer).split(".")[:count])


BAD_TOKENS = [
    BadToken("none", _text(""), 401, "token_missing"),
    BadToken("a word", _text("token"), 401, "token_malformed"),
    BadToken("dots", _text(".."), 401, "token_malformed"),
    BadToken("other alphabet", _text("a+/b.c.d"), 401, "token_malformed"),
    BadToken("two parts", _cut(2), 401, "token_malformed"),
    BadToken("four parts", lambda i: good(i) + ".x", 401, "token_malformed"),
    BadToken("padding", lambda i: good(i) + "==", 401, "token_malformed"),
    BadToken("five parts, as if encrypted", _text("a.b.c.d.e"), 401, "token_malformed"),
    BadToken("oversized", _oversized, 401, "token_too_large"),
    BadToken("header no JSON", lambda i: signed(i, b"{", _claims(i)), 401, "token_malformed"),
    BadToken("header a list", lambda i: signed(i, [], _claims(i)), 401, "token_malformed"),
    BadToken("header no UTF-8", lambda i: signed(i, b"\xff", _claims(i)), 401, "token_malformed"),
    BadToken("payload no JSON", lambda i: signed(i, _header(i), b"{"), 401, "token_malformed"),
    BadToken("payload a list", lambda i: signed(i, _header(i), []), 401, "token_malformed"),
    BadToken("payload a text", lambda i: signed(i, _header(i), "x"), 401, "token_malformed"),
    BadToken("payload null", lambda i: signed(i, _header(i), None), 401, "token_malformed"),
    BadToken("payload very deep", _deep, 401, "token_malformed"),
    BadToken("huge number", _with_json(f'"exp": {"9" * 5000}'), 401, "token_malformed"),
    BadToken("type of a logout token", _with_header(typ="logout+jwt"), 401, "header_refused"),
    BadToken("type no text", _with_header(typ=7), 401, "header_refused"),
    BadToken("critical extension", _with_header(crit=["exp"]), 401, "header_refused"),
    BadToken("payload apart", _with_header(b64=False), 401, "header_refused"),
    BadToken("kid a number", _with_header(kid=7), 401, "header_refused"),
    BadToken("kid very long", _with_header(kid="k" * 4000), 401, "header_refused"),
    BadToken("alg: none", _none, 401, "algorithm_refused"),
    BadToken("alg: None", _with_header(alg="None"), 401, "algorithm_refused"),
    BadToken("alg a number", _with_header(alg=256), 401, "algorithm_refused"),
    BadToken("no alg", _with_header(alg=None), 401, "algorithm_refused"),
    BadToken("alg a list", _with_header(alg=["RS256"]), 401, "algorithm_refused"),
    BadToken("HS/RS confusion", _confused, 401, "algorithm_refused"),
    BadToken("ES256 with an RSA key", _with_header(alg="ES256"), 401, "key_unknown"),
    BadToken("PS256 with a key for RS256", _with_header(alg="PS256"), 401, "key_unknown"),
    BadToken("unknown kid", _by_another("unknown"), 401, "key_unknown"),
    BadToken("its own key", _embedded, 401, "key_unknown"),
    BadToken(
        "its own place of keys",
        _by_another("unknown", jku="https://127.0.0.1/keys"),
        401,
        "key_unknown",
    ),
    BadToken("another key of this kid", _by_another(), 401, "signature_invalid"),
    BadToken("header tampered with", _tampered(0), 401, "token_malformed"),
    BadToken("payload tampered with", _tampered(1), 401, "signature_invalid"),
    BadToken("signature tampered with", _tampered(2), 401, "signature_invalid"),
    BadToken("no signature", lambda i: good(i).rpartition(".")[0] + ".", 401, "signature_invalid"),
    BadToken("other issuer", _with_claims(iss="https://example.com"), 401, "issuer_unknown"),
    BadToken("issuer with a slash", lambda i: good(i, iss=i.url + "/"), 401, "issuer_unknown"),
    BadToken("no issuer", _with_claims(iss=None), 401, "issuer_unknown"),
    BadToken("issuer a list", _issuer_list, 401, "issuer_unknown"),
    BadToken("expired", _with_time("exp", -31), 401, "token_expired"),
    BadToken("no exp", _with_claims(exp=None), 401, "time_refused"),
    BadToken("exp a text", _with_claims(exp="9999999999"), 401, "time_refused"),
    BadToken("exp true", _with_claims(exp=True), 401, "time_refused"),
    BadToken("exp not a number", _with_json('"exp": NaN'), 401, "time_refused"),
    BadToken("exp infinite", _with_json('"exp": Infinity'), 401, "time_refused"),
    BadToken("exp overflowing", _with_json('"exp": 1e400'), 401, "time_refused"),
    BadToken("exp beyond all years", _with_json(f'"exp": {"9" * 400}'), 401, "time_refused"),
    BadToken("exp negative", _with_claims(exp=-1), 401, "time_refused"),
    BadToken("not yet valid", _with_time("nbf", 40), 401, "token_not_yet_valid"),
    BadToken("nbf null", _with_json('"nbf": null'), 401, "time_refused"),
    BadToken("issued in the future", _with_time("iat", 40), 401, "token_not_yet_valid"),
    BadToken("iat an object", _with_claims(iat={}), 401, "time_refused"),
    BadToken("other audience", _with_claims(aud="another"), 401, "audience_refused"),
    BadToken("no audience", _with_claims(aud=None), 401, "audience_refused"),
    BadToken("audience an object", _with_claims(aud={CLIENT_ID: 1}), 401, "audience_refused"),
    BadToken("audience with a number", _with_claims(aud=[CLIENT_ID, 7]), 401, "audience_refused"),
    BadToken("part of the audience", _with_claims(aud=CLIENT_ID[:-1]), 401, "audience_refused"),
    BadToken("many audiences", _with_claims(aud=[CLIENT_ID] * 200), 401, "audience_refused"),
    BadToken("two audiences, no azp", _with_claims(aud=[CLIENT_ID, "b"]), 401, "party_refused"),
    BadToken("azp another's", _with_claims(azp="another"), 401, "party_refused"),
    BadToken("azp a list", _with_claims(azp=[CLIENT_ID]), 401, "party_refused"),
    BadToken("no subject", _with_claims(sub=None), 401, "subject_refused"),
    BadToken("subject a number", _with_claims(sub=7), 401, "subject_refused"),
    BadToken("subject empty", _with_claims(sub=""), 401, "subject_refused"),
    BadToken("subject very long", _with_claims(sub="x" * 256), 401, "subject_refused"),
    BadToken("subject of two lines", _with_claims(sub="a\nb"), 401, "subject_refused"),
    BadToken("subject half a letter", _with_json(r'"sub": "\ud800"'), 401, "subject_refused"),
    BadToken("no address", _with_claims(email=None), 403, "email_refused"),
    BadToken("address a list", _with_claims(email=["a@example.com"]), 403, "email_refused"),
    BadToken("not verified", _with_claims(email_verified=False), 403, "email_refused"),
    BadToken("nothing of verified", _with_claims(email_verified=None), 403, "email_refused"),
    BadToken("verified 1", _with_claims(email_verified=1), 403, "email_refused"),
    BadToken("other domain", _with_claims(email="a@example.org"), 403, "email_refused"),
    BadToken("below the domain", _with_claims(email="a@b.example.com"), 403, "email_refused"),
    BadToken("domain's end", _with_claims(email="a@notexample.com"), 403, "email_refused"),
    BadToken("two @", _with_claims(email="a@example.com@b.org"), 403, "email_refused"),
    BadToken("domain alone", _with_claims(email="@example.com"), 403, "email_refused"),
    BadToken("other team", _with_claims(team="sales"), 403, "claim_refused"),
    BadToken("no team", _with_claims(team=None), 403, "claim_refused"),
    BadToken("team an object", _with_claims(team={"docs": True}), 403, "claim_refused"),
    BadToken("validator says no", _with_claims(sub="refused"), 403, "validator_refused"),
    BadToken("validator says 1", _with_claims(sub="truthy"), 403, "validator_refused"),
    BadToken("validator raises", _with_claims(sub="raises"), 403, "validator_failed"),
]

ACCEPTED: dict[str, Make] = {
    "plain": good,
    "expired within the leeway": _with_time("exp", -20),
    "not yet valid within the leeway": _with_time("nbf", 20),
    "issued in the future within the leeway": _with_time("iat", 20),
    "times with fractions": _with_time("exp", 600.5),
    "one audience in a list": _with_claims(aud=[CLIENT_ID]),
    "two audiences with azp": _with_claims(aud=["b", CLIENT_ID], azp=CLIENT_ID),
    "azp ours": _with_claims(azp=CLIENT_ID),
    "no iat": _with_claims(iat=None),
    "no kid": _with_header(kid=None),
    "no type": _with_header(typ=None),
    "an access token": _with_header(typ="at+jwt"),
    "type in small letters": _with_header(typ="jwt"),
    "verified as a text": _with_claims(email_verified="true"),
    "address in capital letters": _with_claims(email="SOMEBODY@Example.COM"),
    "several teams": _with_claims(team=["sales", "docs"]),
    "subject of 255 letters": _with_claims(sub="x" * 255),
}

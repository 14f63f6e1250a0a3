"""Keys that verify signatures, and for which algorithms each of them is good.

An algorithm is pinned to the kind of key: what a token says of its own algorithm only picks
among the keys that are good for it. So no token makes a public key a shared secret, and none has
no signature at all.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

MAX_KEYS = 200
"""Of one issuer; the largest have a dozen."""

MAX_TRIED = 4
"""Keys that are tried for one token, where it or they have no id."""

MAX_TEXT = 512
"""Characters of a key's id."""

SHARED_SECRET = "HS256"  # noqa: S105 - the algorithm's name
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_EDWARDS = frozenset({"EdDSA"})
ASYMMETRIC = _RSA | frozenset(_CURVES.values()) | _EDWARDS

_RSA_BITS = range(2048, 16384 + 1)
_KINDS = {"RSA": "RS256", "EC": None, "OKP": "EdDSA"}  # what PyJWK has to be told of each
_PEM = re.compile(r"-----BEGIN (?P<kind>[A-Z0-9 ]+)-----.*?-----END (?P=kind)-----", re.DOTALL)

PublicKey = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
)


class UnusableKey(Exception):
    """Why a key is not used."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    Attributes:
        key_id: None: it is tried for every token of a fitting algorithm.
        algorithms: What it is good for.
        material: As PyJWT takes it; parsed once, not for every token.
        issuer: If given, the only issuer whose tokens it signs; with `{tenantid}` in the place
            of a tenant's name (Microsoft's keys say so).
    """

    key_id: str | None
    algorithms: frozenset[str]
    material: PublicKey | bytes
    issuer: str | None = None


class KeySet:
    """The keys of one issuer, at one time."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key_id: str | None, algorithm: str) -> list[Key]:
        """Keys by which a token may be signed; a key without an id may be any."""
        fitting = [each for each in self._keys if algorithm in each.algorithms]
        if key_id is not None:
            fitting = [each for each in fitting if each.key_id in (key_id, None)]
        return fitting[:MAX_TRIED]


def from_secret(secret: bytes) -> KeySet:
    """The one key of somebody who signs with a shared secret."""
    return KeySet([Key(None, frozenset({SHARED_SECRET}), secret)])


def from_jwk_set(document: object) -> tuple[KeySet, int]:
    """Take the keys of a JWK set that can be used, and count the others.

    Raises:
        UnusableKey: It is no JWK set.
    """
    found = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(found, list):
        raise UnusableKey("it is no JWK set: there is no list `keys` in it")
    if len(found) > MAX_KEYS:
        raise UnusableKey(f"it has {len(found)} keys; allowed are {MAX_KEYS}")
    keys = []
    for each in found:
        # Whatever the library finds wrong with one, the others are used.
        with contextlib.suppress(Exception):
            keys.append(_from_jwk(each))
    return KeySet(keys), len(found) - len(keys)


def from_text(text: str) -> KeySet:
    """Read public keys that an operator gave: a JWK set, a JWK, or PEM.

    Raises:
        UnusableKey: One of them can't be used.
    """
    if "-----BEGIN " in text:
        return KeySet(_from_pem(text))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise UnusableKey("it is neither PEM nor JSON") from None
    return from_document(document)


def from_document(document: object) -> KeySet:
    """The same of a JWK set or JWK that was parsed already.

    Raises:
        UnusableKey: One of them can't be used.
    """
    if not isinstance(document, Mapping):
        raise UnusableKey("it is no JWK set")
    if "keys" not in document:
        document = {"keys": [document]}
    keys, refused = from_jwk_set(document)
    if refused or not len(keys):
        raise UnusableKey(
            f"{refused} of its keys can't be used; allowed are public keys for signatures: RSA of"
            " 2048 bits or more, P-256, P-384, P-521, Ed25519, Ed448"
        )
    return keys


def _from_jwk(jwk: object) -> Key:
    if not isinstance(jwk, dict):
        raise UnusableKey("no object")
    kind, key_id, issuer = jwk.get("kty"), jwk.get("kid"), jwk.get("issuer")
    if kind not in _KINDS:
        raise UnusableKey("of a kind that is not used")
    if "d" in jwk:
        raise UnusableKey("a private key that everybody knows")
    if jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        raise UnusableKey("not for signatures")
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= MAX_TEXT):
        raise UnusableKey("its id is no text")
    if issuer is not None and not isinstance(issuer, str):
        raise UnusableKey("its issuer is no text")
    named = jwk.get("alg")
    # Its own `alg` is left out: what it may be used for is our matter, see `_good_for`.
    plain = {name: value for name, value in jwk.items() if name != "alg"}
    material = jwt.PyJWK(plain, _KINDS[kind]).key
    algorithms = good_for(material)
    if named is not None:
        algorithms &= {named}
    if not algorithms:
        raise UnusableKey("for an algorithm that does not fit it")
    return Key(key_id, algorithms, material, issuer)


def _from_pem(text: str) -> list[Key]:
    keys = []
    for block in _PEM.finditer(text):
        pem = block[0].encode()
        try:
            match block["kind"]:
                case "CERTIFICATE":
                    material: Any = x509.load_pem_x509_certificate(pem).public_key()
                case "PUBLIC KEY" | "RSA PUBLIC KEY":
                    material = load_pem_public_key(pem)
                case _:
                    raise UnusableKey("it holds something else than public keys and certificates")
            keys.append(Key(None, good_for(material), material))
        except UnusableKey:
            raise
        except Exception as error:
            raise UnusableKey(f"PEM that can't be read: {type(error).__name__}") from None
    if not 1 <= len(keys) <= MAX_TRIED:
        raise UnusableKey(f"it has {len(keys)} keys without an id; allowed are 1 to {MAX_TRIED}")
    return keys


def good_for(material: object) -> frozenset[str]:
    """Algorithms for which a public key may be used.

    Raises:
        UnusableKey: None: a private key, a weak one, or one of another kind.
    """
    match material:
        case rsa.RSAPublicKey() if material.key_size in _RSA_BITS:
            return _RSA
        case rsa.RSAPublicKey():
            raise UnusableKey(f"an RSA key of {material.key_size} bits; give one of 2048 or more")
        case ec.EllipticCurvePublicKey() if material.curve.name in _CURVES:
            return frozenset({_CURVES[material.curve.name]})
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return _EDWARDS
    raise UnusableKey("neither RSA, P-256, P-384, P-521, Ed25519 nor Ed448, or a private key")

"""A token as text: what it says, and whether one of some keys has signed it.

The work is PyJWT's; here is what has to be so before it, and no exception but AuthRefused. Not
here: what the claims have to be (`claims`, `policy`). No header tells where a key is found:
`jku`, `x5u`, `jwk`, `x5c` are never looked at.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jwt

from amsync.auth.keys import ASYMMETRIC, MAX_TEXT, SHARED_SECRET, Key
from amsync.errors import AuthRefused

_THREE_PARTS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Others are no proof of who somebody is: `logout+jwt`, `secevent+jwt`, `dpop+jwt`."""

_JWS = jwt.PyJWS(algorithms=sorted({*ASYMMETRIC, SHARED_SECRET}))


@dataclass(frozen=True, slots=True)
class Opened:
    """A token that was read; nothing of it is proven.

    Attributes:
        text: The token.
        issuer: Who is said to have signed it.
    """

    text: str
    algorithm: str
    key_id: str | None
    issuer: str
    claims: dict[str, Any]


def read(text: object, max_bytes: int) -> Opened:
    """Read a token without verifying it. Raises AuthRefused."""
    if not isinstance(text, str):
        raise AuthRefused(401, "token_malformed")
    if not text:
        raise AuthRefused(401, "token_missing")
    if len(text) > max_bytes:
        raise AuthRefused(401, "token_too_large")
    if not _THREE_PARTS.fullmatch(text):
        raise AuthRefused(401, "token_malformed")
    try:
        parts = _JWS.decode_complete(text, options={"verify_signature": False})
        claims = json.loads(parts["payload"])
    except Exception:  # of the library, of JSON, of its depth
        raise AuthRefused(401, "token_malformed") from None
    header = parts["header"]
    if not isinstance(claims, dict):
        raise AuthRefused(401, "token_malformed")
    kind, key_id, algorithm = header.get("typ"), header.get("kid"), header.get("alg")
    if "crit" in header or "b64" in header or "enc" in header:
        raise AuthRefused(401, "header_refused")
    if kind is not None and not (isinstance(kind, str) and kind.lower() in _TYPES):
        raise AuthRefused(401, "header_refused")
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= MAX_TEXT):
        raise AuthRefused(401, "header_refused")
    if not isinstance(algorithm, str):
        raise AuthRefused(401, "algorithm_refused")
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise AuthRefused(401, "issuer_unknown")
    return Opened(text, algorithm, key_id, issuer, claims)


def is_signed_by(token: Opened, keys: Iterable[Key]) -> bool:
    """Tell whether one of the keys has signed it. Raises AuthRefused."""
    for key in keys:
        try:
            _JWS.decode_complete(token.text, key.material, algorithms=[token.algorithm])
        except jwt.InvalidSignatureError:
            continue
        except Exception:
            raise AuthRefused(401, "token_malformed") from None
        return True
    return False

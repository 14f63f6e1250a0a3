"""A token as text: what it says of itself, and whether one of some keys has signed it.

PyJWT verifies. To know by which keys it has to, the token is looked into before, and what was
seen there must be what PyJWT has verified. (PyJWT looks at each character in Python; to have it
read a token twice would take half of all the time.) No exception but AuthRefused comes out.

Not here: what the claims have to be (`claims`, `policy`). No header tells where a key is found:
`jku`, `x5u`, `jwk`, `x5c` are never looked at.
"""

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jwt

from amsync.auth.keys import ASYMMETRIC, MAX_TEXT, SHARED_SECRET, Key
from amsync.errors import AuthRefused

_THREE_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Others are no proof of who somebody is: `logout+jwt`, `secevent+jwt`, `dpop+jwt`."""

_JWS = jwt.PyJWS(algorithms=sorted({*ASYMMETRIC, SHARED_SECRET}))


@dataclass(frozen=True, slots=True)
class Opened:
    """A token that was looked into; nothing of it is proven.

    Attributes:
        text: The token.
        payload: The claims as they came.
        issuer: Who is said to have signed it.
    """

    text: str
    header: dict[str, Any]
    payload: bytes
    claims: dict[str, Any]
    algorithm: str
    key_id: str | None
    issuer: str


def read(text: object, max_bytes: int) -> Opened:
    """Look into a token without verifying it. Raises AuthRefused."""
    if not isinstance(text, str):
        raise AuthRefused(401, "token_malformed")
    if not text:
        raise AuthRefused(401, "token_missing")
    if len(text) > max_bytes:
        raise AuthRefused(401, "token_too_large")
    parts = _THREE_PARTS.fullmatch(text)
    if parts is None:
        raise AuthRefused(401, "token_malformed")
    try:
        header = json.loads(_decoded(parts[1]))
        payload = _decoded(parts[2])
        claims = json.loads(payload)
    except Exception:  # of base64, of JSON, of its depth
        raise AuthRefused(401, "token_malformed") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
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
    return Opened(text, header, payload, claims, algorithm, key_id, issuer)


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def is_signed_by(token: Opened, keys: Iterable[Key]) -> bool:
    """Tell whether one of the keys has signed it. Raises AuthRefused."""
    for key in keys:
        try:
            seen = _JWS.decode_complete(token.text, key.material, algorithms=[token.algorithm])
        except jwt.InvalidSignatureError:
            continue
        except Exception:
            raise AuthRefused(401, "token_malformed") from None
        if seen["header"] != token.header or seen["payload"] != token.payload:
            raise AuthRefused(401, "token_malformed")
        return True
    return False

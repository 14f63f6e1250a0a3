"""What has to be so of every token's claims, apart from who is let in.

A claim of the wrong type refuses, whatever a library would make of it: a text as `exp`, an
object as `aud`, a number that is none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from amsync.auth.identity import Identity
from amsync.errors import AuthRefused

_YEAR_9999 = 253_402_300_799
MAX_SUBJECT = 255
"""Characters; OpenID Connect Core 1.0, section 2."""
MAX_EMAIL = 320
MAX_AUDIENCES = 100


@dataclass(frozen=True, slots=True)
class Expected:
    """What tokens of one issuer have to say.

    Attributes:
        audiences: One of them has to be in `aud`.
        parties: `azp`, where there is one, has to be one of them.
        needs_party: A token without `azp` is refused; so is one of several audiences, always.
    """

    audiences: frozenset[str]
    parties: frozenset[str]
    needs_party: bool
    leeway_seconds: float


def identify(claims: Mapping[str, Any], issuer: str, expected: Expected, now: float) -> Identity:
    """Say whose claims these are; they must have been verified. Raises AuthRefused."""
    expires_at = _check_times(claims, expected.leeway_seconds, now)
    _check_audience(claims, expected)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT:
        raise AuthRefused(401, "subject_refused")
    if not subject.isprintable():  # it would break lines of logs
        raise AuthRefused(401, "subject_refused")
    read_only = MappingProxyType(claims)
    return Identity(issuer, subject, verified_email(claims), read_only, expires_at)


def _check_times(claims: Mapping[str, Any], leeway: float, now: float) -> float:
    expires_at = _time(claims, "exp")
    if expires_at is None:
        raise AuthRefused(401, "time_refused")
    if now >= expires_at + leeway:
        raise AuthRefused(401, "token_expired")
    not_before = _time(claims, "nbf")
    if not_before is not None and now < not_before - leeway:
        raise AuthRefused(401, "token_not_yet_valid")
    issued_at = _time(claims, "iat")
    if issued_at is not None and now < issued_at - leeway:
        raise AuthRefused(401, "token_not_yet_valid")
    return expires_at


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    # Not a number and infinity are neither.
    if type(value) not in (int, float) or not 0 <= value <= _YEAR_9999:
        raise AuthRefused(401, "time_refused")
    return float(value)


def _check_audience(claims: Mapping[str, Any], expected: Expected) -> None:
    found = claims.get("aud")
    audiences = [found] if isinstance(found, str) else found
    if not isinstance(audiences, list) or len(audiences) > MAX_AUDIENCES:
        raise AuthRefused(401, "audience_refused")
    if not all(isinstance(each, str) for each in audiences):
        raise AuthRefused(401, "audience_refused")
    if expected.audiences.isdisjoint(audiences):
        raise AuthRefused(401, "audience_refused")
    party = claims.get("azp")
    if party is None:
        if expected.needs_party or len(audiences) > 1:
            raise AuthRefused(401, "party_refused")
    elif not isinstance(party, str) or party not in expected.parties:
        raise AuthRefused(401, "party_refused")


def verified_email(claims: Mapping[str, Any]) -> str | None:
    """The address, if the issuer says that it belongs to the subject; "true" is said by some."""
    email, verified = claims.get("email"), claims.get("email_verified")
    if verified is not True and verified != "true":
        return None
    if not isinstance(email, str) or not 3 <= len(email) <= MAX_EMAIL or not email.isprintable():
        return None
    name, _, domain = email.rpartition("@")
    return email if name and domain and " " not in email else None

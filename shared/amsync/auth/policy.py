"""Who of those that are known may come in: addresses, domains, claims. All that is given counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amsync.auth.identity import Identity
from amsync.errors import AuthRefused

_SPACED = ("scope", "scp")
"""Texts with several values in them; RFC 8693, section 4.2."""


def folded(text: str) -> str:
    """As addresses are compared.

    Only in ASCII: elsewhere letters of different people fall together (the Kelvin sign is a k).
    """
    return text.lower() if text.isascii() else text


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator asks for; None and empty: nothing.

    Attributes:
        emails: Folded addresses.
        domains: Folded domains; `*.example.com` stands for all below it, not for itself.
        claims: Name -> values that must all be there; none: the claim must be.
    """

    emails: frozenset[str] | None
    domains: frozenset[str] | None
    claims: Mapping[str, tuple[str, ...]]

    def check(self, identity: Identity) -> None:
        """Refuse who may not come in. Raises AuthRefused."""
        if self.emails is not None or self.domains is not None:
            email = folded(identity.email or "")
            if not email or (self.emails is not None and email not in self.emails):
                raise AuthRefused(403, "email_refused")
            if self.domains is not None and not self._is_domain_allowed(email):
                raise AuthRefused(403, "email_refused")
        for name, values in self.claims.items():
            if not _has(identity.claims, name, values):
                raise AuthRefused(403, "claim_refused")

    def _is_domain_allowed(self, email: str) -> bool:
        assert self.domains is not None
        domain = email.rpartition("@")[2]
        if domain in self.domains:
            return True
        labels = domain.split(".")
        above = (".".join(labels[count:]) for count in range(1, len(labels)))
        return any(f"*.{each}" in self.domains for each in above)


def text_of(value: object) -> str | None:
    """How a claim's value is written where it is asked for; None: it can't be."""
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
    return None


def _has(claims: Mapping[str, Any], name: str, values: tuple[str, ...]) -> bool:
    found = claims.get(name)
    if found is None:
        return False
    if isinstance(found, str) and name in _SPACED:
        found = found.split(" ")
    held = [text_of(each) for each in (found if isinstance(found, list) else [found])]
    return all(value in held for value in values)

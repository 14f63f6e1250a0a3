"""Who somebody is, as an issuer has said it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whose token was verified.

    Attributes:
        issuer: Who says so; of the spellings that an issuer has, always the same.
        subject: The issuer's name for the person or program; it is never given to another.
        email: None also when the issuer does not say that it is verified.
        claims: The whole verified payload; not to be changed.
        expires_at: The token's end, in seconds since 1970. A token is taken for the leeway
            longer, so it may be in the past already.
    """

    issuer: str
    subject: str
    email: str | None
    claims: Mapping[str, Any] = field(repr=False, hash=False)
    expires_at: float

    @property
    def key(self) -> str:
        """One text for the two that say who it is; no issuer's name has a space in it."""
        return f"{self.issuer} {self.subject}"

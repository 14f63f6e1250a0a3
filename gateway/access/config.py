"""What an operator can ask for: claims of tokens, a callable, a webhook; and their answers."""

import inspect
import math
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from amsync.errors import ConfigError
from amsync.hosts import is_safe_url
from amsync.protocol.access import Access

CheckCallable = Callable[..., Any]
"""(identity, document_id) or (identity, document_id, client_id); see AccessConfig."""

LIFETIME_SECONDS = 30.0
"""Of a callable's answer that does not say how long it is good."""

WEBHOOK_LIFETIME_SECONDS = 60.0
SHORTEST_LIFETIME_SECONDS = 1.0
LONGEST_LIFETIME_SECONDS = 3600.0
LONGEST_TIMEOUT_SECONDS = 60.0

_WORDS = {"none": Access.NONE, "read": Access.READ, "write": Access.WRITE}


@dataclass(frozen=True, slots=True)
class Decision:
    """What one document is to somebody.

    Args:
        access: Access.NONE, READ or WRITE; "none", "read" and "write" are the same.
        announce: The document is sent without being asked for.
        create: If it is unknown it is made; only where `access` is WRITE.
        lifetime_seconds: How long the answer is good, 1 to 3600; what is less or more counts as
            that. None: 30.

    Raises:
        ConfigError: An argument is not allowed.
    """

    access: Access
    announce: bool = False
    create: bool = True
    lifetime_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "access", parse_access(self.access))
        for name in ("announce", "create"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}={getattr(self, name)!r} is not allowed; True or False")
        if self.lifetime_seconds is not None:
            object.__setattr__(self, "lifetime_seconds", parse_lifetime(self.lifetime_seconds))


def parse_access(access: object) -> Access:
    """An access as it may be written. Raises ConfigError."""
    if isinstance(access, Access):
        return access
    if isinstance(access, str) and access in _WORDS:
        return _WORDS[access]
    raise ConfigError(f"access={access!r} is not allowed; give none, read or write")


def parse_lifetime(seconds: object) -> float:
    """A lifetime within its bounds. Raises ConfigError: it is no number."""
    if not _is_number(seconds):
        raise ConfigError(f"lifetime_seconds={seconds!r} is not allowed; give seconds")
    assert isinstance(seconds, int | float)
    return float(min(max(seconds, SHORTEST_LIFETIME_SECONDS), LONGEST_LIFETIME_SECONDS))


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and not (isinstance(value, float) and math.isnan(value))


@dataclass(frozen=True)
class Webhook:
    """A URL that is asked about every (identity, document); see docs/access.md for what is said.

    Args:
        url: https://, or http:// on this machine.
        token: Sent as `Authorization: Bearer ...`.
        timeout_seconds: An answer that takes longer refuses.
        ca: File of the certificates to check its TLS with; default: the system's.

    Raises:
        ConfigError: An argument is not allowed.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_seconds: float = 5.0
    ca: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not is_safe_url(self.url, with_query=True):
            raise ConfigError(
                f"access_webhook={self.url!r} is not allowed; give an https:// URL, or http:// of"
                " this machine, without a name and password in it"
            )
        token = self.token
        if token is not None and not (
            isinstance(token, str) and token.isascii() and token.isprintable() and " " not in token
        ):
            raise ConfigError("access_webhook_token has characters that no header may have")
        seconds = self.timeout_seconds
        if not _is_number(seconds) or not 0 < seconds <= LONGEST_TIMEOUT_SECONDS:
            raise ConfigError(
                f"access_webhook_timeout_seconds={seconds!r} is not allowed; give more than 0, at"
                f" most {LONGEST_TIMEOUT_SECONDS:g}"
            )

    def tls_context(self) -> ssl.SSLContext:
        """How it is talked to. Raises ConfigError."""
        try:
            return ssl.create_default_context(
                cafile=None if self.ca is None else os.fspath(self.ca)
            )
        except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"access_webhook_ca={self.ca!r} can't be used: {error}; give a file of PEM"
                " certificates"
            ) from error


@dataclass(frozen=True, kw_only=True)
class AccessConfig:
    """Who has a say on access, beside `share`; the strictest answer wins.

    Args:
        claim: Name of the claim of tokens that says it; needs `auth`. Its value is an object of
            `read`, `write` and `announce`, lists of document ids and patterns (`*`, or a
            beginning and `*`), and `create`, true or false. A token without it may do nothing.
        check: A callable (identity, document_id) or (identity, document_id, client_id), plain
            (called in a thread) or async. Returns a Decision; or an Access, "none", "read",
            "write", a Share, True, None, False, which are good for 30 s. Whatever else it does
            refuses. `identity` is None without authentication; `client_id` is no proof.
        webhook: A URL that is asked.

    Raises:
        ConfigError: An argument is not allowed.
    """

    claim: str | None = None
    check: CheckCallable | None = None
    webhook: Webhook | None = None

    def __post_init__(self) -> None:
        if self.claim is not None and (not isinstance(self.claim, str) or not self.claim):
            raise ConfigError(f"access_claim={self.claim!r} is not allowed; give a claim's name")
        if self.check is not None:
            takes_third(self.check, "access_check", "(identity, document_id[, client_id])")
        if self.webhook is not None and not isinstance(self.webhook, Webhook):
            raise ConfigError(
                f"access_webhook={self.webhook!r} is not allowed; give an amsync.Webhook or None"
            )


def takes_third(function: object, name: str, wanted: str) -> bool:
    """Tell whether a callable takes three arguments, or two.

    Raises:
        ConfigError: It is no callable, or takes neither.
    """
    if not callable(function):
        raise ConfigError(f"{name}={function!r} is not allowed; give a callable {wanted}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return False
    for count in (3, 2):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 3
    raise ConfigError(f"{name}={function!r} must take {wanted}, not {signature}")

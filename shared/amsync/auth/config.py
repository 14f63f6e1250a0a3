"""`AuthConfig`: which issuers are believed, and who of those that they know may come in.

The first five fields have the names and the meaning of `auth_config` in the R package autosync.
All is checked when it is made; an issuer is not asked for anything here.
"""

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import Any

from amsync.auth.issuers import GOOGLE, Issuer, Keys, known_as
from amsync.auth.policy import Policy, folded, text_of
from amsync.auth.values import check_number, check_texts, texts
from amsync.errors import ConfigError

__all__ = ["AuthConfig", "Issuer"]

Texts = str | Sequence[str]
Validator = Callable[[Mapping[str, Any]], Any]
"""(claims) -> True for yes, anything else for no; plain or async."""

MAX_LEEWAY_SECONDS = 300
MAX_STALE_SECONDS = 7 * 86_400
TOKEN_BYTES = range(256, 65_536 + 1)


@dataclass(frozen=True)
class AuthConfig:
    """Who may come in, by tokens of OIDC issuers.

    A token is taken if one of the issuers has signed it for one of the audiences, it is valid
    now, and everything else that is asked for here holds: addresses and domains and claims and
    the validator.

    Args:
        client_id: Our id at the issuer, which tokens have in `aud`. None: OIDC_CLIENT_ID.
        issuer: The issuer's URL, exactly as it writes it. None: OIDC_ISSUER, then Google.
        allowed_emails: One address or many; the token's `email` has to be one of them, and
            `email_verified` true. Small and capital letters are the same.
        allowed_domains: The same for what follows the @. `*.example.com`: all below it.
        custom_validator: Asked last, with the claims; exactly True is yes. Plain ones are called
            in a thread, async ones awaited, both for 10 s at most; an exception is no.
        issuers: Further ones.
        audiences: What `aud` may have beside `client_id`.
        authorized_parties: What `azp` may have; then every token needs one. Default: the
            audiences, and only tokens of several audiences need one.
        jwks_url: Where the issuer's keys are; default: where its discovery document says.
        keys: The issuer's public keys, instead of fetching them: a JWK set, PEM, or a file's
            path.
        shared_secret: Of an issuer that signs with HS256; at least 32 bytes. Nothing else is
            taken from that issuer then.
        algorithms: Of the issuer's signatures; default: every asymmetric one that fits its keys.
        required_claims: Name -> value, or values that must all be there, or None: any value. A
            claim that is a list has to contain it; `scope` is split at spaces.
        leeway_seconds: By how much clocks may differ.
        allow_query_token: Whether a token may come as `?access_token=`, where logs of others may
            keep it. Browsers can't send headers with a WebSocket.
        issuer_ca: File of the certificates that issuers' TLS is checked with; default: the
            system's.
        max_token_bytes: Larger tokens are refused unread.
        max_stale_seconds: How long keys are used after their time when their issuer is down.

    Raises:
        ConfigError: Which argument, what was found, what is allowed.
    """

    client_id: str | None = None
    issuer: str | None = None
    allowed_emails: Texts | None = None
    allowed_domains: Texts | None = None
    custom_validator: Validator | None = None
    _: KW_ONLY
    issuers: Sequence[Issuer] = ()
    audiences: Texts = ()
    authorized_parties: Texts = ()
    jwks_url: str | None = None
    keys: Keys | None = field(default=None, repr=False)
    shared_secret: str | bytes | None = field(default=None, repr=False)
    algorithms: Texts = ()
    required_claims: Mapping[str, Any] = field(default_factory=dict)
    leeway_seconds: float = 30.0
    allow_query_token: bool = False
    issuer_ca: str | os.PathLike[str] | None = None
    max_token_bytes: int = 8192
    max_stale_seconds: float = 86_400.0

    def __post_init__(self) -> None:
        self._put("client_id", self.client_id or os.environ.get("OIDC_CLIENT_ID") or None)
        if not isinstance(self.client_id, str):
            raise ConfigError(
                f"client_id={self.client_id!r} is not allowed; give the id that tokens are issued"
                " for, or set OIDC_CLIENT_ID"
            )
        check_texts("client_id", [self.client_id])
        chosen = self.issuer or os.environ.get("OIDC_ISSUER") or None
        if chosen is None and not (self.keys is None and self.shared_secret is None):
            raise ConfigError("issuer=None is not allowed with keys or a shared secret; name it")
        self._put("issuer", chosen or GOOGLE)
        for name in ("allowed_emails", "allowed_domains"):
            given = getattr(self, name)
            if given is not None:
                self._put(name, _not_empty(name, texts(name, given)))
        for name in ("audiences", "authorized_parties", "algorithms"):
            self._put(name, texts(name, getattr(self, name)))
        _check_emails(self.allowed_emails)
        _check_domains(self.allowed_domains)
        if self.custom_validator is not None and not callable(self.custom_validator):
            raise ConfigError(
                f"custom_validator={self.custom_validator!r} is not allowed; give a callable"
                " (claims) or None"
            )
        if not isinstance(self.allow_query_token, bool):
            raise ConfigError(
                f"allow_query_token={self.allow_query_token!r} is not allowed; give True or False"
            )
        check_number("leeway_seconds", self.leeway_seconds, MAX_LEEWAY_SECONDS)
        check_number("max_stale_seconds", self.max_stale_seconds, MAX_STALE_SECONDS)
        size = self.max_token_bytes
        if type(size) is not int or size not in TOKEN_BYTES:
            raise ConfigError(
                f"max_token_bytes={size!r} is not allowed; give"
                f" {TOKEN_BYTES.start} to {TOKEN_BYTES.stop - 1}"
            )
        self._check_issuers()
        self.policy()
        self.tls_context()

    def _put(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_issuers(self) -> None:
        further = self.issuers
        if not isinstance(further, Sequence) or not all(isinstance(i, Issuer) for i in further):
            raise ConfigError("issuers is not allowed; give a list of amsync.Issuer")
        self._put("issuers", tuple(further))
        names: set[str] = set()
        for each in self.all_issuers:
            again = names & known_as(each.url)
            if again:
                raise ConfigError(
                    f"issuers: {each.url!r} is there twice; its tokens must be one's alone"
                )
            names |= known_as(each.url)

    @cached_property
    def all_issuers(self) -> tuple[Issuer, ...]:
        """The one of the fields here, then the further ones, with what they don't say filled in."""
        assert self.client_id is not None
        assert self.issuer is not None
        first = Issuer(
            self.issuer,
            audiences=(self.client_id, *self.audiences),
            authorized_parties=self.authorized_parties,
            jwks_url=self.jwks_url,
            keys=self.keys,
            shared_secret=self.shared_secret,
            algorithms=self.algorithms,
        )
        return (first, *(each.completed(first) for each in self.issuers))

    def policy(self) -> Policy:
        """Who of those that are known may come in. Raises ConfigError."""
        return Policy(
            _folded(self.allowed_emails),
            _folded(self.allowed_domains),
            _claims(self.required_claims),
        )

    def tls_context(self) -> ssl.SSLContext:
        """How issuers are talked to. Raises ConfigError."""
        path = self.issuer_ca
        try:
            return ssl.create_default_context(cafile=None if path is None else os.fspath(path))
        except (OSError, TypeError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"issuer_ca={path!r} can't be used: {error}; give a file of PEM certificates"
            ) from error


def _folded(values: Texts | None) -> frozenset[str] | None:
    return None if values is None else frozenset(folded(each) for each in values)


def _not_empty(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ConfigError(f"{name}=() is not allowed: nobody could come in; give one, or None")
    return values


def _check_emails(emails: Texts | None) -> None:
    for each in emails or ():
        name, _, domain = each.rpartition("@")
        if not name or not domain:
            raise ConfigError(f"allowed_emails={each!r} is not allowed; give name@domain")


def _check_domains(domains: Texts | None) -> None:
    for each in domains or ():
        rest = each.removeprefix("*.")
        if not rest or set(rest) & set("*@/:") or rest.startswith("."):
            raise ConfigError(
                f"allowed_domains={each!r} is not allowed; give example.com, or *.example.com for"
                " all below it"
            )


def _claims(required: object) -> dict[str, tuple[str, ...]]:
    allowed = "give a dict of a claim's name to its value, to values, or to None"
    if not isinstance(required, Mapping):
        raise ConfigError(f"required_claims={required!r} is not allowed; {allowed}")
    claims = {}
    for name, value in required.items():
        values = value if isinstance(value, list | tuple | set | frozenset) else [value]
        held = [text_of(each) for each in values if value is not None]
        wanted = [each for each in held if each is not None]
        if not isinstance(name, str) or not name or len(wanted) < len(held):
            raise ConfigError(f"required_claims={{{name!r}: {value!r}}} is not allowed; {allowed}")
        claims[name] = tuple(wanted)
    return claims

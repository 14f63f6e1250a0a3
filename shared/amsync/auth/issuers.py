"""`Issuer`: whose tokens are believed, for which audience, and where its keys come from."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from amsync.auth import keys as key_sets
from amsync.auth.keys import ASYMMETRIC, SHARED_SECRET, KeySet, UnusableKey
from amsync.auth.values import check_texts, texts
from amsync.errors import ConfigError
from amsync.hosts import MAX_URL, is_safe_url

GOOGLE = "https://accounts.google.com"
_GOOGLE_IN_TOKENS = "accounts.google.com"
"""https://developers.google.com/identity/openid-connect/openid-connect: tokens may say either."""

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: as many as the hash has."""

TENANT = "{tenantid}"
"""What Microsoft's discovery documents for several tenants have in the place of a tenant."""
_TENANTS = re.compile(r"(https://.+/)(?:common|organizations|consumers)(/v2\.0)")

Keys = str | os.PathLike[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Issuer:
    """An issuer beside the first one; the arguments are those of `AuthConfig`.

    Args:
        url: Its name, exactly as its tokens have it in `iss`. https://, or http:// on this
            machine; with keys or a secret any text without spaces.
        audiences: Default: those of the first one.
        authorized_parties: Default: the audiences, or those of the first one together with its
            audiences.
        jwks_url: Where its keys are.
        keys: Its keys themselves.
        shared_secret: Of one that signs with HS256.
        algorithms: Of its signatures.

    Raises:
        ConfigError: Which argument, what was found, what is allowed.
    """

    url: str
    _: KW_ONLY
    audiences: str | Sequence[str] = ()
    authorized_parties: str | Sequence[str] = ()
    jwks_url: str | None = None
    keys: Keys | None = field(default=None, repr=False)
    shared_secret: str | bytes | None = field(default=None, repr=False)
    algorithms: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("audiences", "authorized_parties", "algorithms"):
            object.__setattr__(self, name, texts(name, getattr(self, name)))
        check_texts("issuer", [self.url])
        if len(self.url) > MAX_URL:
            raise ConfigError(f"issuer has {len(self.url)} characters; allowed are {MAX_URL}")
        sources = ("jwks_url", "keys", "shared_secret")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} of {self.url} don't go together; give one")
        if not given or self.jwks_url is not None:
            check_url("issuer", self.url)
        if self.jwks_url is not None:
            check_url("jwks_url", self.jwks_url)
        self.own_keys()
        self._check_algorithms()

    def _check_algorithms(self) -> None:
        allowed = {SHARED_SECRET} if self.shared_secret is not None else ASYMMETRIC
        for each in self.algorithms:
            if each not in allowed:
                why = " and needs shared_secret" if each == SHARED_SECRET else ""
                raise ConfigError(
                    f"algorithms={each!r} of {self.url} is not allowed{why}; allowed are"
                    f" {', '.join(sorted(allowed))}"
                )

    @property
    def accepted(self) -> frozenset[str]:
        """Algorithms that its tokens may have."""
        usual = {SHARED_SECRET} if self.shared_secret is not None else ASYMMETRIC
        return frozenset(self.algorithms or usual)

    def own_keys(self) -> KeySet | None:
        """The keys that were given; None: they are fetched. Raises ConfigError."""
        if self.shared_secret is not None:
            return key_sets.from_secret(self._secret())
        if self.keys is None:
            return None
        try:
            if isinstance(self.keys, Mapping):
                return key_sets.from_document(self.keys)
            return key_sets.from_text(_text_of(self.keys))
        except UnusableKey as error:
            raise ConfigError(f"keys of {self.url} can't be used: {error}") from None

    def _secret(self) -> bytes:
        secret = self.shared_secret
        if not isinstance(secret, str | bytes):
            raise ConfigError(
                f"shared_secret of {self.url} is a {type(secret).__name__}; give a text or bytes"
            )
        found = secret.encode() if isinstance(secret, str) else secret
        if len(found) < MIN_SECRET_BYTES:
            raise ConfigError(
                f"shared_secret of {self.url} has {len(found)} bytes; give {MIN_SECRET_BYTES} or"
                " more"
            )
        if b"-----BEGIN " in found or found.startswith(b"ssh-"):
            raise ConfigError(f"shared_secret of {self.url} is a key that others have; see keys")
        return found

    def completed(self, first: "Issuer") -> "Issuer":
        """The same with what it does not say taken from the first issuer."""
        if self.audiences:
            return self
        parties = self.authorized_parties or first.authorized_parties
        return replace(self, audiences=first.audiences, authorized_parties=parties)


def known_as(url: str) -> frozenset[str]:
    """Every text that an issuer's tokens may have in `iss`, but for tenants."""
    if url in (GOOGLE, _GOOGLE_IN_TOKENS):
        return frozenset({GOOGLE, _GOOGLE_IN_TOKENS})
    return frozenset({url})


def tenants_of(url: str) -> str | None:
    """What the discovery document of Microsoft's issuers of many tenants calls itself."""
    found = _TENANTS.fullmatch(url)
    return None if found is None else f"{found[1]}{TENANT}{found[2]}"


def check_url(name: str, url: object) -> None:
    """Refuse what keys can't be fetched from safely. Raises ConfigError."""
    if not is_safe_url(url):
        raise ConfigError(
            f"{name}={url!r} is not allowed; give an https:// URL (http:// only of this machine)"
            " without user, query and fragment"
        )


def _text_of(keys: object) -> str:
    """The text itself, or that of the file."""
    if isinstance(keys, str) and (keys.lstrip().startswith("{") or "-----BEGIN " in keys):
        return keys
    if not isinstance(keys, str | os.PathLike):
        raise UnusableKey(f"a {type(keys).__name__}; give a JWK set, PEM, or a file's path")
    try:
        return Path(keys).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UnusableKey(f"{os.fspath(keys)!r} can't be read: {error}") from None

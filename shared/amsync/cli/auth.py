"""Options that say who may come in by a token; what they mean is in `amsync.auth.AuthConfig`.

There is authentication as soon as one of them, or OIDC_CLIENT_ID, is given.
"""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from amsync.auth import AuthConfig, Issuer
from amsync.auth.config import MAX_LEEWAY_SECONDS, MAX_STALE_SECONDS, TOKEN_BYTES
from amsync.cli.options import (
    MANY,
    Command,
    Tables,
    Texts,
    import_callable,
    option,
    split,
    together,
)
from amsync.errors import ConfigError

_PREFIX = "auth_"


def auth_options(command: Command) -> Command:
    """Who may come in by a token."""
    return together(
        option(
            "--auth-client-id",
            default=None,
            help="Our id at the OIDC issuer, which tokens have as `aud`. Also OIDC_CLIENT_ID.",
        ),
        option(
            "--auth-issuer",
            default=None,
            help="The issuer's URL. Also OIDC_ISSUER; else https://accounts.google.com.",
        ),
        _texts("--auth-allowed-emails", "Addresses that may come in."),
        _texts("--auth-allowed-domains", "Domains of addresses that may; *.x: all below x."),
        option(
            "--auth-validator",
            default=None,
            help="module:function, a callable (claims) that returns True for yes.",
        ),
        _texts("--auth-audience", "What `aud` may be beside the client id."),
        _texts("--auth-authorized-party", "What `azp` has to be."),
        option("--auth-jwks-url", default=None, help="Where the issuer's keys are."),
        option("--auth-keys", default=None, help="File of the issuer's keys: a JWK set, or PEM."),
        option(
            "--auth-shared-secret",
            default=None,
            help="Of an issuer that signs with HS256; 32 bytes or more.",
        ),
        _texts("--auth-algorithm", "What signatures may be; else all that fit the keys."),
        _texts(
            "--auth-required-claim",
            "name=value, or name: what the token has to say.",
            " Several: repeat it; in the variable, commas.",
        ),
        option(
            "--auth-issuers",
            type=Tables(),
            default=None,
            help="Further issuers, as JSON; in a TOML file [[auth_issuers]].",
        ),
        option(
            "--auth-leeway-seconds",
            type=click.FloatRange(0, MAX_LEEWAY_SECONDS),
            default=None,
            help="By how much clocks may differ.  [default: 30]",
        ),
        option(
            "--auth-issuer-ca",
            default=None,
            help="File of certificates to check the issuers' TLS with; else the system's.",
        ),
        option(
            "--auth-max-token-bytes",
            type=click.IntRange(TOKEN_BYTES.start, TOKEN_BYTES.stop - 1),
            default=None,
            help="Larger tokens are refused.  [default: 8192]",
        ),
        option(
            "--auth-max-stale-seconds",
            type=click.FloatRange(0, MAX_STALE_SECONDS),
            default=None,
            help="How long keys are used on while their issuer is down.  [default: 86400]",
        ),
        option(
            "--auth-allow-query-token/--no-auth-allow-query-token",
            default=False,
            help="Take tokens from ?access_token=, too; logs on the way may keep them.",
        ),
    )(command)


def _texts(name: str, text: str, several: str = MANY) -> Any:
    return option(name, type=Texts(), multiple=True, default=(), help=text + several)


def auth_values(given: dict[str, Any]) -> AuthConfig | None:
    """The configuration that was asked for, or None if none was. Raises ConfigError."""
    asked = {
        name.removeprefix(_PREFIX): value
        for name, value in given.items()
        if name.startswith(_PREFIX) and not (value is None or value is False or value in ((), ""))
    }
    if not asked and not os.environ.get("OIDC_CLIENT_ID"):
        return None
    values = {_FIELDS.get(name, name): value for name, value in asked.items()}
    for name in _LISTS & set(values):
        values[name] = split(values[name])
    if "required_claims" in values:
        values["required_claims"] = _claims(values["required_claims"])
    if "keys" in values:
        values["keys"] = Path(values["keys"])
    if "custom_validator" in values:
        values["custom_validator"] = import_callable(
            "auth_validator", values["custom_validator"], "give module:function"
        )
    if "issuers" in values:
        values["issuers"] = tuple(map(_issuer, values["issuers"]))
    return AuthConfig(**values)


_FIELDS = {
    "validator": "custom_validator",
    "audience": "audiences",
    "authorized_party": "authorized_parties",
    "algorithm": "algorithms",
    "required_claim": "required_claims",
}
_LISTS = {"allowed_emails", "allowed_domains", "audiences", "authorized_parties", "algorithms"}


def _claims(texts: Sequence[str]) -> dict[str, Any]:
    claims: dict[str, list[str]] = {}
    for text in texts:
        name, has_value, value = text.strip().partition("=")
        values = claims.setdefault(name, [])
        if has_value:
            values.append(value)
    return {name: values or None for name, values in claims.items()}


def _issuer(table: dict[str, Any]) -> Issuer:
    known = [each.name for each in fields(Issuer) if each.init]
    values = {name.replace("-", "_"): value for name, value in table.items()}
    for name in values:
        if name not in known:
            raise ConfigError(
                f"auth_issuers: {name!r} is not known; allowed are {', '.join(sorted(known))}"
            )
    if not isinstance(values.get("url"), str):
        raise ConfigError("auth_issuers: each needs a `url`, the issuer's")
    return Issuer(**values)

"""Options that say who may do what with a document; what they mean is in `amsync.AccessConfig`."""

from pathlib import Path
from typing import Any

import click

from amsync.cli.options import Command, import_callable, option, together
from amsync.errors import ConfigError
from amsync.gateway.access import AccessConfig, Webhook
from amsync.gateway.access.config import LONGEST_TIMEOUT_SECONDS


def access_options(command: Command) -> Command:
    """Who has a say on access, beside --share; and who may withdraw it."""
    return together(
        option(
            "--access-claim",
            default=None,
            help="Claim of tokens that says what they may: an object of read, write, announce"
            " (lists of document ids, or *) and create.",
        ),
        option(
            "--access-check",
            default=None,
            help="module:function, a callable (identity, document_id) that returns none, read or"
            " write.",
        ),
        option(
            "--access-webhook",
            default=None,
            help="URL that is asked about each identity and document, as POST of JSON.",
        ),
        option("--access-webhook-token", default=None, help="Sent to it as Bearer."),
        option(
            "--access-webhook-timeout-seconds",
            type=click.FloatRange(0, LONGEST_TIMEOUT_SECONDS, min_open=True),
            default=None,
            help="An answer that takes longer refuses.  [default: 5]",
        ),
        option(
            "--access-webhook-ca",
            default=None,
            help="File of certificates to check its TLS with; else the system's.",
        ),
        option(
            "--admin-token",
            default=None,
            help="16 characters or more. With it the admin port has calls that withdraw access.",
        ),
    )(command)


def access_values(given: dict[str, Any]) -> dict[str, Any]:
    """What `ListenOptions` takes of it. Raises ConfigError."""
    claim, check, url = (given[f"access_{name}"] for name in ("claim", "check", "webhook"))
    if check is not None:
        check = import_callable("access_check", check, "give module:function")
    webhook = None
    of_webhook = {
        name: given[f"access_webhook_{name}"]
        for name in ("token", "timeout_seconds", "ca")
        if given[f"access_webhook_{name}"] is not None
    }
    if url is not None:
        if "ca" in of_webhook:
            of_webhook["ca"] = Path(of_webhook["ca"])
        webhook = Webhook(url, **of_webhook)
    elif of_webhook:
        name = next(iter(of_webhook))
        raise ConfigError(f"access_webhook_{name} is of no use without access_webhook, the URL")
    asked = (claim, check, webhook) != (None, None, None)
    return {
        "access": AccessConfig(claim=claim, check=check, webhook=webhook) if asked else None,
        "admin_token": given["admin_token"],
    }

"""Bounds on what one connection, client or gateway may take, with their defaults.

A client is the identity of a token, or without one an address (of IPv6 its /64).

Two sets of defaults: for a server on loopback or with authentication, and stricter ones where
strangers come in; what an operator asks for explicitly wins over both. What happens at each
bound is said here and tested in tests/gateway and tests/wire.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from amsync.errors import ConfigError


def _limit(default: Any, anonymous: Any, text: str, *, least: float = 1) -> Any:
    return field(default=default, metadata={"anonymous": anonymous, "text": text, "least": least})


@dataclass(frozen=True, slots=True)
class Limits:
    """All bounds of a gateway; sizes in bytes, times in seconds."""

    max_frame_bytes: int = _limit(
        100 * 1024 * 1024, 100 * 1024 * 1024, "largest message; a longer one closes the socket"
    )
    inbound_bytes: int = _limit(
        8 * 1024 * 1024,
        8 * 1024 * 1024,
        "unprocessed input per connection; above it the socket is not read",
    )
    outbound_bytes: int = _limit(
        32 * 1024 * 1024,
        32 * 1024 * 1024,
        "unsent output per connection; above it the socket is closed, broadcasts are dropped"
        " at a quarter of it",
    )
    gateway_inbound_bytes: int = _limit(
        256 * 1024 * 1024,
        256 * 1024 * 1024,
        "unprocessed input of all connections; above it no socket is read",
    )
    handshake_seconds: float = _limit(
        10.0, 10.0, "from connect to a valid join; later the socket is closed", least=0.1
    )
    max_connections: int = _limit(50_000, 1_000, "sockets; more get HTTP 503")
    max_connections_per_address: int = _limit(
        50_000, 50, "sockets per client address; more get HTTP 429"
    )
    max_connections_per_identity: int = _limit(
        1_000, 1_000, "sockets per identity of a token; more get HTTP 429"
    )
    handshakes_per_minute: int = _limit(
        6_000, 600, "upgrades per client; more get HTTP 429; 0: no bound", least=0
    )
    failures_per_minute: int = _limit(
        60, 60, "refused tokens per address; then HTTP 429 for all; 0: no bound", least=0
    )
    messages_per_second: int = _limit(
        50_000, 500, "per connection; above it the socket is read slower; 0: no bound", least=0
    )
    bytes_per_second: int = _limit(
        256 * 1024 * 1024,
        4 * 1024 * 1024,
        "per connection; above it the socket is read slower; 0: no bound",
        least=0,
    )
    messages_per_second_per_client: int = _limit(
        100_000, 2_000, "of all connections of a client together; likewise; 0: no bound", least=0
    )
    bytes_per_second_per_client: int = _limit(
        512 * 1024 * 1024,
        16 * 1024 * 1024,
        "of all connections of a client together; likewise; 0: no bound",
        least=0,
    )
    patience_seconds: float = _limit(
        60.0, 60.0, "so long is read slower from one that goes on; then it is closed", least=1
    )
    max_documents_per_connection: int = _limit(
        10_000, 1_000, "documents a connection may name; more get doc-unavailable"
    )
    max_documents_per_client: int = _limit(
        100_000, 10_000, "of all connections of a client together; more get doc-unavailable"
    )
    creations_per_minute: int = _limit(
        0, 60, "documents created per client; more are not created; 0: no bound", least=0
    )

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            kinds = (int, float) if isinstance(each.default, float) else (int,)
            if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
                wanted = "a number" if float in kinds else "a whole number"
                raise ConfigError(
                    f"{each.name}={value!r} is not allowed; give {wanted} of at least {least}"
                )


def default_limits(*, strangers: bool) -> Limits:
    """The limits that hold unless others are asked for; `strangers` may reach the server."""
    if not strangers:
        return Limits()
    return Limits(**{each.name: each.metadata["anonymous"] for each in fields(Limits)})


def table(limits: Limits) -> str:
    """The limits as lines of text, for the start-up message and the docs."""
    lines = []
    for each in fields(Limits):
        value = getattr(limits, each.name)
        shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
        lines.append(f"  {each.name:30} {shown:>13}  {each.metadata['text']}")
    return "\n".join(lines)

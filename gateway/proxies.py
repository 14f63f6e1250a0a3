"""Whose address a connection has, when proxies stand in front of us.

`X-Forwarded-For` and `X-Forwarded-Proto` are believed from trusted networks alone: anybody else
could write whatever they like into them.
"""

import ipaddress
from collections.abc import Sequence

from websockets.datastructures import Headers

from amsync.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

IPV6_CLIENT_BITS = 64
"""A client of IPv6 mostly has a whole /64 to itself, so bounds per address count that."""


def parse_networks(networks: Sequence[str]) -> tuple[Network, ...]:
    """Networks as 10.0.0.0/8 or single addresses. Raises ConfigError."""
    if isinstance(networks, str):
        raise ConfigError(f"trusted_proxies={networks!r} is not allowed; give a list of networks")
    try:
        return tuple(ipaddress.ip_network(each) for each in networks)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"trusted_proxies={list(networks)!r} is not allowed: {error}; give networks or"
            " addresses, as 10.0.0.0/8"
        ) from error


class Proxies:
    """The trusted networks."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """The address is that of a trusted proxy."""
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def client_address(self, socket_address: str, headers: Headers) -> str:
        """The nearest address that is no trusted proxy's; the socket's own if none is named."""
        if not self.trusts(socket_address):
            return socket_address
        named = [
            each.strip()
            for value in headers.get_all("X-Forwarded-For")
            for each in value.split(",")
        ]
        for each in reversed(named):
            if _parse(each) is None:  # whoever wrote this is not to be relied upon
                return socket_address
            if not self.trusts(each):
                return each
        return socket_address


def is_forwarded_in_the_open(headers: Headers) -> bool:
    """The proxy says that the client has come to it without TLS; some never say anything."""
    values = headers.get_all("X-Forwarded-Proto")
    return any(value.strip().lower() not in ("https", "wss") for value in values)


def limit_key(address: str) -> str:
    """What bounds per address count together: an IPv4 address, or the /64 of one of IPv6."""
    parsed = _parse(address)
    if parsed is None:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), IPV6_CLIENT_BITS), strict=False))


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed

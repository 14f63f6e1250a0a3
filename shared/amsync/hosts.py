"""Which hosts are this machine alone, and which URLs may be asked with a secret."""

import ipaddress
from urllib.parse import urlsplit

MAX_URL = 2048


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_safe_url(url: object, *, with_query: bool = False) -> bool:
    """Tell whether it is https, or http on this machine, and nothing unusual is in it."""
    if not isinstance(url, str) or len(url) > MAX_URL or not url.isascii():
        return False
    if not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc or parts.fragment:
        return False
    if parts.query and not with_query:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))

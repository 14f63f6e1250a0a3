"""Where a Redis is, and how to log in there, from a URL.

    redis://[user:password@]host[:6379][/db]      rediss:// the same with TLS
    unix://[user:password@]/path[?db=0]
    redis+sentinel://[user:password@]host[:26379][,host...]/master-name[/db]    rediss+sentinel://

The query takes redis-py's names: ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs ("none"
trusts anybody), ssl_check_hostname; and sentinel_username, sentinel_password for the sentinels.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from amsync.errors import BusError, ConfigError

PORT = 6379
SENTINEL_PORT = 26379
SENTINEL_SECONDS = 1.0


@dataclass(frozen=True)
class Endpoint:
    """One server to connect to: a socket's path, or host and port."""

    path: str = ""
    host: str = ""
    port: int = PORT

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Address:
    """What a URL says. Its password is never shown."""

    endpoint: Endpoint
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    master: str = ""
    sentinel_login: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        if not self.sentinels:
            return str(self.endpoint)
        return f"{self.master} of " + ",".join(f"{host}:{port}" for host, port in self.sentinels)

    async def find(self) -> Endpoint:
        """The server to connect to now: the one named, or whom the sentinels call the master.

        Raises:
            BusError: No sentinel knows a master.
        """
        if not self.sentinels:
            return self.endpoint
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            list(self.sentinels),
            sentinel_kwargs=dict(self.sentinel_login),
            socket_timeout=SENTINEL_SECONDS,
            socket_connect_timeout=SENTINEL_SECONDS,
            retry=None,
        )
        try:
            host, port = await sentinel.discover_master(self.master)
        except (RedisError, OSError) as error:
            raise BusError(f"no master of {self}: {error}") from error
        finally:
            for one in sentinel.sentinels:
                await one.aclose()
        return Endpoint(host=str(host), port=int(port))


def parse(url: str) -> Address:
    """Read a URL.

    Raises:
        ConfigError: It is none of the forms above. The message doesn't repeat it.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme != "unix" and "@" in parts.path + parts.query + parts.fragment:
            # Else half of the password would be taken for host and port, and be shown as such.
            raise ValueError("write /, # and ? in a user or password as %2F, %23 and %3F")
        if parts.scheme.endswith("+sentinel"):
            return _parse_sentinel(url)
        options = parse_url(url)
        return _address(options, parts.scheme == "rediss")
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(
            f"the Redis URL can't be used: {error}; give redis://, rediss://, unix:// or"
            " redis+sentinel://host:26379,host:26379/master-name/0"
        ) from None


def _parse_sentinel(url: str) -> Address:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    master, _, database = parts.path.strip("/").partition("/")
    if not hosts or not master:
        raise ValueError("the sentinels' hosts or the master's name are missing")
    sentinels = tuple(_host(one) for one in hosts.split(","))
    query = dict(parse_qsl(parts.query))
    sentinel_login = {
        name: query.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in query
    }
    plain = urlunsplit(
        (
            parts.scheme.removesuffix("+sentinel"),
            f"{login}@sentinel" if login else "sentinel",
            database or "0",
            urlencode(query),
            "",
        )
    )
    address = _address(parse_url(plain), parts.scheme == "rediss+sentinel")
    return Address(
        address.endpoint,
        address.username,
        address.password,
        address.database,
        address.tls,
        sentinels,
        master,
        sentinel_login,
    )


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a sentinel has no host")
    return parts.hostname, parts.port or SENTINEL_PORT


def _address(options: Mapping[str, Any], has_tls: bool) -> Address:
    if "path" in options:
        endpoint = Endpoint(path=options["path"])
    else:
        endpoint = Endpoint(host=options.get("host", "localhost"), port=options.get("port", PORT))
    return Address(
        endpoint,
        options.get("username"),
        options.get("password"),
        int(options.get("db", 0)),
        _context(options) if has_tls else None,
    )


def _context(options: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if str(options.get("ssl_check_hostname", "true")).lower() in ("false", "no", "0"):
        context.check_hostname = False
    if options.get("ssl_cert_reqs", "required") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context

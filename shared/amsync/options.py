"""What the parts of a server are asked for, and what of it is refused.

Shared by the embedded server and the processes of a cluster, so that an option means the same
everywhere. Each `check` raises ConfigError: which option, what was found, what is allowed.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from amsync.auth import AuthConfig
from amsync.errors import ConfigError
from amsync.gateway.access import AccessConfig, ShareCallable, parse_share
from amsync.gateway.admission import AdmissionOptions, parse_origins
from amsync.gateway.limits import Limits, default_limits
from amsync.gateway.proxies import parse_networks
from amsync.hosts import is_loopback
from amsync.protocol.access import Share
from amsync.storage.volume import MAX_SHARD_COUNT
from amsync.tls import TLSConfig
from amsync.worker.peers import DocumentBounds
from amsync.worker.worker import WorkerOptions

MAX_DRAIN_SECONDS = 3600
LEAST_ADMIN_TOKEN = 16


class Ephemeral:
    """Type of `EPHEMERAL`; see `Server`."""

    def __repr__(self) -> str:
        return "amsync.EPHEMERAL"


EPHEMERAL = Ephemeral()
"""As `storage_id`: tell clients to keep nothing about this server. Documents are still kept."""


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """What every process has: a port for operators, and a time to end."""

    admin_port: int | None = None
    admin_host: str = "127.0.0.1"
    drain_seconds: float = 0.0

    def check(self) -> None:
        """Refuse what can't work or isn't safe. Raises ConfigError."""
        if self.admin_port is not None:
            _check_port("admin_port", self.admin_port)
        _check_host("admin_host", self.admin_host)
        seconds = self.drain_seconds
        if not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DRAIN_SECONDS:
            raise ConfigError(
                f"drain_seconds={seconds!r} is not allowed; give 0 to {MAX_DRAIN_SECONDS}"
            )


@dataclass(frozen=True, kw_only=True)
class ListenOptions(ProcessOptions):
    """Where clients come in, and what they may.

    Attributes:
        limits: None: stricter ones where strangers come in, see `default_limits`.
        allowed_origins: Web pages that may connect; None: on loopback without authentication
            those of this machine, else all.
        trusted_proxies: Networks whose X-Forwarded headers are believed.
        access: Who has a say on access beside `share`.
        admin_token: Of the calls of the admin port that change something; None: there are none.
    """

    port: int = 0
    host: str = "127.0.0.1"
    tls: TLSConfig | None = None
    share: Share | bool | ShareCallable | None = Share.ALLOW
    allow_anonymous: bool = False
    limits: Limits | None = None
    auth: AuthConfig | None = None
    allowed_origins: Sequence[str] | None = None
    trusted_proxies: Sequence[str] = ()
    access: AccessConfig | None = None
    admin_token: str | None = None

    def check(self) -> None:
        """Refuse what can't work or isn't safe. Raises ConfigError."""
        _check_port("port", self.port)
        _check_host("host", self.host)
        super().check()
        _check_bool("allow_anonymous", self.allow_anonymous)
        if self.limits is not None and not isinstance(self.limits, Limits):
            raise ConfigError(f"limits={self.limits!r} is not allowed; give amsync.Limits or None")
        if self.tls is not None and not isinstance(self.tls, TLSConfig):
            raise ConfigError(f"tls={self.tls!r} is not allowed; give an amsync.TLSConfig or None")
        if self.auth is not None:
            self._check_auth(self.auth)
        elif not is_loopback(self.host) and not self.allow_anonymous:
            raise ConfigError(
                f"host={self.host!r} is reachable from other machines and there is no"
                " authentication; configure it (auth, --auth-client-id), or pass"
                " allow_anonymous=True (--allow-anonymous) if everybody who reaches it may read"
                " and write, or listen on 127.0.0.1"
            )
        parse_share(self.share)
        self._check_access()
        self._check_admin_token()
        parse_networks(self.trusted_proxies)
        parse_origins(self.allowed_origins)

    def _check_access(self) -> None:
        access: object = self.access
        if access is None:
            return
        if not isinstance(access, AccessConfig):
            raise ConfigError(
                f"access={access!r} is not allowed; give an amsync.AccessConfig or None"
            )
        if access.claim is not None and self.auth is None:
            raise ConfigError(
                f"access_claim={access.claim!r} needs authentication, for it is a claim of tokens;"
                " configure that (auth, --auth-client-id)"
            )

    def _check_admin_token(self) -> None:
        token: object = self.admin_token
        if token is None:
            return
        if (
            not isinstance(token, str)
            or len(token) < LEAST_ADMIN_TOKEN
            or not (token.isascii() and token.isprintable())
            or " " in token
        ):
            raise ConfigError(
                f"admin_token must have {LEAST_ADMIN_TOKEN} or more characters, all of them ASCII"
                " without spaces"
            )
        if self.admin_port is None:
            raise ConfigError("admin_token is of no use without an admin_port (--admin-port)")

    def _check_auth(self, auth: object) -> None:
        if not isinstance(auth, AuthConfig):
            raise ConfigError(f"auth={auth!r} is not allowed; give an amsync.AuthConfig or None")
        if self.allow_anonymous:
            raise ConfigError(
                "auth and allow_anonymous (--allow-anonymous) exclude each other: nobody comes in"
                " without a token; leave one of them out"
            )
        if self.tls is None and not self.trusted_proxies:
            raise ConfigError(
                "auth needs TLS, or tokens could be read on their way; give a certificate (tls,"
                " --tls-cert and --tls-key), or the networks of the proxies that end TLS"
                " (trusted_proxies, --trusted-proxies)"
            )

    def limits_in_force(self) -> Limits:
        """The limits that were asked for, or the defaults of this way to listen."""
        strangers = not is_loopback(self.host) and self.auth is None
        return self.limits or default_limits(strangers=strangers)

    def admission(self) -> AdmissionOptions:
        """Whom to let in."""
        return AdmissionOptions(
            allowed_origins=parse_origins(self.allowed_origins),
            own_origins_only=is_loopback(self.host) and self.auth is None,
            trusted_proxies=parse_networks(self.trusted_proxies),
            has_tls=self.tls is not None,
        )


@dataclass(frozen=True, kw_only=True)
class KeepOptions(ProcessOptions):
    """Where documents are kept, when they are made, and how large clients may make them.

    Attributes:
        max_document_bytes, max_document_changes: What is larger is only read; 0: no bound.
    """

    data_dir: str | os.PathLike[str] = ".automerge"
    auto_create_docs: bool = True
    storage_id: str | Ephemeral | None = None
    max_document_bytes: int = 256 * 1024 * 1024
    max_document_changes: int = 5_000_000
    worker: WorkerOptions = field(default_factory=WorkerOptions)

    def check(self) -> None:
        """Refuse what can't work or isn't safe. Raises ConfigError."""
        super().check()
        if not isinstance(self.data_dir, str | os.PathLike) or not os.fspath(self.data_dir):
            raise ConfigError(f"data_dir={self.data_dir!r} is not allowed; give a directory")
        _check_bool("auto_create_docs", self.auto_create_docs)
        for name in ("max_document_bytes", "max_document_changes"):
            bound = getattr(self, name)
            if isinstance(bound, bool) or not isinstance(bound, int) or bound < 0:
                raise ConfigError(f"{name}={bound!r} is not allowed; give 0 (no bound) or more")
        if not isinstance(self.storage_id, str | Ephemeral | None):
            found_id = self.storage_id
            raise ConfigError(
                f"storage_id={found_id!r} is not allowed; give None, a text or amsync.EPHEMERAL"
            )

    def worker_options(self) -> WorkerOptions:
        """How the worker behaves."""
        bounds = DocumentBounds(self.max_document_bytes, self.max_document_changes)
        return replace(self.worker, auto_create=self.auto_create_docs, bounds=bounds)


@dataclass(frozen=True, kw_only=True)
class NodeOptions(ListenOptions, KeepOptions):
    """What `Server` was asked for; see there."""


@dataclass(frozen=True, kw_only=True)
class BusOptions(ProcessOptions):
    """Which cluster a process belongs to.

    Attributes:
        redis: URL; see `amsync.bus.redis.address`.
        prefix: Of every key in Redis.
    """

    redis: str
    prefix: str = "amsync"

    def check(self) -> None:
        """Refuse what can't work or isn't safe. Raises ConfigError."""
        super().check()
        if not self.prefix or not self.prefix.isascii() or set(self.prefix) & set("{}: \t\r\n"):
            raise ConfigError(
                f"prefix={self.prefix!r} is not allowed; give letters, digits, - and _"
            )


@dataclass(frozen=True, kw_only=True)
class GatewayNodeOptions(ListenOptions, BusOptions):
    """What `amsync gateway` was asked for."""


@dataclass(frozen=True, kw_only=True)
class WorkerNodeOptions(KeepOptions, BusOptions):
    """What `amsync worker` was asked for. `shard_count` None: the volume's, 64 for a new one."""

    shard_count: int | None = None

    def check(self) -> None:
        """Refuse what can't work or isn't safe. Raises ConfigError."""
        super().check()
        count = self.shard_count
        if count is not None and not 1 <= count <= MAX_SHARD_COUNT:
            raise ConfigError(f"shards={count!r} is not allowed; give 1 to {MAX_SHARD_COUNT}")


def _check_port(name: str, port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ConfigError(f"{name}={port!r} is not allowed; give 0 (any free) to 65535")


def _check_host(name: str, host: object) -> None:
    if not isinstance(host, str) or not host:
        raise ConfigError(f"{name}={host!r} is not allowed; give a name or an address")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r} is not allowed; give True or False")

"""amsync: a sync server for automerge-repo clients, durable, bounded and embeddable."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amsync.auth.config import AuthConfig
    from amsync.auth.identity import Identity
    from amsync.auth.issuers import Issuer
    from amsync.errors import (
        AmsyncError,
        AuthRefused,
        ConfigError,
        DocumentDeleted,
        DocumentExists,
        DocumentNotFound,
        InvalidDocument,
        InvalidDocumentId,
        ServerClosed,
        StorageError,
        StorageFull,
        VolumeBusy,
        VolumeError,
    )
    from amsync.gateway.access.config import AccessConfig, Decision, Webhook
    from amsync.gateway.limits import Limits
    from amsync.ids import generate_document_id
    from amsync.node import DocumentView
    from amsync.options import EPHEMERAL
    from amsync.protocol.access import Access, Share
    from amsync.server import Server, amsync_server
    from amsync.tls import TLSConfig, write_cert
    from amsync.version import __version__

__all__ = [
    "EPHEMERAL",
    "Access",
    "AccessConfig",
    "AmsyncError",
    "AuthConfig",
    "AuthRefused",
    "ConfigError",
    "Decision",
    "DocumentDeleted",
    "DocumentExists",
    "DocumentNotFound",
    "DocumentView",
    "Identity",
    "InvalidDocument",
    "InvalidDocumentId",
    "Issuer",
    "Limits",
    "Server",
    "ServerClosed",
    "Share",
    "StorageError",
    "StorageFull",
    "TLSConfig",
    "VolumeBusy",
    "VolumeError",
    "Webhook",
    "__version__",
    "amsync_server",
    "generate_document_id",
    "write_cert",
]

_WHERE = {
    "EPHEMERAL": "options",
    "Access": "protocol.access",
    "AccessConfig": "gateway.access.config",
    "AuthConfig": "auth.config",
    "Decision": "gateway.access.config",
    "DocumentView": "node",
    "Identity": "auth.identity",
    "Issuer": "auth.issuers",
    "Limits": "gateway.limits",
    "Server": "server",
    "Share": "protocol.access",
    "TLSConfig": "tls",
    "Webhook": "gateway.access.config",
    "__version__": "version",
    "amsync_server": "server",
    "generate_document_id": "ids",
    "write_cert": "tls",
}


def __getattr__(name: str) -> object:
    """Import what is public when it is first used: commands without a server don't need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_WHERE.get(name, 'errors')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

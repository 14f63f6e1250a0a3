"""amsync: a sync server for automerge-repo clients, durable, bounded and embeddable."""

from amsync.errors import (
    AmsyncError,
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
from amsync.gateway.limits import Limits
from amsync.ids import generate_document_id
from amsync.node import EPHEMERAL, DocumentView
from amsync.protocol.access import Share
from amsync.server import Server, amsync_server
from amsync.tls import TLSConfig, write_cert
from amsync.version import __version__

__all__ = [
    "EPHEMERAL",
    "AmsyncError",
    "ConfigError",
    "DocumentDeleted",
    "DocumentExists",
    "DocumentNotFound",
    "DocumentView",
    "InvalidDocument",
    "InvalidDocumentId",
    "Limits",
    "Server",
    "ServerClosed",
    "Share",
    "StorageError",
    "StorageFull",
    "TLSConfig",
    "VolumeBusy",
    "VolumeError",
    "__version__",
    "amsync_server",
    "generate_document_id",
    "write_cert",
]

"""Storage: the volume, its WAL and the document folders. `Store` is the way in."""

from amsync.storage.batch import DocumentChunks, Position, Tombstone, WalBatch
from amsync.storage.codec import BlobFault, ChunkCodec, ChunkInfo, Examination, Snapshot
from amsync.storage.compaction import Compacted
from amsync.storage.files import FileSystem, RealFileSystem
from amsync.storage.findings import Finding
from amsync.storage.members import Shared
from amsync.storage.opening import open_shared_store, open_store
from amsync.storage.predecessors import RESCAN_SECONDS
from amsync.storage.shared import SharedStore, TakenOver
from amsync.storage.store import LoadedDocument, Store

__all__ = [
    "RESCAN_SECONDS",
    "BlobFault",
    "ChunkCodec",
    "ChunkInfo",
    "Compacted",
    "DocumentChunks",
    "Examination",
    "FileSystem",
    "Finding",
    "LoadedDocument",
    "Position",
    "RealFileSystem",
    "Shared",
    "SharedStore",
    "Snapshot",
    "Store",
    "TakenOver",
    "Tombstone",
    "WalBatch",
    "open_shared_store",
    "open_store",
]

"""Opening a volume: alone, as one of several workers, or for reading.

Not here: what a store does (`store`, `shared`), and who may hold a volume (`hold`, `members`).
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from amsync.storage.codec import ChunkCodec
from amsync.storage.commit import Observe
from amsync.storage.files import FileSystem, RealFileSystem
from amsync.storage.members import Shared
from amsync.storage.shared import SharedStore
from amsync.storage.store import CHECKPOINT_BYTES, TAIL_LIMIT_BYTES, Store
from amsync.storage.volume import SHARD_COUNT, Volume
from amsync.storage.wal import SEGMENT_BYTES


def open_store(
    root: Path,
    *,
    codec: ChunkCodec,
    storage_id: str | None = None,
    ephemeral: bool = False,
    shard_count: int = SHARD_COUNT,
    strict_shard_count: bool = False,
    files: FileSystem | None = None,
    threaded: bool = True,
    observe: Observe | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    tail_limit_bytes: int = TAIL_LIMIT_BYTES,
    read_only: bool = False,
    new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Store:
    """Open a volume or make it, recover its WAL, take in flat files. Blocking.

    Args:
        root: The data directory; made with its parents if missing.
        codec: The engine, as far as storage needs it; called from any thread.
        storage_id: To use and keep; None takes the kept one, automerge-repo's, or a new UUID.
        ephemeral: Advertise no storage id; documents are kept all the same.
        shard_count: For a new volume; an existing one keeps its own.
        strict_shard_count: Refuse an existing volume that has another count.
        files: The file system; None is the real one.
        threaded: False does everything in the caller's thread, for single-threaded simulations.
        observe: Called with (seconds, chunk bytes) after each fsync, in the commit thread; must
            not raise.
        segment_bytes: See `SEGMENT_BYTES`.
        checkpoint_bytes: See `CHECKPOINT_BYTES`.
        tail_limit_bytes: See `TAIL_LIMIT_BYTES`.
        read_only: Change nothing in the directory, which must exist. Everything that is in
            folders, WAL and flat files can be read; what would write raises StorageError.
        new_uuid: Source of ids, for reproducible simulations.
        monotonic: A clock in seconds, for the heartbeat of a network volume.
        pause: Waits for so many seconds, for the same.

    Raises:
        ConfigError: An option is not possible, or another storage id or shard count is in use
            here.
        VolumeBusy: Another live server holds the directory, or workers of a cluster.
        VolumeError: The directory can't be used as it is.
        StorageError, StorageFull: Recovery could not read or write. Nothing is lost.
    """
    files = files or RealFileSystem()
    if read_only:
        volume = Volume.open_for_reading(
            root.absolute(), files=files, monotonic=monotonic, pause=pause
        )
    else:
        volume = Volume.open(
            root.absolute(),
            files=files,
            storage_id=storage_id,
            ephemeral=ephemeral,
            shard_count=shard_count,
            strict_shard_count=strict_shard_count,
            threaded=threaded,
            new_uuid=new_uuid,
            monotonic=monotonic,
            pause=pause,
        )
    with contextlib.ExitStack() as on_error:
        on_error.callback(volume.close)
        store = Store(
            volume,
            codec,
            threaded=threaded,
            observe=observe,
            segment_bytes=segment_bytes,
            checkpoint_bytes=checkpoint_bytes,
            tail_limit_bytes=tail_limit_bytes,
        )
        on_error.pop_all()
    return store


def open_shared_store(
    root: Path,
    *,
    codec: ChunkCodec,
    shared: Shared,
    storage_id: str | None = None,
    ephemeral: bool = False,
    shard_count: int = SHARD_COUNT,
    strict_shard_count: bool = False,
    files: FileSystem | None = None,
    threaded: bool = True,
    observe: Observe | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    tail_limit_bytes: int = TAIL_LIMIT_BYTES,
    new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    monotonic: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> SharedStore:
    """Open a volume, or make it, as one of several workers of a cluster. Blocking.

    Nothing of its documents is there before `SharedStore.take_over`. Waits for other workers
    that are opening it, up to 30 s; where a member works with another bus, 12 s whether it goes
    on. Flat files are taken in by the first worker of a cluster.

    Args:
        root: As in `open_store`, like all that is not named here.
        codec: The engine.
        shared: The bus, and how long an old owner may go on.
        storage_id: To use and keep.
        ephemeral: Advertise no storage id.
        shard_count: For a new volume.
        strict_shard_count: Refuse an existing volume that has another count.
        files: The file system.
        threaded: False: everything in the caller's thread.
        observe: Called after each fsync.
        segment_bytes: See `SEGMENT_BYTES`.
        checkpoint_bytes: See `CHECKPOINT_BYTES`.
        tail_limit_bytes: See `TAIL_LIMIT_BYTES`.
        new_uuid: Source of ids.
        monotonic: A clock in seconds.
        pause: Waits for so many seconds.

    Raises:
        ConfigError: As in `open_store`.
        VolumeBusy: A server of its own holds the directory, or workers of another cluster.
        VolumeError: The directory can't be used as it is.
        StorageError, StorageFull: Flat files could not be found. Nothing is lost.
    """
    volume = Volume.open(
        root.absolute(),
        files=files or RealFileSystem(),
        storage_id=storage_id,
        ephemeral=ephemeral,
        shard_count=shard_count,
        strict_shard_count=strict_shard_count,
        shared=shared,
        threaded=threaded,
        new_uuid=new_uuid,
        monotonic=monotonic,
        pause=pause,
    )
    with contextlib.ExitStack() as on_error:
        on_error.callback(volume.close)
        store = SharedStore(
            volume,
            codec,
            threaded=threaded,
            observe=observe,
            segment_bytes=segment_bytes,
            checkpoint_bytes=checkpoint_bytes,
            tail_limit_bytes=tail_limit_bytes,
            shared=shared,
            monotonic=monotonic,
        )
        volume.opened()
        on_error.pop_all()
    return store

"""The data directory as a whole: its identity, its self-test and who holds it.

Not here: documents and the WAL. Invariant: while a `Volume` is open no other process opens the
same directory, and a kill -9 of the holder leaves nothing to remove by hand.

    <root>/st/orage-adapter-id      the storage id, as automerge-repo writes it
    <root>/.amsync/lock             flock, with the holder's pid and host for messages
    <root>/.amsync/cluster.json     layout version, cluster id, storage id, shard count
    <root>/.amsync/tmp/             unfinished files
"""

import contextlib
import errno
import json
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from amsync.errors import ConfigError, StorageError, VolumeBusy, VolumeError
from amsync.ids import StorageId, is_safe_peer_text
from amsync.storage.durable import DurableFiles
from amsync.storage.files import FileSystem, HeldLock, LockHeld, list_names, path_exists
from amsync.storage.findings import Findings

LAYOUT_VERSION = 1
CONTROL_DIRECTORY = ".amsync"
ADAPTER_ID = Path("st") / "orage-adapter-id"
MAX_SHARD_COUNT = 4_096


@dataclass(frozen=True, slots=True)
class Cluster:
    """The content of cluster.json.

    Attributes:
        layout_version: Of the whole `.amsync` folder; another one is refused.
        cluster_id: 32 hex digits, made with the volume.
        storage_id: What peers know this volume by.
        storage_id_advertised: Whether peers may have seen it; only then it can't be changed.
        shard_count: Shards that documents are spread over; streams are named by them.
    """

    layout_version: int
    cluster_id: str
    storage_id: str
    storage_id_advertised: bool
    shard_count: int


class Volume:
    """An open data directory. Made by `Volume.open`.

    Attributes:
        root: The data directory.
        control: Its `.amsync` folder.
        files: The file system below.
        durable: Durable writes below the root.
        findings: What was found wrong since the volume was opened.
        owner: 32 hex digits, unique to this opening; names the WAL incarnation.
        cluster_id: 32 hex digits.
        storage_id: The id to advertise, or None if ephemeral.
        shard_count: Shards of this volume.
        peer_id: The server's peer id, the same at every opening.
    """

    def __init__(
        self,
        root: Path,
        files: FileSystem,
        durable: DurableFiles,
        findings: Findings,
        owner: str,
        cluster: Cluster,
        lock: HeldLock,
        *,
        ephemeral: bool,
    ) -> None:
        self.root = root
        self.control = root / CONTROL_DIRECTORY
        self.files = files
        self.durable = durable
        self.findings = findings
        self.owner = owner
        self.cluster_id = cluster.cluster_id
        self.storage_id = None if ephemeral else StorageId(cluster.storage_id)
        self.shard_count = cluster.shard_count
        self.peer_id = f"amsync-{cluster.cluster_id[:12]}"
        self._lock = lock

    @staticmethod
    def open(
        root: Path,
        *,
        files: FileSystem,
        storage_id: str | None = None,
        ephemeral: bool = False,
        shard_count: int = 64,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> "Volume":
        """Open a data directory, or make it.

        Args:
            root: Absolute path; made with its parents if missing.
            storage_id: The id to use and keep; None takes the kept one, that of automerge-repo,
                or a new UUID.
            ephemeral: Advertise no storage id. One is kept in the volume all the same.
            shard_count: For a new volume; an existing one keeps its own.
            new_uuid: Source of ids, for reproducible simulations.

        Raises:
            ConfigError: An option is not possible, or another storage id is in use here.
            VolumeBusy: Another live server holds the directory.
            VolumeError: It is no directory, its file system lacks what durability needs, or
                its layout is not ours.
        """
        if not 1 <= shard_count <= MAX_SHARD_COUNT:
            raise ConfigError(f"shard_count={shard_count} must be 1 to {MAX_SHARD_COUNT}")
        if storage_id is not None and not is_safe_peer_text(storage_id):
            raise ConfigError(
                "storage_id must be 1 to 256 characters without control characters; "
                f"found {len(storage_id)} characters"
            )
        control = root / CONTROL_DIRECTORY
        owner = new_uuid().hex
        durable = DurableFiles(files, root, control / "tmp", owner)
        findings = Findings()
        try:
            _make_root(files, root)
            durable.ensure_directory(control)
        except (OSError, StorageError) as error:
            raise VolumeError(f"can't use {root} as data directory: {error}") from error
        lock = _claim(files, control / "lock")
        try:
            wanted = None if ephemeral else storage_id
            cluster = _read_cluster(files, control)
            _self_test(files, durable, control / "tmp", owner)
            durable.clear_scratch()
            found = _adapter_id(files, root, findings)
            if cluster is None:
                cluster = Cluster(
                    layout_version=LAYOUT_VERSION,
                    cluster_id=new_uuid().hex,
                    storage_id=found or wanted or str(new_uuid()),
                    storage_id_advertised=found is not None,
                    shard_count=shard_count,
                )
            kept = cluster
            cluster = _settle_storage_id(cluster, wanted, found, ephemeral=ephemeral)
            if cluster != kept or not path_exists(files, control / "cluster.json"):
                text = json.dumps(asdict(cluster), indent=1) + "\n"
                durable.write(control / "cluster.json", text.encode())
            if not ephemeral and found is None:
                durable.write(root / ADAPTER_ID, cluster.storage_id.encode())
            elif found is not None and found != cluster.storage_id:
                findings.add(
                    "storage_id", root / ADAPTER_ID, "differs from cluster.json, which is used"
                )
        except OSError as error:
            lock.release()
            raise VolumeError(f"can't use {root} as data directory: {error}") from error
        except StorageError as error:
            lock.release()
            raise VolumeError(f"can't use {root} as data directory: {error}") from error
        except BaseException:
            lock.release()
            raise
        return Volume(root, files, durable, findings, owner, cluster, lock, ephemeral=ephemeral)

    def close(self) -> None:
        """Give the directory back. Nothing may write to it any more; may be called twice."""
        self._lock.release()


def _make_root(files: FileSystem, root: Path) -> None:
    if path_exists(files, root):
        if not files.stat(root).is_directory:
            raise NotADirectoryError(errno.ENOTDIR, "it is not a directory")
        return
    _make_root(files, root.parent)
    with contextlib.suppress(FileExistsError):
        files.make_directory(root)
    files.fsync_directory(root.parent)


def _claim(files: FileSystem, path: Path) -> HeldLock:
    # flock keeps out every process of this machine and, over NFSv4, of others. Where it does
    # not reach, the heartbeat file of DESIGN 6 belongs here, behind the same HeldLock.
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode()
    try:
        return files.lock(path, holder)
    except LockHeld as held:
        try:
            fields = json.loads(held.args[0])
            who = f"process {int(fields['pid'])} on {fields['host']}"
        except (ValueError, TypeError, KeyError):
            who = "another process"
        raise VolumeBusy(
            f"{path.parent.parent} is held by {who}; stop that server or use another directory"
        ) from None
    except OSError as error:
        raise VolumeError(f"can't lock {path}: {error.strerror or error}") from error


def _self_test(files: FileSystem, durable: DurableFiles, scratch: Path, owner: str) -> None:
    first, second = scratch / f"{owner}-test-a", scratch / f"{owner}-test-b"
    durable.ensure_directory(scratch)
    file = files.create(first)
    try:
        file.write(owner.encode())
        file.fsync()
    finally:
        file.close()
    try:
        files.create(first).close()
    except FileExistsError:
        pass
    else:
        raise VolumeError(f"the file system of {scratch} made the same new file twice (O_EXCL)")
    files.rename(first, second)
    files.fsync_directory(scratch)
    names = {entry.name for entry in files.list_directory(scratch)}
    if first.name in names or second.name not in names or files.read(second) != owner.encode():
        raise VolumeError(f"the file system of {scratch} does not show a file just renamed")
    files.unlink(second)


def _read_cluster(files: FileSystem, control: Path) -> Cluster | None:
    path = control / "cluster.json"
    try:
        text = files.read(path)
    except FileNotFoundError:
        if list_names(files, control / "wal") or list_names(files, control / "shards"):
            raise VolumeError(
                f"{path} is missing but the volume has been used; bring it back from a backup"
            ) from None
        return None
    return parse_cluster(path, text)


def parse_cluster(path: Path, text: bytes) -> Cluster:
    """Read the text of a cluster.json; the path is for messages.

    Raises:
        VolumeError: It is damaged, or of another layout.
    """
    try:
        fields = json.loads(text)
        version = fields["layout_version"]
        if version != LAYOUT_VERSION:
            raise VolumeError(
                f"{path} has layout_version {version!r}; this server knows {LAYOUT_VERSION}. "
                "Use the version of amsync that wrote it"
            )
        cluster = Cluster(
            layout_version=LAYOUT_VERSION,
            cluster_id=uuid.UUID(hex=fields["cluster_id"]).hex,
            storage_id=fields["storage_id"],
            storage_id_advertised=bool(fields.get("storage_id_advertised", True)),
            shard_count=fields["shard_count"],
        )
        count = cluster.shard_count
        if not is_safe_peer_text(cluster.storage_id):
            raise ValueError("storage_id is not usable")
        if type(count) is not int or not 1 <= count <= MAX_SHARD_COUNT:
            raise ValueError("shard_count is not usable")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VolumeError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return cluster


def _adapter_id(files: FileSystem, root: Path, findings: Findings) -> str | None:
    path = root / ADAPTER_ID
    try:
        text = files.read(path).decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, IsADirectoryError):
        text = ""
    if not is_safe_peer_text(text):
        findings.add("storage_id", path, "is not the text of a storage id and is ignored")
        return None
    return text


def _settle_storage_id(
    cluster: Cluster, wanted: str | None, found: str | None, *, ephemeral: bool
) -> Cluster:
    """Choose the storage id; peers that know one must find it again."""
    storage_id = cluster.storage_id
    if not cluster.storage_id_advertised:
        storage_id = found or wanted or storage_id
    if wanted is not None and wanted != storage_id:
        raise ConfigError(
            f"storage_id={wanted!r} but the volume is known to peers as {storage_id!r}; "
            "leave the option out, give that id, or use another data directory"
        )
    return Cluster(
        layout_version=cluster.layout_version,
        cluster_id=cluster.cluster_id,
        storage_id=storage_id,
        storage_id_advertised=cluster.storage_id_advertised or not ephemeral or found is not None,
        shard_count=cluster.shard_count,
    )

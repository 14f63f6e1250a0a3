"""The data directory as a whole: its identity and its self-test.

Not here: documents, the WAL, and how the directory is held (`hold`, by workers of a cluster
`members`). Invariant: while a `Volume` is open no other process opens the same directory, except
workers of the same cluster, and a kill -9 of a holder leaves nothing to remove by hand.

    <root>/st/orage-adapter-id      the storage id, as automerge-repo writes it
    <root>/.amsync/lock             who holds the directory
    <root>/.amsync/cluster.json     layout version, cluster id, storage id, shard count
    <root>/.amsync/tmp/             unfinished files
"""

import contextlib
import errno
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from amsync.errors import ConfigError, StorageError, StorageFull, VolumeError
from amsync.ids import StorageId, is_safe_peer_text
from amsync.storage.durable import DurableFiles
from amsync.storage.files import FileSystem, HeldLock, list_names, path_exists, storage_errors
from amsync.storage.findings import Findings
from amsync.storage.hold import BEAT_SECONDS, Hold, claim, claim_for_reading, parse_record
from amsync.storage.members import Member, Members, Shared

LAYOUT_VERSION = 1
CONTROL_DIRECTORY = ".amsync"
ADAPTER_ID = Path("st") / "orage-adapter-id"
SHARD_COUNT = 64
"""Of a volume that is made without saying how many."""

MAX_SHARD_COUNT = 4_096

_NOT_OURS = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EROFS)

HIDDEN_SECONDS = 60.0
"""So long a network file system may go on not showing a name that another machine has made."""


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
    """An open data directory. Made by `Volume.open` or `Volume.open_for_reading`.

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
        hold: What says that the directory is ours; None when it was opened for reading.
        member: The same, if workers of a cluster hold it together; else None.
        members: All of them, likewise.
        is_alone: Nobody else may have the directory open.
    """

    def __init__(
        self,
        root: Path,
        files: FileSystem,
        durable: DurableFiles,
        findings: Findings,
        owner: str,
        cluster: Cluster,
        hold: Hold | None,
        *,
        ephemeral: bool = False,
        reading: HeldLock | None = None,
        opening: Hold | None = None,
        members: Members | None = None,
        is_alone: bool = True,
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
        self.hold = hold
        self.member = hold if isinstance(hold, Member) else None
        self.members = members
        self.is_alone = is_alone
        self._reading = reading
        self._opening = opening

    @staticmethod
    def open(
        root: Path,
        *,
        files: FileSystem,
        storage_id: str | None = None,
        ephemeral: bool = False,
        shard_count: int = SHARD_COUNT,
        strict_shard_count: bool = False,
        shared: Shared | None = None,
        threaded: bool = True,
        new_uuid: Callable[[], uuid.UUID] = uuid.uuid4,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> "Volume":
        """Open a data directory, or make it. Blocking, on network file systems up to 75 s.

        With `shared`, others can't open it before `opened` is called.

        Args:
            root: Absolute path; made with its parents if missing.
            storage_id: The id to use and keep; None takes the kept one, that of automerge-repo,
                or a new UUID.
            ephemeral: Advertise no storage id. One is kept in the volume all the same.
            shard_count: For a new volume; an existing one keeps its own.
            strict_shard_count: Refuse an existing one with another count.
            shared: Open it as one of several workers; None: alone.
            threaded: Beat in a thread, where the file system needs it; else the caller does.
            new_uuid: Source of ids, for reproducible simulations.
            monotonic: A clock in seconds.
            pause: Waits for so many seconds.

        Raises:
            ConfigError: An option is not possible, or another storage id is in use here.
            VolumeBusy: Another live server holds the directory; or workers of a cluster, or
                of another one if `shared`.
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
        with _volume_errors(root):
            _make_root(files, root)
            durable.ensure_directory(control)
        members = Members(files, control, monotonic=monotonic, pause=pause)
        with _volume_errors(root):
            if shared is None:
                hold = claim(files, control / "lock", owner, monotonic=monotonic, pause=pause)
            else:
                hold = members.claim_to_open(owner, shared)
        member, is_alone = None, True
        try:
            with _volume_errors(root):
                if shared is None:
                    members.refuse_any(hold.previous, hold.beat)
                    members.remove_dead()
                else:
                    member, is_alone = members.join(durable, hold, owner, shared)
                try:
                    _self_test(files, durable, control / "tmp", owner)
                except StorageFull as error:
                    # A full disk must not keep the documents from being read.
                    findings.add("self_test_skipped", control, str(error))
                if is_alone:
                    durable.clear_scratch()
                found = _adapter_id(files, root, findings)
                wanted = None if ephemeral else storage_id
                kept = _read_cluster(files, control)
                if kept is None and not hold.is_first and hold.is_unseen:
                    # Its name may be hidden still; a second identity would split the volume.
                    for _ in range(int(HIDDEN_SECONDS / BEAT_SECONDS)):
                        pause(BEAT_SECONDS)
                        hold.beat()
                    kept = _read_cluster(files, control)
                cluster = _settle_storage_id(
                    kept or _new_cluster(new_uuid, found or wanted, shard_count),
                    wanted,
                    found,
                    ephemeral=ephemeral,
                )
                if strict_shard_count and cluster.shard_count != shard_count:
                    raise ConfigError(
                        f"shard_count={shard_count} but {root} was made with "
                        f"{cluster.shard_count}, which can't be changed; leave the option out, "
                        "give that number, or use another data directory"
                    )
                if cluster != kept:
                    text = json.dumps(asdict(cluster), indent=1) + "\n"
                    durable.write(control / "cluster.json", text.encode())
                if not ephemeral and found is None:
                    durable.write(root / ADAPTER_ID, cluster.storage_id.encode())
                elif found is not None and found != cluster.storage_id:
                    findings.add(
                        "storage_id", root / ADAPTER_ID, "differs from cluster.json, which is used"
                    )
        except BaseException:
            if member is not None:
                member.release()
            hold.release()
            raise
        if threaded:
            hold.start()
            if member is not None:
                member.start()
        return Volume(
            root,
            files,
            durable,
            findings,
            owner,
            cluster,
            member or hold,
            ephemeral=ephemeral,
            opening=None if member is None else hold,
            members=None if member is None else members,
            is_alone=is_alone,
        )

    def opened(self) -> None:
        """Let other workers open the directory too, if it is shared."""
        if self._opening is not None:
            # Whoever holds it alone later, elsewhere, has not seen what the workers wrote.
            self._opening.is_unseen = self.files.is_networked(self.control)
            self._opening.release()

    @staticmethod
    def open_for_reading(
        root: Path,
        *,
        files: FileSystem,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> "Volume":
        """Open a data directory without changing anything in it; servers are kept out meanwhile.

        Raises:
            VolumeBusy: A live server holds it, or workers of a cluster.
            VolumeError: It is no directory, or its layout is not ours.
        """
        control = root / CONTROL_DIRECTORY
        findings = Findings()
        with _volume_errors(root):
            if not files.stat(root).is_directory:
                raise NotADirectoryError(errno.ENOTDIR, "it is not a directory")
            lock = claim_for_reading(files, control / "lock", monotonic=monotonic, pause=pause)
        try:
            with _volume_errors(root):
                if lock is not None:
                    last = parse_record(files.read(control / "lock"))
                    members = Members(files, control, monotonic=monotonic, pause=pause)
                    previous = () if last is None else (last.owner, *last.others)
                    members.refuse_any(previous, lambda: None)
                cluster = _read_cluster(files, control)
                if cluster is None:
                    found = _adapter_id(files, root, findings)
                    cluster = _new_cluster(uuid.uuid4, found, SHARD_COUNT)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        durable = DurableFiles(files, root, control / "tmp", "reader")
        return Volume(root, files, durable, findings, "reader", cluster, None, reading=lock)

    def close(self) -> None:
        """Give the directory back. Nothing may write to it any more; may be called twice."""
        if self._opening is not None:
            self._opening.release()
        if self.hold is not None:
            self.hold.release()
        if self._reading is not None:
            self._reading.release()


@contextlib.contextmanager
def _volume_errors(root: Path) -> Iterator[None]:
    """Turn what goes wrong while a directory is opened into VolumeError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise VolumeError(f"can't use {root} as data directory: {reason}") from error
    except StorageError as error:
        raise VolumeError(f"can't use {root} as data directory: {error}") from error


def _new_cluster(
    new_uuid: Callable[[], uuid.UUID], storage_id: str | None, shard_count: int
) -> Cluster:
    return Cluster(
        layout_version=LAYOUT_VERSION,
        cluster_id=new_uuid().hex,
        storage_id=storage_id or str(new_uuid()),
        storage_id_advertised=False,
        shard_count=shard_count,
    )


def _make_root(files: FileSystem, root: Path) -> None:
    for path in (*reversed(root.parents), root):
        if not path_exists(files, path):
            with contextlib.suppress(FileExistsError):
                files.make_directory(path)
    if not files.stat(root).is_directory:
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory")
    # Also when all were there: a process that was killed may have made them without coming to
    # this (test_nothing_named_is_lost_...). Where we may not look, or a file system knows no
    # fsync of directories (/proc, a squashfs), we have made nothing.
    for path in root.parents:
        try:
            files.fsync_directory(path)
        except OSError as error:
            if error.errno not in (*_NOT_OURS, errno.EACCES, errno.EPERM):
                raise


def _self_test(files: FileSystem, durable: DurableFiles, scratch: Path, owner: str) -> None:
    first, second = scratch / f"{owner}-test-a", scratch / f"{owner}-test-b"
    durable.ensure_directory(scratch)
    with storage_errors("test", scratch):
        _try_out(files, scratch, first, second, owner.encode())


def _try_out(files: FileSystem, scratch: Path, first: Path, second: Path, text: bytes) -> None:
    file = files.create(first)
    try:
        file.write(text)
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
    if first.name in names or second.name not in names or files.read(second) != text:
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
    return replace(
        cluster,
        storage_id=storage_id,
        storage_id_advertised=cluster.storage_id_advertised or not ephemeral or found is not None,
    )

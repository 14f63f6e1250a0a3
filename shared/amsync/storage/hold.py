"""Who holds a data directory: a lock, and on network file systems a heartbeat beside it.

Not here: what the holder does with the directory. The file `.amsync/lock` is locked (flock) by
the holder and says who it is. One machine's kernel answers for its own locks, so there the lock
alone decides, and a kill -9 leaves nothing behind. Between machines a lock may be unknown, or
local to each of them; there the holder also counts up a number in the file every few seconds,
and a newcomer watches whether it moves before it takes over.

Invariant: a holder that has not beaten for `LATE_SECONDS` looks whether the directory is still
its own before it acknowledges anything. A newcomer waits twice as long, and what an old holder
had written until then is found by the second look at its WAL (`Store.rescan`).
"""

import contextlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from amsync.errors import StorageError, VolumeBusy, VolumeError, VolumeLost
from amsync.storage.files import FileSystem, HeldLock, LockHeld, path_exists, storage_errors

BEAT_SECONDS = 3.0
"""Time between two beats."""

LATE_SECONDS = 6.0
"""A holder whose last beat is older looks before it acknowledges."""

SILENT_SECONDS = 12.0
"""A holder whose number did not move for so long is dead, or will notice that it has lost."""

CLAIM_SECONDS = 3.0
"""Where no lock is enforced: after so long, of two that claimed at once the last one has won."""

RECORD_BYTES = 512
"""The record is always this long, so that a later one leaves nothing of an earlier one."""

REMEMBERED = 6
"""Owners that a lock file names besides its holder; a record has `RECORD_BYTES`."""

log = logging.getLogger("amsync.storage")


@dataclass(frozen=True, slots=True)
class Record:
    """What the lock file says.

    Attributes:
        owner: 32 hex digits, unique to this opening of the volume.
        pid: Of the holder, on its own machine.
        host: Name of its machine, for messages.
        machine: Id of that start of that machine.
        beat: Counts up while the holder lives.
        is_unseen: It may not yet have seen all that its predecessors on other machines wrote.
        has_stopped: It gave the directory back.
        bus_id: Of a cluster's worker: the bus that it works with; else empty.
        others: Of the lock file: the last few owners before; of a worker's own file: workers
            that may have lived when it joined. Where names show late they are found by these.
    """

    owner: str
    pid: int
    host: str
    machine: str
    beat: int = 0
    is_unseen: bool = False
    has_stopped: bool = False
    bus_id: str = ""
    others: tuple[str, ...] = ()


class Hold:
    """A data directory held by this process. Made by `claim`. Thread-safe.

    Attributes:
        is_unseen: Other machines' latest files may still be hidden from this one; until
            `all_seen` is called.
        is_first: Nobody has held the directory before.
        previous: Owners of the last few holders, the latest first, as far as they can be read.
        beats: The number in the file counts; else the lock alone decides.
    """

    text_matters = False
    """Others go by what the file says, also where the lock decides who holds it."""

    def __init__(
        self,
        files: FileSystem,
        path: Path,
        lock: HeldLock,
        record: Record,
        *,
        beats: bool,
        is_first: bool,
        monotonic: Callable[[], float],
        previous: tuple[str, ...] = (),
    ) -> None:
        self.is_unseen, self.is_first = record.is_unseen, is_first
        self.previous = previous
        self._files, self._path, self._file_lock = files, path, lock
        self._record = record
        self.beats, self._monotonic = beats, monotonic
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost: str | None = None
        self._released = False
        self._beat, self._beaten_at = 0, monotonic()
        try:
            self._write(0)
        except OSError:
            # Where the lock alone decides, the text is for messages, and the disk may be full.
            if beats or self.text_matters:
                raise

    def _write(self, beat: int, *, has_stopped: bool = False) -> None:
        fields = asdict(self._record) | {
            "beat": beat,
            "is_unseen": self.is_unseen,
            "has_stopped": has_stopped,
        }
        self._file_lock.write(json.dumps(fields).encode().ljust(RECORD_BYTES - 1) + b"\n")
        self._beat = beat
        self._beaten_at = self._monotonic()

    def start(self) -> None:
        """Beat in a thread from now on, where that is needed."""
        if self.beats and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="amsync-beat", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self.beat()
            except VolumeLost:
                return
            except StorageError as error:
                log.warning("heartbeat failed", extra={"error": str(error)})

    def beat(self) -> None:
        """Show that this holder lives.

        Raises:
            VolumeLost: Somebody else holds the directory.
            StorageError: It could not be shown; after `LATE_SECONDS` nothing is acknowledged.
        """
        with self._lock:
            self._look_and_beat()

    def check_known(self) -> None:
        """Raise VolumeLost if that is known already; never blocks."""
        if self._lost is not None:
            raise VolumeLost(self._lost)

    def check(self) -> None:
        """Make sure that the directory is still ours; cheap unless the last beat is late.

        Raises:
            VolumeLost: It is not; whatever was not acknowledged by now must not be.
            StorageError: That could not be found out.
        """
        self.check_known()
        with self._lock:
            if self.beats and self._monotonic() - self._beaten_at > LATE_SECONDS:
                self._look_and_beat()

    def _look_and_beat(self) -> None:
        self._look()
        with storage_errors("write", self._path):
            self._write(self._beat + 1)

    def _look(self) -> None:
        if self._lost is None:
            with storage_errors("read", self._path):
                found = parse_record(self._files.read(self._path))
            # A record that can't be read is one that is being written.
            if found is not None and found.owner != self._record.owner:
                self._lost = (
                    f"{self._path.parent.parent} was taken over by {who(found)}; this server "
                    "was stopped or cut off from the volume for too long"
                )
                log.critical("data directory lost", extra={"error": self._lost})
        self.check_known()

    def all_seen(self) -> None:
        """Note that everything that predecessors wrote has been seen.

        Raises:
            VolumeLost: Somebody else holds the directory.
            StorageError: That could not be found out.
        """
        with self._lock:
            if self.beats:
                self._look()
            self.is_unseen = False
            # If this fails, the next holder looks twice too, which is harmless.
            with contextlib.suppress(OSError):
                self._write(self._beat + 1)

    def release(self) -> None:
        """Give the directory back; a second call does nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._released:
                return
            self._released = True
            with contextlib.suppress(OSError, StorageError):
                if self.beats:
                    self._look()
                self._write(self._beat + 1, has_stopped=True)
            self._file_lock.release()


def claim(
    files: FileSystem,
    path: Path,
    owner: str,
    *,
    monotonic: Callable[[], float],
    pause: Callable[[float], None],
    bus_id: str = "",
) -> Hold:
    """Take a data directory, or find that somebody has it. Blocking, at most half a minute.

    Args:
        files: The file system.
        path: Of the lock file; its directory exists.
        owner: Unique to this opening.
        monotonic: A clock in seconds.
        pause: Waits for so many seconds.
        bus_id: Of a worker, which takes it only while it opens.

    Raises:
        VolumeBusy: Another live server holds it.
        VolumeError: The file can't be locked, read or written.
    """
    machine = files.machine_id()
    is_networked = files.is_networked(path.parent)
    lock = _lock(files, path)
    try:
        content = files.read(path)
        previous = parse_record(content)
        _wait_for_silence(files, path, lock, content, monotonic, pause)
        seen = previous is not None and previous.machine == machine and not previous.is_unseen
        record = Record(
            owner=owner,
            pid=os.getpid(),
            host=socket.gethostname()[:100],
            machine=machine,
            is_unseen=is_networked and not seen,
            bus_id=bus_id,
            others=(() if previous is None else (previous.owner, *previous.others))[:REMEMBERED],
        )
        beats = is_networked or not lock.is_enforced
        is_first = not content
        hold = Hold(
            files,
            path,
            lock,
            record,
            beats=beats,
            is_first=is_first,
            monotonic=monotonic,
            previous=record.others,
        )
        if not lock.is_enforced:
            pause(CLAIM_SECONDS)
            found = parse_record(files.read(path))
            if found is None or found.owner != owner:
                raise _busy(path, found)
    except OSError as error:
        lock.release()
        raise VolumeError(f"can't hold {path}: {error.strerror or error}") from error
    except BaseException:
        lock.release()
        raise
    return hold


def claim_for_reading(
    files: FileSystem,
    path: Path,
    *,
    monotonic: Callable[[], float],
    pause: Callable[[float], None],
) -> HeldLock | None:
    """Keep servers out of a directory without changing it; None if none was ever here.

    Raises:
        VolumeBusy: A live server holds it.
        VolumeError: The file can't be locked or read.
    """
    if not path_exists(files, path):
        return None
    lock = _lock(files, path, shared=True)
    try:
        _wait_for_silence(files, path, lock, files.read(path), monotonic, pause)
    except BaseException:
        lock.release()
        raise
    return lock


def _lock(files: FileSystem, path: Path, *, shared: bool = False) -> HeldLock:
    try:
        return files.lock(path, shared=shared)
    except LockHeld as held:
        raise _busy(path, parse_record(held.args[0])) from None
    except OSError as error:
        raise VolumeError(f"can't lock {path}: {error.strerror or error}") from error


def _wait_for_silence(
    files: FileSystem,
    path: Path,
    lock: HeldLock,
    content: bytes,
    monotonic: Callable[[], float],
    pause: Callable[[float], None],
) -> None:
    """Return when the last holder is dead: at once if the lock that we have says so."""
    previous = parse_record(content)
    if not content or (previous is not None and previous.has_stopped):
        return
    is_ours = previous is not None and previous.machine == files.machine_id()
    if lock.is_enforced and (is_ours or not files.is_networked(path.parent)):
        return
    log.info(
        "waiting whether the last holder of the data directory still lives",
        extra={"holder": who(previous), "seconds": SILENT_SECONDS},
    )
    until = monotonic() + SILENT_SECONDS
    while monotonic() < until:
        pause(0.5)
        now = files.read(path)  # opened anew: only then do other machines' writes show
        found = parse_record(now)
        if found is not None and found.has_stopped:
            return
        if now != content:  # it beats, or is being written
            raise _busy(path, found or previous)


def parse_record(content: bytes) -> Record | None:
    """Read a lock file's text; None if it is damaged, or being written."""
    try:
        fields = json.loads(content)
        return Record(
            owner=str(fields["owner"]),
            pid=int(fields["pid"]),
            host=str(fields["host"]),
            machine=str(fields["machine"]),
            beat=int(fields["beat"]),
            is_unseen=bool(fields["is_unseen"]),
            has_stopped=bool(fields["has_stopped"]),
            bus_id=str(fields.get("bus_id", "")),
            others=tuple(str(owner) for owner in fields.get("others", ())),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def who(record: Record | None) -> str:
    """Name a holder, for messages."""
    if record is None or record.has_stopped:
        return "another process"
    return f"process {record.pid} on {record.host}"


def _busy(path: Path, record: Record | None) -> VolumeBusy:
    kind = "a server of its own"
    if record is not None and record.bus_id:
        kind = "a worker that is opening it"
    return VolumeBusy(
        f"{path.parent.parent} is held by {kind}, {who(record)}; "
        "stop that server or use another directory"
    )

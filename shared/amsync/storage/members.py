"""The workers that hold one volume together, each by a file of its own.

Not here: which shards they own (leases), and what they do with the volume. `.amsync/lock` is
taken by a worker only while it opens; what lasts is its member file, locked and beating like the
lock file of a server of its own (`hold`). It names the bus that the worker works with, so that
workers of two clusters find each other.

    <root>/.amsync/members/<owner>        locked by the worker; who it is, and its beat
    <root>/.amsync/members/<owner>.end    where it beats: empty until another writes that it is dead

Invariants: a member file is made, and removed, only by who holds `.amsync/lock`, so an opener
knows all members; where only beats can tell, a worker is dead when its `.end` says so, which it
reads after a beat that came late and before it acknowledges anything.
"""

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from amsync.errors import VolumeBusy, VolumeError
from amsync.storage.durable import DurableFiles
from amsync.storage.files import FileSystem, HeldLock, LockHeld, list_names, storage_errors
from amsync.storage.hold import SILENT_SECONDS, Hold, Record, claim, parse_record, who

FOLDER = "members"
SENTENCE = ".end"

OPENING_SECONDS = 30.0
"""How long a worker waits for others that are opening the volume, one after the other."""

UNSEEN_SECONDS = 60.0
"""Where only beats can tell: no sign for so long, names that show late included, is death."""

_TRIES = 20

log = logging.getLogger("amsync.storage")


@dataclass(frozen=True, slots=True)
class Shared:
    """How a worker of a cluster holds a volume.

    Attributes:
        bus_id: Which bus it works with: the cluster epoch kept there; not empty.
        rescan_seconds: After a take-over, when an old owner can't append any more: the TTL of a
            lease and a margin. Where names show late it is a minute more.
    """

    bus_id: str
    rescan_seconds: float = 10.0


class Member(Hold):
    """The volume as held by one worker of several. Made by `Members.join`."""

    text_matters = True

    def __init__(
        self,
        files: FileSystem,
        path: Path,
        lock: HeldLock,
        record: Record,
        *,
        beats: bool,
        monotonic: Callable[[], float],
    ) -> None:
        super().__init__(
            files, path, lock, record, beats=beats, is_first=False, monotonic=monotonic
        )

    def set_bus_id(self, bus_id: str) -> None:
        """Say that the bus is another one now: it was emptied, and the cluster is the same.

        Raises:
            StorageError: It could not be said; call again.
        """
        with self._lock, storage_errors("write", self._path):
            self._record = replace(self._record, bus_id=bus_id)
            self._write(self._beat + 1)

    def _look_and_beat(self) -> None:
        # The beat first: who calls us dead after it has seen it, and what we acknowledged.
        if self.beats:
            with storage_errors("write", self._path):
                self._write(self._beat + 1)
            self._look()

    def _look(self) -> None:
        if self._lost is None:
            with storage_errors("read", self._path):
                try:
                    is_over = bool(self._files.read(_sentence(self._path)))
                except FileNotFoundError:
                    is_over = True
            if is_over:
                self._lost = (
                    f"{self._path.parent.parent.parent} is worked on without this worker, which "
                    "was stopped or cut off from the volume for too long"
                )
                log.critical("data directory lost", extra={"error": self._lost})
        self.check_known()


class State(Enum):
    """What a look at a member file tells."""

    LIVES = auto()
    DEAD = auto()
    UNKNOWN = auto()
    """Only whether it beats can tell."""


@dataclass(frozen=True, slots=True)
class Other:
    """A member that was found: its owner, what is known of it, and the text of its file."""

    owner: str
    state: State
    content: bytes

    @property
    def record(self) -> Record | None:
        """What its file says, if that can be read."""
        return parse_record(self.content)


class Members:
    """The members of one volume. Thread-safe."""

    def __init__(
        self,
        files: FileSystem,
        control: Path,
        *,
        monotonic: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self._files, self._control, self._folder = files, control, control / FOLDER
        self._monotonic, self._pause = monotonic, pause
        self._is_networked = files.is_networked(control)
        self._lock = threading.Lock()
        self._watched: dict[str, tuple[bytes | None, float]] = {}

    def claim_to_open(self, owner: str, shared: Shared) -> Hold:
        """Take the volume for the time of opening, as soon as other workers have opened it.

        Raises:
            VolumeBusy: A server of its own holds it.
            VolumeError: The lock file can't be locked, read or written.
        """
        path = self._control / "lock"
        until = self._monotonic() + OPENING_SECONDS
        while True:
            try:
                return claim(
                    self._files,
                    path,
                    owner,
                    monotonic=self._monotonic,
                    pause=self._pause,
                    bus_id=shared.bus_id,
                )
            except VolumeBusy:
                with storage_errors("read", path):
                    holder = parse_record(self._files.read(path))
                may_end = holder is None or holder.has_stopped or bool(holder.bus_id)
                if not may_end or self._monotonic() >= until:
                    raise
            self._pause(0.2)

    def refuse_any(self, previous: Sequence[str], beat: Callable[[], None]) -> None:
        """Make sure that no worker holds the volume, for somebody who wants it alone.

        Args:
            previous: Who held the lock file last; their own files may not be listed yet.
            beat: Called every now and then.

        Raises:
            VolumeBusy
        """
        others = self._others(previous)
        self._refuse(other for other in others if other.state is State.LIVES)
        unknown = [other for other in others if other.state is State.UNKNOWN]
        self._watch(unknown, None, beat)

    def remove_dead(self) -> None:
        """Remove what dead members have left; only for who holds `.amsync/lock` alone."""
        for other in self._others(()):
            if other.state is State.UNKNOWN:
                self._pronounce_dead(other.owner)
            self._remove([other.owner])

    def join(
        self, durable: DurableFiles, hold: Hold, owner: str, shared: Shared
    ) -> tuple[Member, bool]:
        """Become a member; only while the volume is held to open it.

        Returns:
            The membership, and whether no other member may live.

        Raises:
            VolumeBusy: Workers of another cluster hold the volume.
            VolumeError: The member file can't be made.
            StorageError
        """

        def beat() -> None:
            if hold.beats:
                hold.beat()

        others = self._others(hold.previous)
        dead = {other.owner for other in others if other.state is State.DEAD}
        strange = [
            other
            for other in others
            if other.state is not State.DEAD
            and (other.record is None or other.record.bus_id != shared.bus_id)
        ]
        dead |= self._watch(strange, shared.bus_id, beat)
        self._remove(dead)
        living = sorted(other.owner for other in others if other.owner not in dead)
        return self._make(durable, owner, shared, living), not living

    def is_dead(self, owner: str) -> bool:
        """Tell whether an opening of the volume is over: nobody will append to its WAL.

        False where it can't be told yet; asked again later it can.
        """
        other = self._look_at(owner)
        if other is not None and other.state is not State.UNKNOWN:
            return other.state is State.DEAD
        if other is None and not self._is_networked:
            return True
        now, content = self._monotonic(), None if other is None else other.content
        with self._lock:
            known = self._watched.get(owner)
            if known is None or known[0] != content:
                self._watched[owner] = (content, now)
                return False
        if now - known[1] < UNSEEN_SECONDS:
            return False
        if other is not None:
            self._pronounce_dead(owner)
            return False  # what it wrote before it can have read that is looked at after that
        return True

    def _others(self, previous: Sequence[str]) -> list[Other]:
        with storage_errors("list", self._folder):
            names = {entry.name for entry in list_names(self._files, self._folder)}
        owners = {name.removesuffix(SENTENCE) for name in names}
        found: dict[str, Other] = {}
        # The last to open may not be listed yet, nor those it knew of.
        waiting = [*sorted(owners), *previous]
        while waiting:
            owner = waiting.pop()
            if owner in found:
                continue
            other = self._look_at(owner)
            if other is None:
                if owner in owners:
                    found[owner] = Other(owner, State.DEAD, b"")
                continue
            found[owner] = other
            if other.record is not None and other.state is not State.DEAD:
                waiting += other.record.others
        return [found[owner] for owner in sorted(found)]

    def _look_at(self, owner: str) -> Other | None:
        """What is known of a member; None if it has no file."""
        path = self._folder / owner
        with storage_errors("look at", path):
            try:
                try:
                    lock = self._files.lock(path, shared=True)
                except LockHeld:
                    return Other(owner, State.LIVES, self._files.read(path))
                is_enforced = lock.is_enforced
                lock.release()
                content = self._files.read(path)
            except FileNotFoundError:
                return None
            try:
                is_over = bool(self._files.read(_sentence(path)))
            except FileNotFoundError:
                is_over = False
        record = parse_record(content)
        is_ours = record is not None and record.machine == self._files.machine_id()
        is_proved = is_enforced and (is_ours or not self._is_networked)
        if is_over or is_proved or (record is not None and record.has_stopped):
            return Other(owner, State.DEAD, content)
        return Other(owner, State.UNKNOWN, content)

    def _watch(
        self, others: Iterable[Other], bus_id: str | None, beat: Callable[[], None]
    ) -> set[str]:
        """Watch members for a while; return those that are dead.

        Args:
            others: Members of which it isn't known, or that work with another bus.
            bus_id: Of a member that may live; None: no member may.
            beat: See `refuse_any`.

        Raises:
            VolumeBusy: One that may not live does.
        """
        first = {other.owner: other for other in others}
        last = dict(first)
        dead: set[str] = set()
        until = self._monotonic() + SILENT_SECONDS
        while last and self._monotonic() < until:
            self._pause(0.5)
            beat()
            for owner in list(last):
                other = self._look_at(owner)
                if other is None or other.state is State.DEAD:
                    dead.add(owner)
                elif bus_id is None and other.content != first[owner].content:
                    self._refuse([other])
                elif other.record is None or other.record.bus_id != bus_id:
                    last[owner] = other
                    continue
                del last[owner]
        self._refuse(
            other
            for owner, other in last.items()
            if other.state is State.LIVES or other.content != first[owner].content
        )
        if bus_id is not None:
            for owner in last:
                self._pronounce_dead(owner)
        return dead | last.keys()

    def _refuse(self, others: Iterable[Other]) -> None:
        found = list(others)
        if found:
            names = ", ".join(who(other.record) for other in found[:5])
            buses = {other.record.bus_id for other in found if other.record is not None}
            raise VolumeBusy(
                f"{self._control.parent} is held by workers of a cluster ({names}; bus "
                f"{', '.join(sorted(buses)) or 'unknown'}); stop them or use another directory"
            )

    def _make(
        self, durable: DurableFiles, owner: str, shared: Shared, others: Collection[str]
    ) -> Member:
        durable.ensure_directory(self._folder)
        path = self._folder / owner
        try:
            if self._is_networked:
                self._files.create(_sentence(path)).close()
            lock = self._lock_new(path)
            try:
                beats = self._is_networked or not lock.is_enforced
                if beats and not self._is_networked:
                    self._files.create(_sentence(path)).close()
                record = Record(
                    owner=owner,
                    pid=os.getpid(),
                    host=socket.gethostname()[:100],
                    machine=self._files.machine_id(),
                    bus_id=shared.bus_id,
                    others=tuple(others),
                )
                return Member(
                    self._files, path, lock, record, beats=beats, monotonic=self._monotonic
                )
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise VolumeError(f"can't hold {path}: {error.strerror or error}") from error

    def _lock_new(self, path: Path) -> HeldLock:
        # Between its making and its locking, somebody may be looking whether it is locked.
        for _ in range(_TRIES):
            try:
                return self._files.lock(path)
            except LockHeld:
                self._pause(0.1)
        raise VolumeError(f"can't lock {path}: another process has it locked")

    def _pronounce_dead(self, owner: str) -> None:
        path = _sentence(self._folder / owner)
        log.warning("worker is dead by its silence", extra={"holder": owner})
        with storage_errors("write", path), contextlib.suppress(LockHeld, FileNotFoundError):
            self._files.stat(path)
            lock = self._files.lock(path)
            try:
                lock.write(b"dead by its silence\n")
            finally:
                lock.release()

    def _remove(self, owners: Iterable[str]) -> None:
        for owner in owners:
            path = self._folder / owner
            for each in (path, _sentence(path)):
                with contextlib.suppress(OSError):
                    self._files.unlink(each)


def _sentence(path: Path) -> Path:
    return path.with_name(path.name + SENTENCE)

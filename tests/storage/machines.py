"""Servers on several machines that mount one volume, with a clock moved by hand."""

from amsync.storage import Store, open_store
from support.fakecodec import FakeCodec
from support.memfs import MemoryFileSystem

from .conftest import ROOT


class Machines:
    """One disk, seen by machines called by names.

    Attributes:
        disk: Network file system with names that show up late elsewhere.
        waited: Seconds that openings of stores have waited.
    """

    def __init__(self, *, locks: str = "own") -> None:
        self.disk = MemoryFileSystem()
        self.disk.put(ROOT.parent / "other", b"")
        self.disk.is_network = True
        self.disk.locks = locks
        self.waited = 0.0
        self.alive: dict[str, Store] = {}

    def open(self, name: str, **options: object) -> Store:
        """Start a server; those that live go on beating while it waits."""
        store = open_store(
            ROOT,
            codec=FakeCodec(),
            files=self.disk.machine(name),
            threaded=False,
            monotonic=lambda: self.disk.now,
            pause=self._pause,
            **options,  # type: ignore[arg-type]
        )
        self.alive[name] = store
        return store

    def _pause(self, seconds: float) -> None:
        self.waited += seconds
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass; whoever lives beats."""
        self.disk.now += seconds
        for store in self.alive.values():
            assert store.volume.hold is not None
            store.volume.hold.beat()

    def stop(self, name: str) -> Store:
        """SIGSTOP: it does nothing any more, and holds what it holds."""
        return self.alive.pop(name)

    def kill(self, name: str) -> Store:
        """kill -9; the kernel gives its locks back."""
        store = self.stop(name)
        self.disk.kill(name)
        return store

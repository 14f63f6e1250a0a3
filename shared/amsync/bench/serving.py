"""Servers as programs: started with a directory of their own, watched, ended.

Every server tells in lines of its output where it listens; that is all they have in common.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from amsync.bench import install
from amsync.bench.errors import BenchError
from amsync.bench.install import Say
from amsync.bench.processes import ProcessTree
from amsync.version import __version__

START_SECONDS = 60.0
STOP_SECONDS = 60.0
_URL = re.compile(r"\bws://\S+?:\d+")

NAMES = ("amsync", "automerge-repo", "samod", "amsync-cluster")
"""Servers that we can start."""

COMPARED = NAMES[:3]
"""Those that are one process each."""


class Server(Protocol):
    """A running server; a context manager that ends it if it was started here."""

    name: str
    version: str
    scale: int
    """How many gateways or workers share the load, whichever are more; 1 for one process."""
    can_restart: bool
    """Whether it can be ended and started, and its files be thrown away."""

    @property
    def urls(self) -> Sequence[str]:
        """Where it takes clients."""

    @property
    def processes(self) -> ProcessTree | None:
        """What to measure; None if that is not known."""

    @property
    def directory(self) -> Path | None:
        """Where its documents are, if that is known."""

    def restart(self, *, keep: bool) -> float:
        """End it and start it again, with or without its documents; returns seconds to listen."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None: ...


class StartedServer:
    """A program that we start on a temporary directory."""

    can_restart = True

    def __init__(
        self,
        name: str,
        version: str,
        command: Sequence[str],
        *,
        url_count: int = 1,
        scale: int = 1,
        query: str = "",
    ) -> None:
        """Nothing runs before the context is entered.

        Args:
            command: What starts it; the data directory is appended.
            url_count: So many places to connect to are waited for.
            scale: See `Server`.
            query: Of the URL that clients come to.
        """
        self.name = name
        self.version = version
        self.urls: list[str] = []
        self._url_count = url_count
        self._query = query
        self.scale = scale
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def processes(self) -> ProcessTree | None:
        """Its own and those that it has started."""
        assert self._process is not None, "it is not running"
        return ProcessTree(self._process.pid)

    @property
    def directory(self) -> Path | None:
        """Where its documents are."""
        return self._data

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="amsync-bench-"))
        self._data = self._folder / "data"
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            self._end(signal.SIGKILL)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self, *, keep: bool) -> float:
        """End it and start it again, with or without its documents; returns seconds to listen."""
        self._end(signal.SIGTERM if keep else signal.SIGKILL)
        if not keep:
            shutil.rmtree(self._data, ignore_errors=True)
        return self._start()

    def _start(self) -> float:
        self._data.mkdir(exist_ok=True)
        self.urls = []
        log = self._folder / "log"
        began = time.monotonic()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("AMSYNC_")}
        environment["PYTHONUNBUFFERED"] = "1"
        environment["TMPDIR"] = str(self._folder)  # what it leaves when it is killed goes too
        try:
            with log.open("wb") as errors:
                self._process = subprocess.Popen(  # noqa: S603 - our own commands
                    [*self._command, str(self._data)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    # Ctrl-C is for us: we end it.
                    start_new_session=True,
                )
        except OSError as error:
            raise BenchError(f"can't start {self.name}: {error}") from error
        listening = threading.Event()
        reader = threading.Thread(
            target=self._read, args=(self._process, listening), name="server output", daemon=True
        )
        reader.start()
        while not listening.wait(0.002):
            if self._process.poll() is not None or time.monotonic() - began > START_SECONDS:
                self._end(signal.SIGKILL)
                said = log.read_text(errors="replace")[-2000:]
                raise BenchError(f"{self.name} does not say where it listens:\n{said}")
        return time.monotonic() - began

    def _read(self, process: subprocess.Popen[bytes], listening: threading.Event) -> None:
        """Take its output, so that it never waits for us, and find the URLs in it."""
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                found = _URL.search(line.decode(errors="replace"))
                if found and not listening.is_set():
                    self.urls.append(found[0] + self._query)
                    if len(self.urls) == self._url_count:
                        listening.set()

    def _end(self, number: int) -> None:
        process = self._process
        if process is None:
            return
        tree = ProcessTree(process.pid)
        if number == signal.SIGTERM:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        if process.poll() is None:
            tree.kill()
            process.wait()
        self._process = None


class RunningServer:
    """A server that somebody else has started."""

    can_restart = False
    scale = 1
    version = "unknown"
    directory = None

    def __init__(self, url: str, pid: int | None) -> None:
        self.name = url
        self.urls = (url,)
        self.processes = None if pid is None else ProcessTree(pid)

    def restart(self, *, keep: bool) -> float:  # noqa: ARG002 - of every server
        """Not possible."""
        raise BenchError(f"{self.name} was not started by this command, which can't restart it")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        pass


def cluster(gateways: int, workers: int) -> Server:
    """A cluster of ours on this machine, with a Redis of its own."""
    command = [sys.executable, "-m", "amsync", "cluster", "dev", "--port", "0"]
    command += ["--gateways", str(gateways), "--workers", str(workers), "--data-dir"]
    name = f"amsync-cluster-{gateways}x{workers}"
    scale = max(gateways, workers)
    return StartedServer(name, __version__, command, url_count=gateways, scale=scale)


def prepare(name: str, *, cache: Path, scratch: Path, modules: Path | None, say: Say) -> Server:
    """Make a server of one process ready to be started; installs and builds what it needs.

    Args:
        name: One of `COMPARED`.
        scratch: A folder that outlives the server.
        modules: Installed packages of automerge-repo to use instead of installing them.

    Raises:
        BenchError: It can't be had; says why.
    """
    if name == "amsync":
        command = [sys.executable, "-m", "amsync", "serve", "--port", "0", "--admin-port", "off"]
        return StartedServer(name, __version__, [*command, "--data-dir"])
    if name == "automerge-repo":
        if modules is None:
            folder = install.automerge_repo(cache, say)
        else:
            folder = install.automerge_repo_with(modules, scratch / "automerge-repo")
        version = install.version_of(folder, "@automerge/automerge-repo")
        return StartedServer(name, version, ["node", str(folder / "server.mjs")])
    assert name == "samod", name
    program = install.samod(cache, say)
    version = install.version_of(install.SOURCES / "samod", "samod")
    return StartedServer(name, version, [str(program)])

"""The server under test as a process: ours (`amsync serve`) or automerge-repo's own.

Both have the same face, so that every scenario can be run against the reference to check the
scenario itself: `pytest tests/interop --against=js`.
"""

import os
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from interop.driver import Driver
from interop.repos import Repo
from support.program import Program

_ADMIN_URL = re.compile(r"(http://127\.0\.0\.1:\d+)/metrics")
_URL = re.compile(r"\bwss?://127\.0\.0\.1:(\d+)")
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


HASTY = (str(Path(__file__).with_name("hasty.py")),)


@dataclass(frozen=True)
class ServerOptions:
    """What a scenario may ask for; None leaves the server's default."""

    auto_create_docs: bool = True
    announce: bool = False
    storage_id: str | None = None
    tls: tuple[Path, Path] | None = None
    prefix: tuple[str, ...] = ()
    hasty: bool = False


class Server(Protocol):
    """A server process on a fixed port and directory, started when made."""

    kind: str
    url: str
    data_dir: Path
    log: Path

    def running(self) -> bool: ...

    def stop(self) -> None:
        """End it as an operator does and wait."""

    def kill9(self) -> None:
        """End it as a power cut does and wait."""

    def start(self) -> None:
        """Start it again on the same port and directory."""

    def restart(self) -> None: ...


class AmsyncServer:
    """`python -m amsync serve` in a process of its own."""

    kind = "amsync"

    def __init__(self, data_dir: Path, log: Path, options: ServerOptions) -> None:
        self.data_dir = data_dir
        self.log = log
        self.url = self.admin_url = ""
        self._options = options
        self._port = 0
        self.start()

    def start(self) -> None:
        self.begin()
        self.wait_listening()

    def begin(self) -> None:
        """Start it and don't wait."""
        self._listening = threading.Event()
        with self.log.open("ab") as log:
            self._program = Program(
                [
                    *self._options.prefix,
                    sys.executable,
                    *(HASTY if self._options.hasty else ("-m", "amsync")),
                    "serve",
                    *self._arguments(),
                ],
                self._take_line,
                stderr=log,
                environment={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_listening(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._listening.wait(0.05):
            if not self.running() or time.monotonic() > deadline:
                self.kill9()
                raise RuntimeError(f"amsync serve printed no URL:\n{self.log.read_text()[-4000:]}")

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        return self._program.process.pid

    def is_listening(self) -> bool:
        """Whether the process that was started last has said where it listens."""
        return self._listening.is_set()

    def running(self) -> bool:
        return self._program.running()

    def stop(self) -> None:
        """End it with SIGTERM; it must say goodbye with status 0."""
        try:
            status = self._program.signal(signal.SIGTERM, _STOP_SECONDS)
        finally:
            self.kill9()
        assert status == 0, f"amsync serve ended with {status} after SIGTERM"

    def kill9(self) -> None:
        self._program.kill9()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _arguments(self) -> list[str]:
        options = self._options
        arguments = ["--port", str(self._port), "--admin-port", "0"]
        arguments += ["--data-dir", str(self.data_dir)]
        if not options.auto_create_docs:
            arguments += ["--no-auto-create-docs"]
        if options.announce:
            arguments += ["--share", "announce"]
        if options.storage_id is not None:
            arguments += ["--storage-id", options.storage_id]
        if options.tls is not None:
            cert, key = options.tls
            arguments += ["--tls-cert", str(cert), "--tls-key", str(key)]
        return arguments

    def _take_line(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(line)
        if not self._listening.is_set() and (url := _URL.search(line)):
            self.url, self._port = url[0], int(url[1])
            self._listening.set()
        if admin := _ADMIN_URL.search(line):
            self.admin_url = admin[1]


class ReferenceServer:
    """automerge-repo's own server in a Node process of its own, with NodeFS storage."""

    kind = "js"

    def __init__(self, data_dir: Path, log: Path, options: ServerOptions) -> None:
        self.data_dir = data_dir
        self.log = log
        self._options = options
        self._port = 0
        self.start()

    def start(self) -> None:
        self._driver = Driver(self.log)
        self._repo: Repo = self._driver.listen(
            port=self._port,
            storage=self.data_dir,
            announce=self._options.announce,
            gossip=True,
            tls=self._options.tls,
        )
        self.url = self._repo.url
        self._port = int(self.url.rpartition(":")[2])

    def running(self) -> bool:
        return self._driver.running()

    def stop(self) -> None:
        self._repo.close()
        self._driver.close()

    def kill9(self) -> None:
        self._driver.kill9()

    def restart(self) -> None:
        self.stop()
        self.start()

"""A program that holds many peers and is commanded by JSON lines, with a synchronous Python face.

`interop.driver` runs one with automerge-repo's peers, `interop.samod` one with samod's. Every call
ends: the program answers or refuses within `timeout`, and the process is given `_GRACE_SECONDS`
more before it is declared dead. Seconds here, milliseconds there; heads are lists of 64 hex
digits.
"""

import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from interop.repos import DEFAULT_SECONDS, Json, Repo
from support.closing import Closing
from support.program import Program

_GRACE_SECONDS = 15.0
_START_SECONDS = 60.0


class DriverError(Exception):
    """A command failed in the program; the text is its error, with the stack if it has one."""


class Commanded(Closing):
    """One process. Use it as a context manager, or `close()` it."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait until it listens.

        Args:
            log: File that takes its stderr; shown by the fixtures when a test fails.
            environment: Instead of ours.
        """
        self.log = log
        self._log_file = log.open("ab")
        self._ids = itertools.count()
        self._names = itertools.count()
        self._write_lock = threading.Lock()
        self._pending: dict[int, Future[Json]] = {}
        self._ready: queue.Queue[Json] = queue.Queue()
        self._repos: list[Repo] = []
        self._program = Program(
            command,
            self._take_line,
            stderr=self._log_file,
            environment=environment,
            has_input=True,
        )
        try:
            self._ready.get(timeout=_START_SECONDS)
        except queue.Empty:
            self.kill9()
            raise DriverError(f"no answer in {_START_SECONDS} s; see {log}") from None

    def submit(
        self, command: str, args: Json, peer: str | None = None, timeout: float = DEFAULT_SECONDS
    ) -> Future[Json]:
        """Send a command; its answer arrives in the future."""
        future: Future[Json] = Future()
        request_id = next(self._ids)
        self._pending[request_id] = future
        request = {
            "id": request_id,
            "peer": peer,
            "command": command,
            "args": {"timeoutMs": timeout * 1000, **args},
        }
        with self._write_lock:
            pipe = self._program.process.stdin
            assert pipe is not None
            pipe.write(json.dumps(request) + "\n")
            pipe.flush()
        return future

    def call(
        self, command: str, args: Json, peer: str | None = None, timeout: float = DEFAULT_SECONDS
    ) -> Json:
        """Send a command and wait for its answer.

        Raises:
            DriverError: The command failed, timed out in the program, or the program is gone.
        """
        return self.submit(command, args, peer, timeout).result(timeout + _GRACE_SECONDS)

    def running(self) -> bool:
        """Whether the process is alive."""
        return self._program.running()

    def close_repos(self) -> None:
        """Close what a test left open."""
        for repo in list(self._repos):
            repo.close()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        try:
            self._program.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._program.kill9()
        self._log_file.close()

    def kill9(self) -> None:
        """Kill the process at once, as a power cut would."""
        self._program.kill9()
        self._log_file.close()

    def keep(self, repo: Repo) -> None:
        """Put a repo on the list of `close_repos`."""
        self._repos.append(repo)

    def forget(self, repo: Repo) -> None:
        """Take a repo that is being closed off the list of `close_repos`."""
        self._repos = [other for other in self._repos if other is not repo]

    def _take_line(self, line: str) -> None:
        if not line:
            for future in list(self._pending.values()):
                future.set_exception(DriverError(f"the process ended; see {self.log}"))
            self._pending.clear()
            return
        message = json.loads(line)
        if "ready" in message:
            self._ready.put(message)
            return
        future = self._pending.pop(message["id"])
        if message["ok"]:
            future.set_result(message["result"])
        else:
            future.set_exception(DriverError(message["error"]))


def results(futures: list[Future[Json]], timeout: float = 60.0) -> list[Json]:
    """Collect the answers of `Commanded.submit`."""
    return [future.result(timeout) for future in futures]


def without_none(options: dict[str, Json]) -> dict[str, Json]:
    """Options as the programs take them: what is None is left out."""
    return {key: value for key, value in options.items() if value is not None}

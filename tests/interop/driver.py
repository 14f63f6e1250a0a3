"""Commands tests/js/driver.mjs: real automerge-repo peers with a synchronous Python face.

One `Driver` is one Node process; the peers in it are `Repo`s and their documents `Doc`s. Every
call ends: Node answers or refuses within `timeout`, and the process is
given `_GRACE_SECONDS` more before the driver is declared dead. Seconds here, milliseconds there;
heads are lists of 64 hex digits.
"""

import itertools
import json
import os
import queue
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path

from interop.repos import DEFAULT_SECONDS, Doc, Json, Repo
from support.closing import Closing
from support.program import Program

DRIVER = Path(__file__).parent.parent / "js" / "driver.mjs"
_GRACE_SECONDS = 15.0
_START_SECONDS = 60.0


class DriverError(Exception):
    """A command failed in Node; the text is its error with the stack."""


class Driver(Closing):
    """One Node process. Use it as a context manager, or `close()` it."""

    def __init__(self, log: Path, extra_ca: Path | None = None) -> None:
        """Start Node and wait until it listens.

        Args:
            log: File that takes Node's stderr; shown by the fixtures when a test fails.
            extra_ca: PEM file of an authority that Node trusts besides its own.
        """
        self.log = log
        self._log_file = log.open("ab")
        environment = dict(os.environ)
        if extra_ca is not None:
            environment["NODE_EXTRA_CA_CERTS"] = str(extra_ca)
        self._ids = itertools.count()
        self._names = itertools.count()
        self._write_lock = threading.Lock()
        self._pending: dict[int, Future[Json]] = {}
        self._ready: queue.Queue[Json] = queue.Queue()
        self._repos: list[Repo] = []
        self._program = Program(
            ["node", str(DRIVER)],
            self._take_line,
            stderr=self._log_file,
            environment=environment,
            has_input=True,
        )
        try:
            self._ready.get(timeout=_START_SECONDS)
        except queue.Empty:
            self.kill9()
            raise DriverError(f"Node gave no answer in {_START_SECONDS} s; see {log}") from None

    def connect(
        self,
        url: str,
        *,
        peer_id: str | None = None,
        storage: Path | None = None,
        announce: bool = True,
        gossip: bool = False,
        retry_seconds: float = 0.2,
        offline: bool = False,
        wait: bool = True,
    ) -> Repo:
        """Open a Repo with one WebSocket client.

        automerge-repo's find() gives up when the first welcome takes more than a second, as it
        may on a loaded machine; so this waits for the welcome.

        Args:
            url: Where the server listens.
            peer_id: Its peer id; None lets automerge-repo draw one.
            storage: Directory of the NodeFS adapter; None keeps nothing.
            announce: Whether documents are offered to, and asked from, the server unasked.
            gossip: Whether remote heads are exchanged (enableRemoteHeadsGossiping).
            retry_seconds: Pause before a reconnect.
            offline: Don't connect before `go_online`.
            wait: Return only when connected.
        """
        repo = Repo(self, f"repo-{next(self._names)}")
        options = {
            "peer": repo.name,
            "url": url,
            "peerId": peer_id,
            "storage": str(storage) if storage else None,
            "announce": announce,
            "gossip": gossip,
            "retryMs": retry_seconds * 1000,
            "offline": offline,
        }
        repo.peer_id = self.call("connect", _without_none(options))["peerId"]
        self._repos.append(repo)
        if wait and not offline:
            repo.wait_connected()
        return repo

    def listen(
        self,
        *,
        port: int = 0,
        storage: Path | None = None,
        announce: bool = False,
        gossip: bool = False,
        tls: tuple[Path, Path] | None = None,
        peer_id: str = "reference-server",
    ) -> Repo:
        """Run automerge-repo's own server; `Repo.url` says where."""
        repo = Repo(self, f"server-{next(self._names)}")
        options = {
            "peer": repo.name,
            "port": port,
            "peerId": peer_id,
            "storage": str(storage) if storage else None,
            "announce": announce,
            "gossip": gossip,
            "tlsCert": str(tls[0]) if tls else None,
            "tlsKey": str(tls[1]) if tls else None,
        }
        repo.peer_id = peer_id
        repo.url = self.call("listen", _without_none(options))["url"]
        self._repos.append(repo)
        return repo

    def converge(self, docs: list[Doc], timeout: float = DEFAULT_SECONDS) -> Json:
        """Wait until the handles of one document hold the same heads; return its value."""
        names = [doc.repo.name for doc in docs]
        args = {"peers": names, "documentId": docs[0].id}
        return self.call("converge", args, timeout=timeout)["value"]

    def new_document_id(self) -> str:
        """An id that no document has yet."""
        result: str = self.call("newDocumentId", {})
        return result

    def errors(self) -> list[str]:
        """Return and forget what was thrown in Node where nobody could catch it."""
        result: list[str] = self.call("errors", {})
        return result

    def wait_error(self, text: str, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait until an error that contains the text was thrown where nobody could catch it."""
        self.call("waitError", {"text": text}, timeout=timeout)

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
            DriverError: The command failed, timed out in Node, or Node is gone.
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
        """End Node; a second call does nothing."""
        try:
            self._program.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._program.kill9()
        self._log_file.close()

    def kill9(self) -> None:
        """Kill Node at once, as a power cut would."""
        self._program.kill9()
        self._log_file.close()

    def _forget(self, repo: Repo) -> None:
        self._repos = [other for other in self._repos if other is not repo]

    def _take_line(self, line: str) -> None:
        if not line:
            for future in list(self._pending.values()):
                future.set_exception(DriverError(f"Node ended; see {self.log}"))
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
    """Collect the answers of `Driver.submit`."""
    return [future.result(timeout) for future in futures]


def _without_none(options: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in options.items() if value is not None}

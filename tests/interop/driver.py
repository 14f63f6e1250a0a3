"""Commands tests/js/driver.mjs: real automerge-repo peers with a synchronous Python face.

One `Driver` is one Node process; the peers in it are `Repo`s and their documents `Doc`s.
"""

import os
from pathlib import Path

from interop.commanded import Commanded, results, without_none
from interop.repos import DEFAULT_SECONDS, Doc, Json, Repo

DRIVER = Path(__file__).parents[1] / "js" / "driver.mjs"
CLIENT = Path(__file__).parents[2] / "clients" / "js"


class Driver(Commanded):
    """One Node process. Use it as a context manager, or `close()` it."""

    def __init__(self, log: Path, extra_ca: Path | None = None) -> None:
        """Start Node and wait until it listens.

        Args:
            log: File that takes Node's stderr; shown by the fixtures when a test fails.
            extra_ca: PEM file of an authority that Node trusts besides its own.
        """
        environment = dict(os.environ)
        if extra_ca is not None:
            environment["NODE_EXTRA_CA_CERTS"] = str(extra_ca)
        super().__init__(["node", str(DRIVER)], log, environment)

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
        repo.peer_id = self.call("connect", without_none(options))["peerId"]
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
        repo.url = self.call("listen", without_none(options))["url"]
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


__all__ = ["CLIENT", "DRIVER", "Driver", "results"]

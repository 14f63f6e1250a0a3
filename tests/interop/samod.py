"""Commands tests/samod: real samod peers, with the Python face of automerge-repo's.

One `SamodDriver` is one process; the peers in it are `SamodRepo`s. What their `Doc`s can't do,
because samod can't (delete, remote heads) or no scenario needs it, the program refuses.
"""

from pathlib import Path

from interop.commanded import Commanded, without_none
from interop.repos import DEFAULT_SECONDS, Doc, Repo

PROGRAM = Path(__file__).parent.parent / "samod" / "target" / "debug" / "samod-driver"


class SamodRepo(Repo):
    """One samod Repo. Made by `SamodDriver.connect` and `SamodDriver.open`.

    `find` says unavailable at once while it is not connected. `close` returns when all that is to
    be stored has been stored.
    """

    def find_at_last(self, document_id: str, timeout: float = DEFAULT_SECONDS) -> Doc:
        """Ask for a document, and go on when nobody has it yet.

        Raises:
            FindTimeoutError: Nobody has had it in time.
        """
        result = self.call("find", timeout, documentId=document_id, patient=True)
        return self._found(document_id, result)


class SamodDriver(Commanded):
    """The process with the samod peers. Use it as a context manager, or `close()` it."""

    def __init__(self, log: Path) -> None:
        """Start it and wait until it listens.

        Args:
            log: File that takes what samod logs; shown by the fixtures when a test fails.
        """
        super().__init__([str(PROGRAM)], log)

    def connect(
        self,
        url: str,
        *,
        peer_id: str | None = None,
        storage: Path | None = None,
        retry_seconds: float = 0.2,
        offline: bool = False,
    ) -> SamodRepo:
        """Open a Repo with one WebSocket dialer; returns when it is connected, unless offline.

        Args:
            url: Where the server listens.
            peer_id: Its peer id; None lets samod draw one.
            storage: Directory of samod's file-system storage; None keeps nothing.
            retry_seconds: Longest pause before a reconnect.
            offline: Don't connect before `go_online`.
        """
        repo = self._start(url, peer_id, storage, retry_seconds, offline)
        if not offline:
            repo.wait_connected()
        return repo

    def open(self, storage: Path) -> SamodRepo:
        """Open a directory of samod's file-system storage, without any connection."""
        return self._start(None, None, storage, 0, True)

    def _start(
        self,
        url: str | None,
        peer_id: str | None,
        storage: Path | None,
        retry_seconds: float,
        offline: bool,
    ) -> SamodRepo:
        repo = SamodRepo(self, f"samod-{next(self._names)}")
        options = {
            "peer": repo.name,
            "url": url,
            "peerId": peer_id,
            "storage": str(storage) if storage else None,
            "retryMs": round(retry_seconds * 1000),
            "offline": offline,
        }
        repo.peer_id = self.call("connect", without_none(options))["peerId"]
        self._repos.append(repo)
        return repo

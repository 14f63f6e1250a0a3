"""Clients of one server, in the native generator; nothing else uses that.

Every wait has a limit, and ends in an error that names what is missing, so that a workload reads
as a list of steps.
"""

import contextlib
import os
import resource
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from amsync._automerge import LoadDocument, LoadFigures, LoadGenerator
from amsync.bench.errors import BenchError, NotDelivered, WrongDelivery
from amsync.ids import base58check_encode

__all__ = ["Document", "Load", "LoadFigures", "raise_file_limit"]

SETTLE_SECONDS = 60.0
"""The longest that anything may take; what any of the servers can do takes a tenth of it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document with all changes that its writer may make.

    Attributes:
        number: Of it in its generator.
        made: Itself; it may be given to another generator.
    """

    number: int
    made: LoadDocument


def raise_file_limit() -> None:
    """Each client is an open file; the usual soft limit of 1,024 is meant for `select`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Load:
    """Clients of one server; closing it closes their sockets."""

    def __init__(self, *urls: str) -> None:
        """Connect nothing yet.

        Args:
            urls: Where the server takes clients, one or more; they are spread evenly.

        Raises:
            BenchError: Not a URL of the kind ws://host:port/path, or an unknown host.
        """
        doors = [_parts(url) for url in urls]
        try:
            self._generator = LoadGenerator(doors, f"bench-{os.urandom(4).hex()}")
        except OSError as error:
            raise BenchError(f"{', '.join(urls)}: {error}") from error
        self._clients: list[int] = []
        self._thread_began = self._wall_began = 0.0
        self.begin()

    def document(self, history: int, further: int = 0) -> Document:
        """Make a document; the server gets to know it when a client that has it opens it."""
        document_id = base58check_encode(os.urandom(16))
        made = LoadDocument(document_id, history, further, os.urandom(16))
        return Document(self._generator.add(made), made)

    def adopt(self, document: Document) -> Document:
        """Make a document of another `Load` known, as it was before any change was written."""
        return Document(self._generator.add(document.made), document.made)

    def connect(self) -> int:
        """Connect one more client; it joins while something is waited for."""
        try:
            client = self._generator.connect()
        except ConnectionError as error:
            raise BenchError(f"the server takes no connection: {error}") from error
        self._clients.append(client)
        return client

    def writer(self, document: Document) -> int:
        """Connect a client that has the document, and wait until the server has it too."""
        client = self.connect()
        self._generator.open(client, document.number, has_it=True)
        self.settle("bringing the document into the server")
        return client

    def offer(self, client: int, document: Document) -> None:
        """Let a client upload a document that it has."""
        self._generator.open(client, document.number, has_it=True)

    def reader(self, document: Document, *, real: bool = False) -> int:
        """Connect a client that asks for the document; `real` is one with the crate's own sync."""
        client = self.connect()
        self.ask(client, document, real=real)
        return client

    def ask(self, client: int, document: Document, *, real: bool = False) -> None:
        """Let a client ask for one more document."""
        self._generator.open(client, document.number, real=real)

    def write(
        self,
        client: int,
        document: Document,
        count: int,
        interval_seconds: float,
        *,
        wait_seconds: float = 0.0,
        batch: int = 1,
    ) -> None:
        """Let a client make changes, from now on or later; `batch` of them in each message."""
        self._generator.write(
            client,
            document.number,
            count,
            interval_seconds,
            wait_seconds=wait_seconds,
            batch=batch,
        )

    def close(self, client: int) -> None:
        """Close a client's socket; it is looked at no more."""
        self._clients.remove(client)
        self._generator.close(client)

    def run(self, seconds: float) -> None:
        """Let time pass in which clients answer."""
        self._generator.run(seconds)
        self._raise_faults("idling")

    def settle(self, doing: str, seconds: float | None = None) -> None:
        """Wait until everything is sent, and every client and the server have all of it.

        Args:
            doing: For the error.
            seconds: The longest that it may take; None: `SETTLE_SECONDS`.

        Raises:
            NotDelivered: It took longer.
            WrongDelivery: A connection was lost, or bytes were wrong.
        """
        seconds = SETTLE_SECONDS if seconds is None else seconds
        if not self.settles(seconds):
            self._raise_faults(doing)
            raise NotDelivered(f"{doing} takes longer than {seconds:g} s", self.problems())
        self._raise_faults(doing)

    def settles(self, seconds: float) -> bool:
        """Wait like `settle`; False if it took longer. Look at `problems` in any case."""
        return self._generator.wait_settled(seconds)

    def verify(self, *documents: Document) -> None:
        """Check what every client has got, with one more real client for each document.

        Raises:
            WrongDelivery: Not all of it, or something else.
        """
        for document in documents:
            self.reader(document, real=True)
        self.settle("checking with a client that joins last")
        if wrong := self.problems():
            raise WrongDelivery("at the end", wrong)

    def has_lost_connections(self) -> bool:
        """Whether the server has closed any, as it may when it has too much to do."""
        return any("connection lost" in fault for fault in self._generator.faults())

    def problems(self) -> list[str]:
        """Everything that is wrong at this moment, missing changes included."""
        return self._generator.faults() + self._generator.check()

    def begin(self) -> None:
        """Begin to measure anew."""
        self._generator.begin()
        self._wall_began, self._thread_began = time.monotonic(), time.thread_time()

    def figures(self) -> LoadFigures:
        """What was measured since `begin`."""
        return self._generator.figures()

    @property
    def busy_share(self) -> float:
        """Part of the time since `begin` that the generator's thread has worked."""
        wall = time.monotonic() - self._wall_began
        return (time.thread_time() - self._thread_began) / wall if wall else 0.0

    def _raise_faults(self, doing: str) -> None:
        if faults := self._generator.faults():
            raise WrongDelivery(doing, faults)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for client in list(self._clients):
            self.close(client)


def _parts(url: str) -> tuple[str, int, str]:
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    if parts.scheme != "ws" or not parts.hostname or not port:
        raise BenchError(
            f"{url!r} is not a URL to measure; give ws://HOST:PORT (wss is not spoken)"
        )
    path = parts.path or "/"
    return parts.hostname, port, f"{path}?{parts.query}" if parts.query else path

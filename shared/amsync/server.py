"""`Server`: a sync server inside a Python program, with or without a loop of its own.

All work is done by `amsync.node.Node` on one event loop; here are the two ways to have one, in
a background thread (`start`, `close`, `with`) or in the caller's (`async with`, `serve`).
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from amsync.auth import AuthConfig
from amsync.errors import ServerClosed
from amsync.gateway.access import AccessConfig, ShareCallable
from amsync.gateway.limits import Limits
from amsync.ids import DocumentId, generate_document_id
from amsync.node import DocumentView, Node
from amsync.options import Ephemeral, NodeOptions
from amsync.protocol.access import Share
from amsync.tls import TLSConfig

T = TypeVar("T")


class Server:
    """An automerge-repo sync server.

    With a background thread of its own:

        with amsync.Server(data_dir="data") as server:
            print(server.url)
            document_id = server.create_document(data={"title": "Hello"})

    or in the running event loop:

        async with amsync.Server(data_dir="data") as server:
            await server.serve()

    Args:
        port: 0 takes a free one; `url` tells which.
        host: An address beyond loopback needs `auth` or `allow_anonymous`.
        data_dir: Made if missing. automerge-repo folders and `<id>.automerge` files in it are
            taken in. One server at a time.
        auto_create_docs: A request for an unknown document creates it.
        storage_id: None: made once and kept in the volume; a text: used and kept;
            `amsync.EPHEMERAL`: none is told to clients.
        tls: Certificate and key; the URL is then wss://.
        admin_port: Port for /healthz, /readyz and /metrics; 0 takes a free one, None has none.
        auth: Whose tokens let clients in (see `AuthConfig`); needs `tls` or `trusted_proxies`.
            None: no authentication.
        share: Share.ALLOW (or None), Share.ANNOUNCE (True), Share.DENY (False), or a callable
            (client_id, document_id) or (client_id, document_id, identity), plain or async, that
            returns one of them. `client_id` is what the client calls itself, no proof.
        allow_anonymous: Let everybody in who reaches `host`.
        limits: Bounds; the default is stricter beyond loopback, see `amsync serve --help`.
        admin_host: Where the admin port listens.
        drain_seconds: Over how long `close` spreads the closing of sockets.
        allowed_origins: Web pages that may connect, as "https://app.example.org"; None: on
            loopback without `auth` those of this machine, else all.
        trusted_proxies: Networks of the proxies that end TLS, as "10.0.0.0/8"; from them alone
            X-Forwarded-For and X-Forwarded-Proto are believed.
        max_document_bytes: A document that clients have made so large on disk is only read from
            then on; 0: no bound.
        max_document_changes: The same for one with so many changes.
        access: Who has a say on access beside `share`: claims of tokens, a callable, a webhook;
            the strictest wins.
        admin_token: 16 characters or more. With it the admin port has calls that withdraw access
            from live connections; without it there are none.

    Raises:
        ConfigError: An argument is not allowed.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        data_dir: str | os.PathLike[str] = ".automerge",
        auto_create_docs: bool = True,
        storage_id: str | Ephemeral | None = None,
        tls: TLSConfig | None = None,
        admin_port: int | None = None,
        auth: AuthConfig | None = None,
        share: Share | bool | ShareCallable | None = Share.ALLOW,
        *,
        allow_anonymous: bool = False,
        limits: Limits | None = None,
        admin_host: str = "127.0.0.1",
        drain_seconds: float = 0.0,
        allowed_origins: Sequence[str] | None = None,
        trusted_proxies: Sequence[str] = (),
        max_document_bytes: int = NodeOptions.max_document_bytes,
        max_document_changes: int = NodeOptions.max_document_changes,
        access: AccessConfig | None = None,
        admin_token: str | None = None,
    ) -> None:
        self._options = NodeOptions(
            port=port,
            host=host,
            data_dir=data_dir,
            auto_create_docs=auto_create_docs,
            storage_id=storage_id,
            tls=tls,
            admin_port=admin_port,
            admin_host=admin_host,
            share=share,
            allow_anonymous=allow_anonymous,
            limits=limits,
            drain_seconds=drain_seconds,
            auth=auth,
            allowed_origins=allowed_origins,
            trusted_proxies=trusted_proxies,
            max_document_bytes=max_document_bytes,
            max_document_changes=max_document_changes,
            access=access,
            admin_token=admin_token,
        )
        self._node = Node(self._options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        where = self._node.url if self._node.is_running else "not running"
        return f"<amsync.Server {where} data_dir={os.fspath(self._options.data_dir)!r}>"

    # -- life in a background thread

    def start(self) -> Self:
        """Start in a background thread; returns once the server listens.

        Raises:
            OSError: The address can't be listened on.
            VolumeError, ConfigError: The data directory can't be used.
            ServerClosed: It was closed; make a new one.
        """
        with self._lock:
            if self._closed:
                raise ServerClosed("this server was closed; make a new one")
            if self._loop is not None:
                return self
            started = threading.Event()
            failure: list[BaseException] = []
            self._thread = threading.Thread(
                target=self._thread_main, args=(started, failure), name="amsync", daemon=True
            )
            self._thread.start()
            started.wait()
            if failure:
                self._thread.join()
                self._closed = True
                raise failure[0]
        return self

    def _thread_main(self, started: threading.Event, failure: list[BaseException]) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                runner.run(self._start_here())
            except BaseException as error:
                failure.append(error)
                return
            finally:
                started.set()
            # A failure was logged where it happened; every call from now on says "not running".
            with contextlib.suppress(BaseExceptionGroup):
                runner.run(self._node.wait())

    async def _start_here(self) -> None:
        await self._node.start()
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Drain, make everything durable, and stop; may be called again.

        Raises:
            RuntimeError: Called in the server's own event loop; leave the `async with` instead.
        """
        with self._lock:
            if self._loop is not None and not self._node.is_closed:
                self._run(self._node.close())
            self._closed = True
            if self._thread is not None:
                self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- life in the caller's loop

    async def __aenter__(self) -> Self:
        if self._closed or self._loop is not None:
            raise ServerClosed("this server was started before; make a new one")
        await self._start_here()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed = True
        await self._node.close()

    async def serve(self) -> None:
        """Run until cancelled or closed; starts first if that has not happened.

        Raises:
            BaseExceptionGroup: A part of the server failed.
        """
        if self._thread is not None:
            raise RuntimeError("the server runs in a thread of its own; close() stops it")
        if self._loop is None:
            async with self:
                await self._node.wait()
        else:
            await self._node.wait()

    # -- what it is

    @property
    def url(self) -> str:
        """Where clients connect: ws:// or wss://."""
        return self._running().url

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._running().port

    @property
    def admin_url(self) -> str | None:
        """Base URL of the admin port, or None."""
        node = self._running()
        return None if self._options.admin_port is None else node.admin_url

    @property
    def storage_id(self) -> str | None:
        """The storage id that clients are told, or None."""
        node = self._running()
        return node.store.volume.storage_id if node.store is not None else None

    @property
    def aio(self) -> Node:
        """The same operations as coroutines, for code in the server's own event loop."""
        return self._node

    # -- documents

    def create_document(
        self, document_id: str | None = None, data: Mapping[str, object] | None = None
    ) -> DocumentId:
        """Create and save a document.

        Args:
            document_id: None makes a new id.
            data: Content with text keys: dict, list, str (as collaborative text), int, float,
                bool, None, bytes, datetime. None: empty.

        Returns:
            The document's id, as it follows `automerge:` in a URL.

        Raises:
            DocumentExists: There is one with this id.
            DocumentDeleted: There was; a deleted id is never created again.
            InvalidDocumentId, TypeError, ValueError: An argument is not what it should be.
        """
        return self._run(self._node.create_document(document_id, data))

    def list_documents(self) -> list[DocumentId]:
        """Return the ids of all stored documents, sorted."""
        return self._run(self._node.list_documents())

    def get_document(self, document_id: str) -> DocumentView | None:
        """Return value, saved bytes and heads of a document, or None if there is none."""
        return self._run(self._node.get_document(document_id))

    def apply_changes(self, document_id: str, changes: bytes) -> None:
        """Take changes, or a whole saved document, into a document.

        Returns after they are on disk; connected clients get them. Applying the same again is
        harmless.

        Raises:
            DocumentNotFound, DocumentDeleted: There is no such document.
            InvalidDocument: The bytes are broken, or depend on changes that are missing.
        """
        self._run(self._node.apply_changes(document_id, changes))

    def delete_document(self, document_id: str) -> None:
        """Delete a document for good; connected clients are told that it is unavailable.

        Raises:
            DocumentNotFound: There is no such document.
        """
        self._run(self._node.delete_document(document_id))

    @staticmethod
    def generate_document_id() -> DocumentId:
        """Make a new random document id."""
        return generate_document_id()

    def refresh_access(self) -> None:
        """Forget what the `share` callable answered, and ask again for open documents."""

        async def refresh() -> None:
            self._node.refresh_access()

        self._run(refresh())

    def _running(self) -> Node:
        if not self._node.is_running:
            raise ServerClosed("the server is not running; start() it first")
        return self._node

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the server's loop from any other thread."""
        try:
            if self._loop is None or self._loop.is_closed():
                raise ServerClosed("the server is not running; start() it first")
            if _running_loop() is self._loop:
                raise RuntimeError(
                    "this would block the server's own event loop: use the coroutines of"
                    " server.aio, as in `await server.aio.create_document()`"
                )
        except BaseException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def amsync_server(*args: Any, **kwargs: Any) -> Server:
    """Make a `Server`; the name of its counterpart in R."""
    return Server(*args, **kwargs)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop of uvloop where it exists, else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

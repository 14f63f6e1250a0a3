"""A gateway and a worker in one process and one event loop, over the memory bus.

What `Server` and `amsync serve` run. Everything here is async and belongs to the loop in which
`start` was awaited; nothing touches signals, root logging or the global metrics registry.
"""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import msgpack

from amsync.admin import AdminServer
from amsync.bus import MemoryBus, gateway_stream
from amsync.embeddedview import EmbeddedView
from amsync.errors import (
    DocumentDeleted,
    DocumentNotFound,
    InvalidDocument,
    NoOwner,
    ServerClosed,
)
from amsync.front import Front
from amsync.gateway.gateway import Gateway
from amsync.gauges import StoreGauges, refresh_streams
from amsync.ids import DocumentId, generate_document_id, parse_document_id
from amsync.metrics import Metrics
from amsync.options import NodeOptions
from amsync.process import Life, close_store, open_in_thread, store_arguments, url_of
from amsync.protocol.envelope import Reply
from amsync.storage import Store, open_store
from amsync.turns import Turns
from amsync.version import __version__
from amsync.worker.engine import AUTOMERGE_VERSION, build_document, value_of
from amsync.worker.worker import Worker

log = logging.getLogger("amsync")

PREFIX = "amsync"
SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class DocumentView:
    """A document as the application sees it.

    Attributes:
        document_id: Canonical id.
        value: dict, list, str, int, float, bool, None, bytes or datetime.
        saved: The whole document as automerge bytes.
        heads: 32 bytes each, sorted.
    """

    document_id: DocumentId
    value: object
    saved: bytes = field(repr=False)
    heads: tuple[bytes, ...]


class Node(Life):
    """See the module's text. `start` once."""

    def __init__(self, options: NodeOptions) -> None:
        super().__init__()
        options.check()
        self.options = options
        self.metrics = Metrics("embedded")
        self.metrics.build.info({"version": __version__, "automerge": AUTOMERGE_VERSION})
        self.incarnation = uuid.uuid4().hex
        self._view = EmbeddedView(self.metrics, self.incarnation)
        self.port = self.admin_port = 0
        self.store: Store | None = None
        self.limits = options.limits_in_force()
        self._worker: Worker | None = None
        self._gateway: Gateway | None = None
        self._admin: AdminServer | None = None
        self._bus: MemoryBus | None = None
        self._front: Front | None = None
        self._store_gauges: StoreGauges | None = None

    # -- life

    async def start(self) -> None:
        """Open the volume and listen.

        Raises:
            ConfigError, VolumeError, OSError: Nothing is left open.
        """
        self._front = Front(self.options, self.metrics)
        self.store = await self._open_store()
        self._store_gauges = StoreGauges(self.store, self.metrics)
        try:
            volume = self.store.volume
            self._bus = MemoryBus()
            turns = Turns()
            self._worker = Worker(
                self._bus,
                self.store,
                self.metrics,
                self.options.worker_options(),
                incarnation=self.incarnation,
                prefix=PREFIX,
                gateway_stream=partial(gateway_stream, PREFIX),
                turns=turns,
            )
            for shard, epoch in (await asyncio.to_thread(_claim_shards, self.store)).items():
                self._worker.open_shard(shard, epoch)
            self._gateway = await self._front.open(
                self._bus,
                server_peer_id=volume.peer_id,
                storage_id=volume.storage_id,
                shard_count=volume.shard_count,
                prefix=PREFIX,
                incarnation=self.incarnation,
                turns=turns,
            )
            self._begin("server", self._worker.run, self._gateway.run, self._front.run)
            await asyncio.sleep(0)
            self.port = await self._gateway.listen()
            if self.options.admin_port is not None:
                self._admin = AdminServer(
                    self.metrics,
                    self.reasons_not_ready,
                    self._refresh,
                    self._front.admin_routes(self._look),
                    self._front.admin_calls(self._look),
                )
                self.admin_port = await self._admin.start(
                    self.options.admin_host, self.options.admin_port
                )
        except BaseException:
            await self.close()
            raise

    async def _open_store(self) -> Store:
        arguments = store_arguments(self.options, self.metrics)
        store = await open_in_thread(partial(open_store, Path(self.options.data_dir), **arguments))
        if self._closing is not None:
            await asyncio.to_thread(store.close)
            raise ServerClosed("the server was closed while it was starting")
        return store

    def hurry(self) -> None:
        """Let a `close` that spreads the closing of sockets over time go on without pauses."""
        if self._gateway is not None:
            self._gateway.hurry()

    async def _close(self) -> None:
        if self._gateway is not None and self._worker is not None and self._is_alive:
            try:
                async with asyncio.timeout(self.options.drain_seconds + SETTLE_SECONDS):
                    positions = await self._gateway.drain(self.options.drain_seconds)
                    await self._worker.settle(positions)
            except TimeoutError:
                self.left_behind = True
                log.error("not everything could be committed before the end; closing all the same")
        if self._front is not None:
            await self._front.close()
        await self._end()
        if self._admin is not None:
            await self._admin.stop()
        if self._store_gauges is not None:
            self._store_gauges.close()
        if self._front is not None:
            await self._front.release()
        if self._bus is not None:
            await self._bus.close()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.keep_sidecars)
        if self.store is not None and not await close_store(self.store):
            self.left_behind = True

    # -- state

    @property
    def log_fields(self) -> Mapping[str, object]:
        """What names this process in each line of the log."""
        return {"role": "embedded"}

    @property
    def is_running(self) -> bool:
        """Started and not closed, nor failed."""
        return self._is_alive and self._closing is None

    @property
    def is_closed(self) -> bool:
        """`close` has come to its end."""
        return self._closing is not None and self._closing.done()

    @property
    def url(self) -> str:
        """Where clients connect."""
        scheme = "wss" if self.options.tls is not None else "ws"
        return url_of(scheme, self.options.host, self.port)

    @property
    def admin_url(self) -> str:
        """Where /healthz, /readyz and /metrics are."""
        return url_of("http", self.options.admin_host, self.admin_port)

    def reasons_not_ready(self) -> list[str]:
        """What speaks against sending clients here; empty if nothing."""
        reasons = []
        if not self.is_running:
            reasons.append("not running")
        if self._gateway is None or not self._gateway.is_accepting:
            reasons.append("not accepting connections")
        if self._worker is not None and self._worker.storage_trouble is not None:
            reasons.append(f"storage: {self._worker.storage_trouble}")
        return reasons

    async def _refresh(self) -> None:
        if self._bus is None or self._worker is None or self._gateway is None:
            return
        self._gateway.refresh_metrics()
        self._worker.refresh_metrics()
        streams = [*self._worker.streams, self._gateway.stream]
        await refresh_streams(self._bus, self.metrics, streams)
        if self._store_gauges is not None:
            await self._store_gauges.refresh()

    async def _look(self) -> Mapping[str, object]:
        if self._gateway is None or self._worker is None or self.store is None:
            raise NoOwner("the server has not started yet")
        found = self._view.look(self._gateway, self._worker, self.store.volume, self.url)
        return asdict(found)

    # -- documents

    async def create_document(
        self,
        document_id: str | None = None,
        data: Mapping[str, object] | None = None,
    ) -> DocumentId:
        """Create a document; see `Server.create_document`."""
        chosen = generate_document_id() if document_id is None else parse_document_id(document_id)
        saved = b"" if data is None else await asyncio.to_thread(build_document, dict(data))
        await self._call("create", chosen, saved)
        return chosen

    async def list_documents(self) -> list[DocumentId]:
        """Ids of all stored documents, sorted."""
        if self.store is None or not self.is_running:
            raise ServerClosed("the server is not running")
        return sorted(await asyncio.to_thread(self.store.list_ids))

    async def get_document(self, document_id: str) -> DocumentView | None:
        """Value, bytes and heads of a document, or None."""
        chosen = parse_document_id(document_id)
        reply = await self._call("get", chosen)
        if not reply.payload:
            return None
        heads, saved = msgpack.unpackb(reply.payload, max_bin_len=len(reply.payload))
        value = await asyncio.to_thread(value_of, saved)
        return DocumentView(chosen, value, saved, tuple(heads))

    async def apply_changes(self, document_id: str, changes: bytes) -> None:
        """Take changes into a document; see `Server.apply_changes`."""
        if not isinstance(changes, bytes | bytearray | memoryview):
            raise TypeError(f"changes must be bytes, not {type(changes).__name__}")
        if not changes:
            raise InvalidDocument("changes must not be empty")
        await self._call("apply", parse_document_id(document_id), bytes(changes))

    async def delete_document(self, document_id: str) -> None:
        """Delete a document for good; see `Server.delete_document`."""
        try:
            await self._call("delete", parse_document_id(document_id))
        except DocumentDeleted as error:  # to the application it is as absent as any other
            raise DocumentNotFound(str(error)) from None

    def refresh_access(self) -> None:
        """Forget what `share` answered; decisions on open documents are made again now."""
        if self._gateway is None or not self.is_running:
            raise ServerClosed("the server is not running")
        self._gateway.refresh_access()

    async def _call(self, operation: str, document_id: DocumentId, payload: bytes = b"") -> Reply:
        if self._gateway is None or self.store is None or not self.is_running:
            raise ServerClosed("the server is not running")
        assert self._main is not None
        # A large document may take its time, and the caller can give up by itself.
        asked = self._gateway.call(operation, document_id, payload, seconds=None)
        call = asyncio.ensure_future(asked)
        try:
            await asyncio.wait([call, self._main], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not call.done():
                call.cancel()
        if not call.done() or call.cancelled():
            raise ServerClosed("the server was closed before it answered")
        return call.result()


def _claim_shards(store: Store) -> dict[int, int]:
    return {shard: store.claim_shard(shard) for shard in range(store.volume.shard_count)}

"""The worker's shell: reads the streams of its shards, commits, publishes, loads, checkpoints.

In a cluster shards come and go (`tenure`). What is committed is then stamped with how far each
shard's stream has been dealt with, a stream is trimmed no further than that, and no step commits
or publishes anything for a shard whose lease is not known to be ours in that moment.

All protocol logic is in `shard` and below; this module only moves things between them, the bus
and the store. One step takes what is there, lets every shard deal with it, commits everything
with one fsync, publishes, and lets the streams be trimmed; meanwhile the next step's input
gathers in the bus. Nothing is published before the commit of its own step. Long because it is
the one place where loop, threads, bus and store meet, and their order is what makes G1 true.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from amsync.bus import Bus, Position, StreamEntry, shard_stream
from amsync.bus.port import START
from amsync.errors import (
    BusError,
    StorageBehind,
    StorageError,
    VolumeLost,
)
from amsync.ids import DocumentId, shard_of
from amsync.metrics import Metrics
from amsync.protocol.envelope import Reply, unpack_inbound
from amsync.storage import RESCAN_SECONDS, DocumentChunks, Snapshot, Store, WalBatch
from amsync.storage import Position as Durable
from amsync.turns import Routine, Turns, next_step, seconds_to_step
from amsync.worker.arrivals import Arrivals
from amsync.worker.engine import NativeFactory, give_memory_back
from amsync.worker.opening import Opened, Trouble, open_document
from amsync.worker.peers import NO_BOUNDS, DocumentBounds
from amsync.worker.ports import Effects, Tenure
from amsync.worker.publisher import Publisher
from amsync.worker.queries import Queries, refused
from amsync.worker.shard import Shard
from amsync.worker.upkeep import Upkeep

log = logging.getLogger("amsync.worker")

STEP_BYTES = 64 * 1024
"""Input of one step; small, so that a burst of one client leaves turns to the others."""

STEP_SECONDS = 0.02
TICK_SECONDS = 1.0
PROBE_SECONDS = (0.1, 5.0)
"""After a failed commit it is tried out whether writing works again: first after, at most every."""

PROBE_BYTES = (64 * 1024, 128 * 1024 * 1024)
"""As much is tried as the failed commit had, within these bounds."""

CALM_SECONDS = 60.0
"""A failure after so long a time of good commits is a new one."""

BEHIND_SECONDS = 0.1
CLOSED_DOCUMENTS = 500
"""After so many were closed there is memory to give back."""

GIVE_BACK_SECONDS = 30.0
"""What fewer have left is given back after so long."""

TRIM_BYTES = 256 * 1024
"""Input that is durable and still in its streams; what is below waits for TRIM_SECONDS."""

TRIM_SECONDS = 10.0
"""Each trim is a call to Redis for each shard; what is left makes a take-over no longer."""

MOST_QUERIES = 64
"""Of operators, that wait for the volume or for their turn."""

NOBODYS = DocumentId("")
"""In place of a document's id, of what is done for none."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker behaves.

    Documents are closed `idle_seconds` after nobody syncs them any more, or `sleep_seconds` after
    the last message of those who do. `document_bytes` bounds the estimated memory of open ones:
    above it they are closed sooner. `bounds`: how large one may become. `compaction_bytes` bounds
    what is read for compaction after one checkpoint; the rest waits for the next one.
    """

    auto_create: bool = True
    bounds: DocumentBounds = NO_BOUNDS
    document_bytes: int = 1024 * 1024 * 1024
    compaction_bytes: int = 256 * 1024 * 1024
    idle_seconds: float = 30.0
    sleep_seconds: float = 120.0
    checkpoint_seconds: float = 60.0
    threads: int = 4


class Worker:
    """Owns shards; see the module's text.

    Args:
        incarnation: Random, new for every start; stamps what is published.
        prefix: Of the stream names.
        gateway_stream: Turns a gateway's incarnation into the name of its stream.
        turns: Of the loop; those of a bus in the same process.
        tenure: Of a worker that has to share; None: every shard is ours for good.

    Attributes:
        storage_trouble: Why nothing can be saved; None if all is well.
        document_bytes: Memory of all open documents, as of the last tick.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        metrics: Metrics,
        options: WorkerOptions,
        *,
        incarnation: str,
        prefix: str,
        gateway_stream: Callable[[str], str],
        turns: Turns | None = None,
        tenure: Tenure | None = None,
    ) -> None:
        self._bus, self._store, self._metrics, self._options = bus, store, metrics, options
        self._tenure = tenure
        self._prefix = prefix
        self._factory = NativeFactory()
        self._shards: dict[str, Shard] = {}
        self._by_number: dict[int, Shard] = {}
        self._publisher = Publisher(
            bus,
            metrics,
            self._by_number,
            incarnation=incarnation,
            stream_of=gateway_stream,
            gives_up=tenure is not None,
        )
        self._queries = Queries(store, self._by_number, tenure)
        self._streams: dict[int, str] = {}
        self._wake = Routine(turns or Turns(), self._work)
        self._reader = bus.reader()
        self._reader.on_ready = self._wake.set
        self._inbox: deque[StreamEntry] = deque()
        self._results: deque[Callable[[dict[int, Effects], float], None]] = deque()
        self._stepped = asyncio.Event()
        self._threads = ThreadPoolExecutor(options.threads, thread_name_prefix="amsync-work")
        self._job_count = 0  # given to threads, and their results not taken
        self._maintenance = ThreadPoolExecutor(1, thread_name_prefix="amsync-maintenance")
        self._query_count = 0
        self._asked = ThreadPoolExecutor(1, thread_name_prefix="amsync-asked")
        self._upkeep = Upkeep(
            store,
            metrics,
            options.compaction_bytes,
            is_ours=self._is_ours,
            compacted=self._take_compacted,
        )
        self._settled: dict[int, Position] = {}
        self._durable: dict[int, Position] = {}
        self._untrimmed: dict[int, Position] = {}
        self._untrimmed_bytes = 0
        self._saves_positions = self._trims_all = False
        self._next_trim = 0.0
        self._saved: list[asyncio.Future[None]] = []
        self._listing = False
        self._list_again = False
        self._closed_count = 0
        self._gave_back_at = float("-inf")
        self._probe_at = self._probe_seconds = 0.0
        self._probe_bytes = 0
        self._resumed_at = float("-inf")
        self._committing_since: float | None = None
        self._suspended_at: float | None = None
        self.storage_trouble: StorageError | None = None
        self.document_bytes = 0

    @property
    def streams(self) -> list[str]:
        """Names of the streams of our shards."""
        return list(self._shards)

    def refresh_metrics(self) -> None:
        """Bring those gauges up to date that cost something to keep so."""
        metrics, lag = self._metrics, self._lag_seconds()
        metrics.shards.set(self._store.volume.shard_count)
        metrics.shards_owned.set(len(self._by_number))
        metrics.lag_entries.set(sum(shard.waiting_count for shard in self._by_number.values()))
        metrics.lag_seconds.set(lag)
        metrics.jobs_waiting.set(max(0, self._job_count - self._options.threads))
        since = [at for at in (self._committing_since, self._suspended_at) if at is not None]
        unsaved = time.monotonic() - min(since) if since else 0.0
        metrics.oldest_unsaved_change_seconds.set(max(lag, unsaved))

    def _lag_seconds(self) -> float:
        """How old the oldest entry is that was read from the bus and is not finished."""
        written = [
            at for shard in self._by_number.values() if (at := shard.oldest_written_at) is not None
        ]
        if (oldest := self._reader.oldest) is not None:
            with contextlib.suppress(BusError):  # it is reported when it is taken
                written.append(unpack_inbound(oldest.data).written_at)
        return max(0.0, time.time() - min(written)) if written else 0.0

    def open_shard(
        self, number: int, epoch: int, sequences: Mapping[str, int] | None = None
    ) -> None:
        """Take a shard and read its stream from the start.

        `sequences`: of each gateway, the entry up to which an earlier owner has dealt with
        everything; None where there is one owner for good.
        """
        shard = Shard(
            number,
            epoch,
            self._factory,
            shard_count=self._store.volume.shard_count,
            auto_create=self._options.auto_create,
            wall_ms=int((time.time() - time.monotonic()) * 1000),
            idle_seconds=self._options.idle_seconds,
            sleep_seconds=self._options.sleep_seconds,
            bounds=self._options.bounds,
            arrivals=None if sequences is None else Arrivals.after(sequences),
        )
        stream = shard_stream(self._prefix, number)
        self._shards[stream] = self._by_number[number] = shard
        self._streams[number] = stream
        if self.storage_trouble is not None:
            shard.suspend_writing(self.storage_trouble)
        self._reader.follow(stream, START)

    async def drop_shards(self, numbers: Collection[int]) -> None:
        """Let go of shards between two steps; unknown ones are ignored."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def drop(effects: dict[int, Effects], _now: float) -> None:
            for number in numbers:
                effects.pop(number, None)
                self._close_shard(number)
            if not done.done():
                done.set_result(None)

        self._results.appendleft(drop)
        self._wake.set()
        await done

    def _close_shard(self, number: int) -> None:
        shard = self._by_number.pop(number, None)
        if shard is None:
            return
        stream = self._streams.pop(number)
        del self._shards[stream]
        self._reader.unfollow(stream)
        self._inbox = deque(entry for entry in self._inbox if entry.stream != stream)
        for known in (self._settled, self._durable, self._untrimmed):
            known.pop(number, None)
        self._publisher.close_shard(number)

    @property
    def shards(self) -> Mapping[int, Shard]:
        """The shards that are open, by number."""
        return self._by_number

    def stop_reading(self, numbers: Collection[int]) -> None:
        """Take nothing more of these shards' streams; what was taken is dealt with."""
        for number in numbers:
            if number in self._streams:
                self._reader.unfollow(self._streams[number])

    def greet(self, gateways: Collection[str]) -> None:
        """Tell gateways with the next step which shards are ours."""
        self._publisher.greet(gateways)
        self._wake.set()

    def forget_gateways(self, gateways: Collection[str]) -> None:
        """These gateways are gone, with all their connections."""
        self._results.append(partial(self._forget, frozenset(gateways)))
        self._wake.set()

    def _forget(self, gateways: Collection[str], effects: dict[int, Effects], now: float) -> None:
        for gateway in gateways:
            self._publisher.forget(gateway)
            for shard in self._by_number.values():
                shard.forget_gateway(gateway, self._effects(effects, shard), now)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._wake.run())
                group.create_task(self._ticks())
                group.create_task(self._checkpoints())
                group.create_task(self._rescan())
        finally:
            # A job may run for long, and this loop may be somebody else's: leave it behind.
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._maintenance.shutdown(wait=False, cancel_futures=True)
            self._asked.shutdown(wait=False, cancel_futures=True)

    async def settle(self, positions: Mapping[int, Position]) -> None:
        """Wait until the streams of these shards are dealt with, up to these positions."""
        while any(self._settled.get(n, START) < p for n, p in positions.items()):
            self._stepped.clear()
            await self._stepped.wait()

    # -- steps

    async def save_positions(self) -> None:
        """Make durable how far each stream was dealt with, within the next step."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def save(effects: dict[int, Effects], _now: float) -> None:
            for shard in self._by_number.values():
                self._effects(effects, shard)
            self._saves_positions = self._trims_all = True
            self._saved.append(done)

        self._results.append(save)
        self._wake.set()
        await done

    async def _work(self) -> None:
        self._inbox.extend(self._reader.take(STEP_BYTES))
        await self._step(time.monotonic())
        self._stepped.set()
        if self._reader.has_entries:
            self._wake.set()  # behind a turn for the sockets

    async def _step(self, now: float) -> None:
        effects: dict[int, Effects] = {}
        touched: dict[Shard, None] = {}
        if self.storage_trouble is not None and now >= self._probe_at:
            await self._probe(effects, now)
        while self._inbox:
            entry = self._inbox.popleft()
            shard = self._shards.get(entry.stream)
            if shard is None:
                continue
            try:
                decoded = unpack_inbound(entry.data)
            except BusError as error:
                self._metrics.count("bad_entries", "inbound")
                log.error("an entry of the bus is skipped", extra={"error": str(error)})
                shard.skip(entry.position)
                touched[shard] = None
                self._effects(effects, shard)
                continue
            shard.take(entry.position, decoded, self._effects(effects, shard), now)
            touched[shard] = None
            self._publisher.owe(decoded.sender, shard.number, decoded.sequence, entry.size_bytes)
            self._untrimmed_bytes += entry.size_bytes
        if self._results:
            self._take_results(effects, now)
        for shard in touched:
            if self._by_number.get(shard.number) is shard:
                shard.run(effects[shard.number], now)
        await self._carry_out(effects)

    def _take_results(self, effects: dict[int, Effects], now: float) -> None:
        until = time.monotonic() + STEP_SECONDS
        while self._results and time.monotonic() < until:
            self._results.popleft()(effects, now)
        if self._results:
            self._wake.set()

    def _effects(self, effects: dict[int, Effects], shard: Shard) -> Effects:
        known = effects.get(shard.number)
        if known is None:
            known = effects[shard.number] = shard.effects()
        return known

    async def _carry_out(self, effects: dict[int, Effects]) -> None:
        for each in effects.values():
            for event, label in each.counts:
                self._metrics.count(event, label)
            for document_id, failure in each.failures:
                self._metrics.count("internal_errors", "document")
                log.error(
                    "a document failed unexpectedly; it is isolated",
                    extra={"document_id": document_id},
                    exc_info=failure,
                )
            for document_id in each.full:
                self._metrics.count("documents_full")
                log.warning(
                    "a document is as large as it may be; it is only read from now on",
                    extra={"document_id": document_id},
                )
            self._start_jobs(each)
            self._start_queries(each)
            self._upkeep.add_sidecars(each.sidecars)
        await self._keep_ours(effects)
        await self._make_durable(effects)
        await self._keep_ours(effects)
        for each in effects.values():  # after the commit: what they read must hold it
            for document_id in each.loads:
                self._in_thread(self._load, document_id)
        await self._publisher.publish(effects)
        for each in effects.values():
            for document_id in each.deletions:
                self._in_thread(self._delete, document_id)

    async def _keep_ours(self, effects: dict[int, Effects]) -> None:
        """Give up the shards that are somebody else's by now; waits while that is not known."""
        if self._tenure is None:
            return
        lost = self._tenure.lost(effects.keys())
        if lost is None:
            lost = await self._tenure.find_lost(tuple(effects))
        for number in lost:
            del effects[number]
            self._close_shard(number)

    async def _make_durable(self, effects: dict[int, Effects]) -> None:
        changes = tuple(
            DocumentChunks(each.shard, each.epoch, document_id, tuple(chunks))
            for each in effects.values()
            for document_id, chunks in each.chunks.items()
        )
        settled = {number: self._by_number[number].settled() for number in effects}
        positions: dict[int, Durable] = {}
        if self._tenure is not None and (changes or self._saves_positions):
            epoch = self._tenure.cluster_epoch
            for number, position in settled.items():
                if position > self._durable.get(number, START):
                    shard = self._by_number[number]
                    positions[number] = Durable(
                        epoch,
                        "{}-{}".format(*position),
                        dict(shard.settled_sequences),
                        shard.epoch,
                    )
        self._saves_positions = False
        saved, self._saved = self._saved, []
        if changes or positions:
            error = await self._commit(WalBatch(changes=changes, positions=positions))
            if error is None:
                self._note_saved(effects)
                self._upkeep.touched.update(change.document_id for change in changes)
                for number in positions:
                    self._durable[number] = self._untrimmed[number] = settled[number]
            else:
                for each in effects.values():
                    self._by_number[each.shard].rewind(each, error)
        for future in saved:
            if not future.done():
                future.set_result(None)
        await self._trim(settled)

    def _note_saved(self, effects: Mapping[int, Effects]) -> None:
        now = time.time()
        for each in effects.values():
            if each.edited_at:
                self._metrics.edit_to_disk_seconds.observe(max(0.0, now - each.edited_at))

    async def _trim(self, settled: Mapping[int, Position]) -> None:
        """Let streams forget what is dealt with: in a cluster, what is durable as such."""
        if self._tenure is None:
            for number, position in settled.items():
                if position != self._settled.get(number):
                    await self._bus.trim(self._streams[number], position)
        elif self._trims_all or self._untrimmed_bytes >= TRIM_BYTES:
            self._trims_all, self._untrimmed_bytes = False, 0
            untrimmed, self._untrimmed = self._untrimmed, {}
            await self._tenure.trim(untrimmed)
        self._settled.update(settled)

    async def _commit(self, batch: WalBatch) -> StorageError | None:
        """Commit; a batch that could not be made durable must be forgotten by all who know it.

        Raises:
            VolumeLost: This process must end.
        """
        started = self._committing_since = time.monotonic()
        try:
            return await self._commit_until(batch, started)
        finally:
            self._committing_since = None

    async def _commit_until(self, batch: WalBatch, started: float) -> StorageError | None:
        while True:
            try:
                await self._store.commit(batch)
            except VolumeLost:
                raise
            except StorageBehind as error:
                if self._upkeep.has_failed:
                    self._suspend(error, batch.size_bytes)
                    return error
                # It will soon be done; meanwhile the senders feel it.
                self._metrics.count("commits_wait_for_checkpoint")
                await asyncio.sleep(BEHIND_SECONDS)
            except StorageError as error:
                self._suspend(error, batch.size_bytes)
                return error
            else:
                break
        self._metrics.commit_seconds.observe(time.monotonic() - started)
        self._metrics.committed_bytes.inc(by=batch.size_bytes)
        return None

    def _suspend(self, error: StorageError, size_bytes: int) -> None:
        """Nothing can be saved: take no changes until trying it out has worked."""
        now = time.monotonic()
        first, longest = PROBE_SECONDS
        if self.storage_trouble is None:
            self._suspended_at = now
            log.error(
                "a commit failed; what it had is forgotten, clients keep it and are asked again",
                extra={"error": str(error)},
            )
            if now - self._resumed_at > CALM_SECONDS:
                self._probe_seconds = first / 2
            self._probe_bytes = size_bytes
        self._probe_seconds = min(2 * self._probe_seconds, longest)
        self._probe_at = now + self._probe_seconds
        self.storage_trouble = error
        self._metrics.storage_errors.inc("commit")
        self._metrics.volume_writable.set(0)
        for shard in self._by_number.values():
            shard.suspend_writing(error)

    async def _probe(self, effects: dict[int, Effects], now: float) -> None:
        """Try out whether as much can be written as failed before; then go on."""
        least, most = PROBE_BYTES
        size = min(max(self._probe_bytes, least), most)
        # Not compressible, or a file system that compresses would find room for it.
        padding = os.urandom(least) * (size // least)
        if await self._commit(WalBatch(padding=padding)) is not None:
            return
        log.warning("writing works again")
        self.storage_trouble, self._resumed_at, self._suspended_at = None, now, None
        self._metrics.volume_writable.set(1)
        for shard in self._by_number.values():
            shard.resume_writing(self._effects(effects, shard), now)

    # -- threads

    def _in_thread(
        self,
        call: Callable[[DocumentId], Callable[[dict[int, Effects], float], None]],
        document_id: DocumentId,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        """Run `call` in a thread; what it returns is run by the next step, on the loop.

        Not if the shard of the document is another one by then. `pool`: other threads than those
        for documents.
        """
        loop = asyncio.get_running_loop()
        shard = self._shard(document_id) if document_id else None
        jobs = 1 if pool is None else 0

        def run() -> None:
            self._results.append(partial(self._give, shard, jobs, call(document_id)))
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._wake.set)

        self._job_count += jobs
        (pool or self._threads).submit(run)

    def _give(
        self,
        shard: Shard | None,
        jobs: int,
        result: Callable[[dict[int, Effects], float], None],
        effects: dict[int, Effects],
        now: float,
    ) -> None:
        self._job_count -= jobs
        if shard is None or self._by_number.get(shard.number) is shard:
            result(effects, now)

    def _start_jobs(self, effects: Effects) -> None:
        for job in effects.jobs:
            run = job.run

            def perform(
                document_id: DocumentId, run: Callable[[], object] = run
            ) -> Callable[[dict[int, Effects], float], None]:
                result = _outcome(run)
                return lambda effects, now: self._shard(document_id).job_finished(
                    document_id, result, self._effects(effects, self._shard(document_id)), now
                )

            self._in_thread(perform, job.document_id)
        if effects.listing:
            self._list_soon()

    def _start_queries(self, effects: Effects) -> None:
        shard = self._by_number[effects.shard]
        for gateway, query in effects.queries:
            if self._query_count >= MOST_QUERIES:  # a volume that hangs is asked no more
                effects.send(gateway, refused(query))
                continue
            self._query_count += 1
            # No document waits for them, nor do they for a checkpoint.
            pool = self._maintenance if query.operation == "checkpoint" else self._asked
            read = self._queries.begin(query)
            self._in_thread(partial(self._query, shard, gateway, read), NOBODYS, pool)

    def _query(
        self,
        shard: Shard,
        gateway: str,
        read: Callable[[], Callable[[], Reply]],
        _: DocumentId,
    ) -> Callable[[dict[int, Effects], float], None]:
        tell = read()

        def answer(effects: dict[int, Effects], _now: float) -> None:
            self._query_count -= 1
            # Else whoever has the shard now is asked again.
            if self._by_number.get(shard.number) is shard:
                self._effects(effects, shard).send(gateway, tell())

        return answer

    def _list_soon(self) -> None:
        """List the volume for the shards that have asked; again if they ask meanwhile."""
        if self._listing:
            self._list_again = True
            return
        self._listing, self._list_again = True, False
        for shard in self._by_number.values():
            shard.listing_started()
        self._in_thread(self._list, NOBODYS)

    def _shard(self, document_id: DocumentId) -> Shard:
        return self._by_number[shard_of(document_id, self._store.volume.shard_count)]

    def _load(self, document_id: DocumentId) -> Callable[[dict[int, Effects], float], None]:
        found = open_document(self._store, self._metrics, document_id)

        def take(effects: dict[int, Effects], now: float) -> None:
            shard = self._shard(document_id)
            its_effects = self._effects(effects, shard)
            match found:
                case Opened(engine, is_stored, is_lost):
                    shard.loaded(document_id, engine, is_stored, its_effects, now, is_lost=is_lost)
                case Trouble.UNREADABLE:
                    shard.load_failed(document_id, its_effects, now)
                case Trouble.BROKEN:
                    shard.load_broken(document_id, its_effects, now)

        return take

    def _delete(self, document_id: DocumentId) -> Callable[[dict[int, Effects], float], None]:
        error = _outcome(lambda: self._store.delete(document_id))
        failure = error if isinstance(error, BaseException) else None
        # What may be deleted must not take any more edits: they would go with it.
        is_gone = (
            failure is not None
            and _outcome(lambda: self._store.is_deleted(document_id)) is not False
        )
        return lambda effects, now: self._shard(document_id).deletion_finished(
            document_id,
            failure,
            self._effects(effects, self._shard(document_id)),
            now,
            is_gone=is_gone,
        )

    def _list(self, _: DocumentId) -> Callable[[dict[int, Effects], float], None]:
        listed = _outcome(self._store.list_ids)

        def tell(effects: dict[int, Effects], now: float) -> None:
            self._listing = False
            if not isinstance(listed, list):
                self._metrics.storage_errors.inc("list")
                log.error("the volume can't be listed; tried again", extra={"error": str(listed)})
                self._list_again = True
                return
            by_shard: dict[int, list[DocumentId]] = {}
            for document_id in listed:
                number = shard_of(document_id, self._store.volume.shard_count)
                by_shard.setdefault(number, []).append(document_id)
            for number, shard in self._by_number.items():
                shard.listed(by_shard.get(number, []), self._effects(effects, shard), now)

        return tell

    # -- housekeeping

    async def _ticks(self) -> None:
        while True:
            self._metrics.loop_lag_seconds.observe(await next_step(TICK_SECONDS))
            self._store.check_held()
            self._results.append(self._tick)
            self._wake.set()

    def _tick(self, effects: dict[int, Effects], now: float) -> None:
        if self._list_again:
            self._list_soon()
        documents, size = 0, 0
        if self._tenure is not None:
            for number, shard in self._by_number.items():
                is_saved = self._settled.get(number) == self._durable.get(number)
                if shard.waiting_count or not is_saved:
                    self._effects(effects, shard)
            self._saves_positions = True
            if now >= self._next_trim:
                self._trims_all, self._next_trim = True, now + TRIM_SECONDS
        for shard in self._by_number.values():
            if not (shard.documents or shard.connections or shard.waiting_count):
                continue  # of 64 shards a small server uses few
            shard.tick(self._effects(effects, shard), now)
            documents += len(shard.documents)
            size += sum(document.size_bytes() for document in shard.documents.values())
        excess = size - self._options.document_bytes
        for shard in self._by_number.values():
            if excess > 0:
                excess -= shard.free_memory(excess, now)
            self._closed_count += shard.closed_count
            shard.closed_count = 0
        is_long_ago = now - self._gave_back_at >= GIVE_BACK_SECONDS
        if self._closed_count >= CLOSED_DOCUMENTS or (self._closed_count and is_long_ago):
            self._closed_count, self._gave_back_at = 0, now
            self._maintenance.submit(give_memory_back)
        self._metrics.documents_open.set(documents)
        self._metrics.document_bytes.set(size)
        self.document_bytes = size
        self._publisher.report_progress()

    async def _rescan(self) -> None:
        """Look again for what other machines wrote last, when nothing is hidden any more."""
        if self._tenure is not None or not self._store.rescan_is_due:
            return
        delay = RESCAN_SECONDS
        while True:
            await asyncio.sleep(delay)
            loop = asyncio.get_running_loop()
            try:
                found = await loop.run_in_executor(self._maintenance, self._store.rescan)
                break
            except VolumeLost:
                raise
            except StorageError as error:
                self._metrics.storage_errors.inc("rescan")
                log.warning("the WALs could not be read again", extra={"error": str(error)})
                delay = TICK_SECONDS
        for _ in found:
            self._metrics.count("documents_found_late")
        log.info("looked again for other servers' last writes", extra={"count": len(found)})
        self.found(found)

    def found(self, document_ids: Collection[DocumentId]) -> None:
        """More of these documents has come to light than was read; read them again."""
        if document_ids:
            self._results.append(partial(self._found, document_ids))
            self._wake.set()

    def _found(
        self, found: Collection[DocumentId], effects: dict[int, Effects], now: float
    ) -> None:
        for document_id in sorted(found):
            shard = self._by_number.get(shard_of(document_id, self._store.volume.shard_count))
            if shard is not None:
                shard.found([document_id], self._effects(effects, shard), now)

    async def _checkpoints(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(seconds_to_step(TICK_SECONDS))
            aged = time.monotonic() - last >= self._options.checkpoint_seconds
            due = self._store.checkpoint_due() and not self._upkeep.has_failed
            if due or (aged and self._store.tail_bytes):
                last = time.monotonic()
                await self._checkpoint_touched()

    async def _checkpoint_touched(self) -> None:
        """A call of its own, or its sets of all documents would stay until the next one."""
        loop = asyncio.get_running_loop()
        touched = self._upkeep.take_touched()
        left = await loop.run_in_executor(self._maintenance, self._upkeep.checkpoint, touched)
        self._wake.set()
        self._upkeep.touched |= left

    def keep_sidecars(self) -> None:
        """Write what is to be found beside documents, when nothing runs any more. Blocking."""
        self._upkeep.keep_sidecars()

    def _is_ours(self, shard: int) -> bool:
        return self._tenure is None or self._tenure.lost([shard]) == []

    def _take_compacted(self, document_id: DocumentId, snapshot: Snapshot) -> None:
        self._results.append(partial(self._compacted, document_id, snapshot))

    def _compacted(
        self,
        document_id: DocumentId,
        snapshot: Snapshot,
        _effects: dict[int, Effects],
        _now: float,
    ) -> None:
        shard = self._by_number.get(shard_of(document_id, self._store.volume.shard_count))
        if shard is not None:
            shard.compacted(document_id, snapshot.data, snapshot.heads)


def _outcome(call: Callable[[], object]) -> object:
    """What a call in a thread returned or raised; the shard decides what an exception means."""
    try:
        return call()
    except BaseException as error:
        return error

"""A cluster of real processes: gateways, workers, a Redis and a volume of the test's own."""

import json
import os
import queue
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.closing import Closing
from support.program import Program, run_to_end
from support.redisserver import RedisServer

AMSYNC = ("-m", "amsync")
START_SECONDS = 60.0
READY_SECONDS = 60.0


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("AMSYNC_")}


class Process(Program):
    """A gateway or a worker, its greeting read.

    Attributes:
        greeting: Its first lines, up to the admin port.
        log_path: What it says on standard error.
    """

    def __init__(
        self,
        kind: str,
        log_path: Path,
        *arguments: str,
        program: Sequence[str] = AMSYNC,
        prefix: Sequence[str] = (),
    ) -> None:
        self.kind, self.log_path = kind, log_path
        self._stderr = log_path.open("ab")
        lines: queue.Queue[str] = queue.Queue()
        command = [*prefix, sys.executable, *program, kind, *arguments, "--admin-port", "0"]
        super().__init__(command, lines.put, stderr=self._stderr, environment=environment())
        self.greeting = ""
        self._lines = lines

    def wait_up(self) -> None:
        """Read the greeting."""
        while "/metrics" not in self.greeting:
            try:
                line = self._lines.get(timeout=START_SECONDS)
            except queue.Empty:
                line = ""
            if not line:
                raise AssertionError(f"{self.kind} did not start: {self.greeting}\n{self.log()}")
            self.greeting += line

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _word(self, scheme: str) -> str:
        return next(word for word in self.greeting.split() if word.startswith(scheme))

    @property
    def url(self) -> str:
        """Of a gateway, for clients."""
        return self._word("ws")

    @property
    def worker_id(self) -> str:
        """Of a worker: how it greets, the first letters of its incarnation."""
        return self.greeting.split()[3]

    @property
    def admin(self) -> str:
        return self._word("http").removesuffix("/metrics")

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.admin}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def samples(self) -> dict[str, float]:
        """All metrics, by name with labels as they are exposed."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line[:1] not in ("#", "")]
        return {name: float(value) for name, value in rows}

    def event_count(self, event: str) -> float:
        """What was counted of an event, whatever its label."""
        starts = (f'amsync_events_total{{event="{event}"', f"amsync_{event}_total")
        return sum(value for name, value in self.samples().items() if name.startswith(starts))

    def close(self) -> None:
        super().close()
        self._stderr.close()


class ClusterProcesses(Closing):
    """See the module's text.

    Args of the constructor:
        redis: An already running one; else one is started.
        redis_url: How processes reach it, if not at its own URL.
        worker_program: What a worker runs instead of `-m amsync`.
        prefix: Of every command, as to have a file system of their own.

    Attributes:
        directory: For logs; `data` in it is the volume.
    """

    def __init__(
        self,
        directory: Path,
        *,
        gateways: int = 1,
        workers: int = 1,
        redis: RedisServer | None = None,
        redis_url: str | None = None,
        worker_options: tuple[str, ...] = (),
        gateway_options: tuple[str, ...] = (),
        data: Path | None = None,
        prefix: Sequence[str] = (),
        worker_program: Sequence[str] = AMSYNC,
    ) -> None:
        self._exit = ExitStack()
        self.directory, self.data = directory, data or directory / "data"
        self.prefix, self.worker_program = prefix, worker_program
        self.redis = redis or self._exit.enter_context(RedisServer(persists=True))
        self.redis_url = redis_url or self.redis.url
        self.worker_options, self.gateway_options = worker_options, gateway_options
        self.workers: list[Process] = []
        self.gateways: list[Process] = []
        self._count = 0
        try:
            fresh = [self._begin_worker() for _ in range(workers)]
            fresh += [self._begin_gateway() for _ in range(gateways)]
            for process in fresh:
                process.wait_up()
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def _begin_worker(self, *options: str, program: Sequence[str] | None = None) -> Process:
        program = program or self.worker_program
        arguments = ("--redis", self.redis_url, "--data-dir", str(self.data))
        worker = self._begin("worker", *arguments, *self.worker_options, *options, program=program)
        self.workers.append(worker)
        return worker

    def _begin_gateway(self, *options: str, port: int = 0) -> Process:
        arguments = ("--redis", self.redis_url, "--port", str(port))
        gateway = self._begin("gateway", *arguments, *self.gateway_options, *options)
        self.gateways.append(gateway)
        return gateway

    def _begin(self, kind: str, *arguments: str, program: Sequence[str] = AMSYNC) -> Process:
        self._count += 1
        log_path = self.directory / f"{kind}-{self._count}.log"
        return self._exit.enter_context(
            Process(kind, log_path, *arguments, program=program, prefix=self.prefix)
        )

    def add_worker(self, *options: str, program: Sequence[str] | None = None) -> Process:
        """Start one more; returns when it has greeted."""
        worker = self._begin_worker(*options, program=program)
        worker.wait_up()
        return worker

    def add_gateway(self, *options: str, port: int = 0) -> Process:
        """Start one more; returns when it has greeted."""
        gateway = self._begin_gateway(*options, port=port)
        gateway.wait_up()
        return gateway

    def living(self) -> list[Process]:
        return [each for each in (*self.workers, *self.gateways) if each.running()]

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait until every process that runs is ready."""
        deadline = time.monotonic() + seconds
        while not all(process.is_ready() for process in self.living()):
            assert time.monotonic() < deadline, f"not ready in time\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        paths = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-4000:]}" for p in paths)

    def status(self) -> Mapping[str, Any]:
        """What `amsync cluster status --json` says."""
        done = run_to_end(
            [
                sys.executable,
                "-m",
                "amsync",
                "cluster",
                "status",
                "--redis",
                self.redis_url,
                "--json",
            ],
            environment=environment(),
        )
        found: Mapping[str, Any] = json.loads(done.stdout)
        return found

    def owner_of(self, shard: int) -> str:
        """The worker that owns a shard; "" for nobody."""
        owner: str = self.status()["shards"][shard]["owner"]
        return owner

    def worker_of(self, shard: int) -> Process:
        """The process that owns a shard."""
        owner = self.owner_of(shard)
        return next(worker for worker in self.workers if worker.worker_id == owner[:8])

    def close(self) -> None:
        """Kill all that still runs."""
        self._exit.close()


def scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="amsync-cluster-")

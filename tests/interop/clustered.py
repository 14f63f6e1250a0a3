"""A cluster of two gateways and two workers, with the face of one server process.

`url` names the gateways in turn, so that the clients of a scenario come in at different ones.
"""

import itertools
import signal
import time
from pathlib import Path

from cluster.processes import Process
from interop.servers import ServerOptions
from support.redisserver import RedisServer

READY_SECONDS = 60.0
GATEWAYS = WORKERS = 2


class ClusterServer:
    """Redis outlives a restart of the rest, as it would."""

    kind = "cluster"

    def __init__(self, data_dir: Path, log: Path, options: ServerOptions) -> None:
        self.data_dir, self.log = data_dir, log
        self._options = options
        self._ports = [0] * GATEWAYS
        self._turn = itertools.count()
        self._processes: list[Process] = []
        self._redis = RedisServer(persists=True)
        self.start()

    @property
    def url(self) -> str:
        scheme = "wss" if self._options.tls else "ws"
        return f"{scheme}://127.0.0.1:{self._ports[next(self._turn) % GATEWAYS]}"

    def start(self) -> None:
        bus = ("--redis", self._redis.url)
        try:
            for _ in range(WORKERS):
                self._begin("worker", *bus, "--data-dir", str(self.data_dir), *self._keeping())
            for port in self._ports:
                self._begin("gateway", *bus, "--port", str(port), *self._serving())
            for process in self._processes:
                process.wait_up()
            gateways = [each for each in self._processes if each.kind == "gateway"]
            self._ports = [int(each.url.rpartition(":")[2]) for each in gateways]
            deadline = time.monotonic() + READY_SECONDS
            while not all(each.is_ready() for each in self._processes):
                assert time.monotonic() < deadline, "the cluster is not ready in time"
                time.sleep(0.05)
        except BaseException:
            self.kill9()
            raise

    def running(self) -> bool:
        return any(each.running() for each in self._processes)

    def stop(self) -> None:
        """End it with SIGTERM, gateways first; each must say goodbye with status 0."""
        statuses = []
        try:
            for process in sorted(self._processes, key=lambda each: each.kind):
                statuses.append((process.kind, process.signal(signal.SIGTERM)))
        finally:
            self._kill_processes()
        assert all(status == 0 for _, status in statuses), statuses

    def kill9(self) -> None:
        self._kill_processes()

    def close(self) -> None:
        self._kill_processes()
        self._redis.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _kill_processes(self) -> None:
        for process in self._processes:
            process.close()
        self._processes = []

    def _begin(self, kind: str, *arguments: str) -> None:
        self._processes.append(Process(kind, self.log, *arguments))

    def _keeping(self) -> list[str]:
        options = [] if self._options.auto_create_docs else ["--no-auto-create-docs"]
        if self._options.storage_id is not None:
            options += ["--storage-id", self._options.storage_id]
        return options

    def _serving(self) -> list[str]:
        options = ["--share", "announce"] if self._options.announce else []
        if self._options.tls is not None:
            cert, key = self._options.tls
            options += ["--tls-cert", str(cert), "--tls-key", str(key)]
        return options

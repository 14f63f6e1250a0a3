"""`amsync cluster status` and `amsync cluster dev`, as an operator sees them."""

import contextlib
import os
import pty
import queue
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from amsync import generate_document_id
from amsync.cli.status import status as command
from amsync.cluster.local import START_SECONDS
from server.replicas import ReplicaClient
from support.admin import AdminCalls
from support.program import Program
from support.redisserver import RedisServer, find_server, free_port

from .processes import ClusterProcesses, environment

WAIT_SECONDS = 60.0
HEAD = "shard  owner     epoch  documents  lag  lag bytes"


def status(redis_url: str, *options: str) -> tuple[int, str, str]:
    """Exit status and output of `amsync cluster status`."""
    done = CliRunner().invoke(command, ["--redis", redis_url, *options])
    return done.exit_code, done.stdout, done.stderr


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not check():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def test_status_of_a_redis_that_is_not_there_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amsync.cli.status.CONNECT_SECONDS", 0.5)

    code, out, errors = status(f"redis://:secret@127.0.0.1:{free_port()}")

    assert (code, out) == (1, "")
    assert "out of reach" in errors
    assert "secret" not in errors


def test_status_takes_the_url_from_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}"
    (tmp_path / "url").write_text(url + "\n")
    monkeypatch.setenv("AMSYNC_REDIS_FILE", str(tmp_path / "url"))
    monkeypatch.setattr("amsync.cli.status.CONNECT_SECONDS", 0.5)

    found = CliRunner().invoke(command, [])
    monkeypatch.setenv("AMSYNC_REDIS_FILE", str(tmp_path / "missing"))
    missing = CliRunner().invoke(command, [])
    monkeypatch.delenv("AMSYNC_REDIS_FILE")
    nothing = CliRunner().invoke(command, [])

    assert (found.exit_code, missing.exit_code, nothing.exit_code) == (1, 2, 2)
    assert url.rpartition("@")[2] in found.stderr
    assert "AMSYNC_REDIS_FILE" in missing.stderr
    assert "--redis" in nothing.stderr


@pytest.mark.slow
def test_status_tells_who_lives_who_owns_and_what_is_wrong(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, gateways=1, workers=2) as cluster:
        (gateway,) = cluster.gateways
        document = generate_document_id()
        with ReplicaClient(gateway.url, document) as client:
            client.put("a", 1)
            client.wait_acknowledged()
            # What processes say of themselves is as old as their last beat.
            eventually(lambda: cluster.status()["gateways"][0]["connections"] == 1)
            eventually(lambda: sum(w["documents"] for w in cluster.status()["workers"]) == 1)
            found = cluster.status()

        code, text, _ = status(cluster.redis_url)

        assert code == 0
        assert text.endswith("\nall is well\n")
        assert f"cluster {found['cluster_id']}  storage id {found['storage_id']}" in text
        assert gateway.url in text
        assert HEAD in text
        assert found["gateways"][0]["state"] == "serving"
        assert {worker["state"] for worker in found["workers"]} == {"serving"}
        assert sum(worker["shards"] for worker in found["workers"]) == len(found["shards"]) == 64
        assert all(shard["owner"] and shard["epoch"] >= 1 for shard in found["shards"])

        cluster.workers[0].process.send_signal(signal.SIGSTOP)
        gateway.kill9()
        name = cluster.workers[0].worker_id
        eventually(lambda: f"worker {name}: silent" in status(cluster.redis_url)[1])
        eventually(lambda: "there is no gateway" in status(cluster.redis_url)[1])
        assert status(cluster.redis_url)[0] == 1

        for worker in cluster.workers:
            worker.kill9()
        eventually(lambda: "64 shards have no owner" in status(cluster.redis_url)[1])


def test_status_without_a_cluster() -> None:
    with RedisServer() as redis:
        code, text, _ = status(redis.url)
        assert code == 1
        assert text == "no cluster has the prefix 'amsync' in this Redis; a worker makes one\n"
        assert status(redis.url, "--json")[:2] == (1, "null\n")

        code, _, said = status("http://nowhere")
        assert code == 2
        assert "the Redis URL can't be used" in said


class Dev(Program):
    """`amsync cluster dev` with everything free; `terminal` is its standard error, if given."""

    def __init__(self, log: Path, *options: str, terminal: int | None = None) -> None:
        server, variables = find_server()
        path = f"{server.parent}:{variables.get('PATH', '')}"
        self.lines: queue.Queue[str] = queue.Queue()
        self.output = ""
        self._stderr = log.open("ab")
        super().__init__(
            [sys.executable, "-m", "amsync", "cluster", "dev", "--port", "0", *options],
            self.lines.put,
            stderr=self._stderr if terminal is None else terminal,
            environment={**variables, **environment(), "PATH": path},
        )

    def read_until(self, text: str) -> str:
        """Read lines until one has this text; returns all that came so far."""
        deadline = time.monotonic() + WAIT_SECONDS
        while text not in self.output:
            with contextlib.suppress(queue.Empty):
                line = self.lines.get(timeout=1)
                assert line, f"it has ended: {self.output}"
                self.output += line
            assert time.monotonic() < deadline, self.output
        return self.output

    def close(self) -> None:
        super().close()
        self._stderr.close()


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    with Dev(tmp_path / "dev.log", "--gateways", "1", "--data-dir", str(tmp_path / "data")) as dev:
        yield dev
        # Its children must not outlive it.
        if dev.running():
            dev.signal(signal.SIGTERM, WAIT_SECONDS)


def pids_of(dev: Dev) -> dict[str, int]:
    """Children of it, by the amsync command that they run."""
    children = Path(f"/proc/{dev.process.pid}/task/{dev.process.pid}/children").read_text()
    found = {}
    for pid in map(int, children.split()):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        found[words[3].decode() if b"-m" in words else "redis"] = pid
    return found


@pytest.mark.slow
def test_dev_runs_a_cluster_and_ends_with_ctrl_c(dev: Dev) -> None:
    said = dev.read_until("the cluster is up")
    url = re.search(r"listening on (ws://\S+)", said)
    assert url is not None
    with ReplicaClient(url[1], generate_document_id()) as client:
        client.put("a", 1)
        client.wait_acknowledged()

    assert dev.signal(signal.SIGINT, WAIT_SECONDS) == 0

    rest = list(dev.lines.queue)
    assert "ended: redis 0, worker-0 0, worker-1 0, gateway-0 0" in "".join(rest)


@pytest.mark.slow
def test_dev_on_a_terminal_tells_where_the_page_is(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    options = ("--gateways", "2", "--data-dir", str(tmp_path / "data"))
    try:
        with Dev(tmp_path / "dev.log", *options, terminal=theirs) as dev:
            said = dev.read_until("the cluster is up")
            line = os.read(ours, 4096).decode()
            found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/#token=([\w-]{20,})\s*", line)
            assert found is not None, line
            assert f"{found[1]}/metrics" in said
            assert found[2] not in said
            status, cluster = AdminCalls(found[1], found[2]).call("GET", "/cluster")
            assert (status, len(cluster["gateways"])) == (200, 2)
            assert dev.signal(signal.SIGINT, WAIT_SECONDS) == 0
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.slow
def test_dev_ends_everything_when_a_part_of_it_dies(dev: Dev) -> None:
    dev.read_until("the cluster is up")
    children = pids_of(dev)
    os.kill(children["gateway"], signal.SIGKILL)

    said = dev.read_until("ended: ")

    assert dev.wait(WAIT_SECONDS) == 1
    assert "gateway-0 has ended; ending everything" in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in children.values())


def test_dev_ends_with_ctrl_c_while_a_part_of_it_waits_for_redis(tmp_path: Path) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}"
    with Dev(tmp_path / "dev.log", "--redis", url, "--data-dir", str(tmp_path / "data")) as dev:
        said = dev.read_until("can't be reached")
        shown = [
            Path(f"/proc/{pid}/cmdline").read_bytes()
            for pid in map(
                int,
                Path(f"/proc/{dev.process.pid}/task/{dev.process.pid}/children")
                .read_text()
                .split(),
            )
        ]

        assert dev.signal(signal.SIGINT, START_SECONDS / 2) == 0

        said += "".join(dev.lines.queue)
        assert "secret" not in said
        assert shown
        assert b"secret" not in b"".join(shown)


def test_dev_ends_when_a_part_of_it_can_not_start(tmp_path: Path) -> None:
    with Dev(tmp_path / "dev.log", "--prefix", "not allowed") as dev:
        said = dev.read_until("ended: ")

        assert dev.wait(START_SECONDS / 2) == 1
        assert "worker-0 has ended; ending everything" in said
        assert "the cluster is up" not in said

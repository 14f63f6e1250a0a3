"""Servers as programs: what is measured of them, and that none outlives the command."""

import queue
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from amsync.bench.errors import BenchError
from amsync.bench.processes import ProcessTree
from amsync.bench.serving import StartedServer
from support.program import Program

SPENDS = """
import subprocess, sys, time
def spend(seconds):
    while time.process_time() < seconds: pass
if len(sys.argv) > 1:
    spend(0.3)
    print("child spent", flush=True)
    sys.stdin.read()
else:
    child = subprocess.Popen([sys.executable, "-c", CODE, "child"], stdin=subprocess.PIPE)
    spend(0.3)
    print("parent spent", flush=True)
    child.wait()
"""


def test_cpu_and_memory_are_those_of_the_whole_tree() -> None:
    code = f"CODE = {SPENDS!r}\n" + SPENDS
    lines: queue.Queue[str] = queue.Queue()
    with (
        tempfile.TemporaryFile() as stderr,
        Program([sys.executable, "-c", code], lines.put, stderr=stderr) as program,
    ):
        said = {lines.get(timeout=30).strip() for _ in range(2)}
        tree = ProcessTree(program.process.pid)
        clock, memory = tree.clock(), tree.memory_bytes()
        for child in tree._pids()[1:]:
            subprocess.run(["kill", str(child)], check=True)

    assert said == {"parent spent", "child spent"}
    assert clock is not None
    assert clock.since(type(clock)({})) > 0.5
    assert memory is not None
    assert memory > 1_000_000


def test_a_process_that_is_gone_has_no_figures() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()

    assert ProcessTree(done.pid).clock() is None
    assert ProcessTree(done.pid).memory_bytes() is None


def test_a_server_that_ends_at_once_is_reported_with_what_it_said() -> None:
    server = StartedServer("odd", "1", [sys.executable, "-c", "import sys; sys.exit('no port')"])

    with pytest.raises(BenchError, match="no port"):
        server.__enter__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_its_server(tmp_path: Path, number: int) -> None:
    lines: queue.Queue[str] = queue.Queue()
    command = [sys.executable, "-m", "amsync", "bench", "latency", "--seconds", "60"]
    with (
        tempfile.TemporaryFile() as stderr,
        Program(command, lines.put, stderr=stderr, directory=tmp_path) as program,
    ):
        tree = ProcessTree(program.process.pid)
        deadline = time.monotonic() + 30
        while len(pids := tree._pids()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)

        status = program.signal(number)

    assert status == 1
    assert ProcessTree(pids[1]).clock() is None

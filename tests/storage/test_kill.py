"""kill -9 of a real process on the real file system; see test_crash for every boundary."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from .conftest import OpenStore
from .shapes import bodies, document

CHILD = """
import asyncio, sys, threading
from pathlib import Path
from support.fakecodec import FakeCodec
from amsync.storage import open_store
from storage.shapes import changes, document

start = int(sys.argv[2])
store = open_store(Path(sys.argv[1]), codec=FakeCodec(), segment_bytes=3_000)

def maintain():
    while True:
        store.checkpoint()
        store.compact_if_due(document(start % 3))

threading.Thread(target=maintain, daemon=True).start()

async def main():
    number = start
    while True:
        await store.commit(changes({document(number % 3): [b"%d" % number]}))
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path, open_real: OpenStore) -> None:
    acknowledged = -1
    for rounds in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "data"), str(acknowledged + 1)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as child:
            assert child.stdout is not None
            for _ in range(20 + 37 * rounds):
                acknowledged = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    acknowledged = int(line)

    store = open_real()

    found = {body for number in range(3) for body in bodies(store, document(number))}
    assert found >= {b"%d" % number for number in range(acknowledged + 1)}
    assert store.report() == []

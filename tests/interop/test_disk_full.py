"""The disk is full, really: reading goes on, nothing false is said, writing resumes by itself."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.servers import AmsyncServer
from support.admin import metrics, readiness
from support.smalldisk import SmallDisk

DISK_BYTES = 3 * 1024 * 1024
DEADLINE_SECONDS = 40.0
TRIES = 3

pytestmark = pytest.mark.usefixtures("amsync_only")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", tmp_path / "disk.log", DISK_BYTES) as disk:
        yield disk


@pytest.fixture
def small_server(start_server: ServerStarter, disk: SmallDisk, tmp_path: Path) -> AmsyncServer:
    return start_server(tmp_path / "disk" / "data", prefix=disk.prefix)


def test_full_disk_is_reported_and_outlived(
    js: Driver, small_server: AmsyncServer, disk: SmallDisk
) -> None:
    writer, reader = js.connect(small_server.url), js.connect(small_server.url)
    doc = writer.create({"list": []})
    closed = writer.create({"opened": "never before"})
    doc.wait_saved()
    closed.wait_saved()
    seen = reader.find(doc.id)

    disk.fill()
    doc.start_typing(["list"], "typed", 0.01)
    _eventually(lambda: readiness(small_server.admin_url)[0] == 503)
    typed = doc.stop_typing()

    _, answer = readiness(small_server.admin_url)
    assert "No space left" in answer["reasons"][0]
    assert metrics(small_server.admin_url)["amsync_volume_writable"] == 0
    # What is saved is there for everybody, also what must be read from the disk.
    late = js.connect(small_server.url)
    assert late.find(closed.id).value() == {"opened": "never before"}
    assert set(late.find(doc.id).value()["list"]) < set(typed)
    # Nothing goes to and fro: neither for the edits that wait nor for a new one.
    seen.edit(["push", ["list"], "by the reader"])
    traffic = _quiet_traffic(small_server, [doc, seen])
    assert sum(traffic) < 60 + 3 * len(typed)

    disk.free()

    doc.wait_saved(DEADLINE_SECONDS)
    value = js.converge([doc, seen, late.doc(doc.id)], DEADLINE_SECONDS)
    assert sorted(value["list"]) == sorted([*typed, "by the reader"])
    assert readiness(small_server.admin_url)[0] == 200
    assert metrics(small_server.admin_url)["amsync_volume_writable"] == 1


def test_server_that_starts_on_a_full_disk_serves_what_is_there(
    js: Driver, small_server: AmsyncServer, disk: SmallDisk
) -> None:
    writer = js.connect(small_server.url, retry_seconds=0.1)
    doc = writer.create({"list": []})
    doc.edit(["push", ["list"], "saved"])
    doc.wait_saved()
    small_server.kill9()
    disk.fill()
    doc.edit(["push", ["list"], "meanwhile"])

    small_server.start()

    reader = js.connect(small_server.url)
    assert reader.find(doc.id).value() == {"list": ["saved"]}
    disk.free()
    doc.wait_saved(DEADLINE_SECONDS)
    value = js.converge([doc, reader.doc(doc.id)], DEADLINE_SECONDS)
    assert value == {"list": ["saved", "meanwhile"]}


def _quiet_traffic(server: AmsyncServer, docs: list[Any]) -> list[int]:
    """Frames of each client so far, once they don't change while the server tries on."""
    before, failures = [-1], 0.0
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        counts = [sum(doc.traffic().values()) for doc in docs]
        failed = metrics(server.admin_url)['amsync_storage_errors_total{operation="commit"}']
        if counts == before and failed >= failures + TRIES:
            return counts
        if counts != before:
            before, failures = counts, failed
        assert time.monotonic() < deadline, "they go on talking"
        time.sleep(0.1)


def _eventually(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not done():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)

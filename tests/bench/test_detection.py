"""A delivery that is not what was sent is found, whatever is wrong with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from amsync.bench import load as load_module
from amsync.bench.errors import NotDelivered, WrongDelivery
from amsync.bench.load import Load
from amsync.bench.serving import RunningServer
from amsync.bench.workloads import FanOut
from bench.fake import Cheat, FakeServer
from cli.running import invoke

CHUNK = b"\x85\x6f\x4a\x83"
SMALL = FanOut(readers=3, rate=50, seconds=0.2, history=5)
VICTIM = 2
"""Client 0 writes, client 1 has the crate's own sync."""


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "SETTLE_SECONDS", 1.5)


def cheat_once(
    is_it: Callable[[bytes], bool], do: Callable[[bytes], list[bytes]], nth: int = 2
) -> Cheat:
    """Cheat client 2 in the nth message of this kind."""
    seen = 0

    def cheat(client: int, data: bytes) -> list[bytes]:
        nonlocal seen
        if client != VICTIM or not is_it(data):
            return [data]
        seen += 1
        return do(data) if seen == nth else [data]

    return cheat


def has_changes(data: bytes) -> bool:
    return CHUNK in data


def flip_in_chunk(data: bytes) -> list[bytes]:
    at = data.index(CHUNK) + 20
    return [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]]


def without_changes(data: bytes) -> list[bytes]:
    """The same heads, and nothing to go with them, as if it had been sent before."""
    start = data.index(CHUNK)
    before = data[:start]
    while before[-1] != 1:  # the count of blobs; after it stands the length of the one
        before = before[:-1]
    return [before[:-1] + b"\0" + b"\x02\x02\x84"]


def test_an_honest_server_passes() -> None:
    with FakeServer() as server:
        outcome = SMALL.run(RunningServer(server.url, None))

    assert outcome.figures["delivered_changes"] == 3 * 10
    assert "cpu_seconds" not in outcome.figures


@pytest.mark.parametrize(
    ("cheat", "found"),
    [
        (cheat_once(has_changes, lambda _: []), f"client {VICTIM}"),
        (cheat_once(has_changes, without_changes), f"client {VICTIM}"),
        (cheat_once(has_changes, flip_in_chunk), "a chunk whose checksum is wrong"),
        (cheat_once(has_changes, lambda data: [data[:-30]]), "a length exceeds the bytes"),
        (cheat_once(has_changes, lambda _: [b"\x42"]), f"client {VICTIM}"),
    ],
    ids=["dropped", "emptied", "flipped", "torn", "garbage"],
)
def test_a_change_that_does_not_arrive_whole_is_found(cheat: Cheat, found: str) -> None:
    with FakeServer(cheat) as server, pytest.raises(WrongDelivery) as caught:
        SMALL.run(RunningServer(server.url, None))

    assert found in str(caught.value)


def test_the_last_change_of_all_that_is_missing_is_found() -> None:
    """Nothing that comes later shows the gap."""
    is_cheating = False

    def cheat(client: int, data: bytes) -> list[bytes]:
        return [] if is_cheating and client == 1 else [data]

    with FakeServer(cheat) as server, Load(server.url) as load:
        document = load.document(3, 1)
        writer = load.writer(document)
        load.reader(document)
        load.reader(document)
        load.settle("joining")
        is_cheating = True
        load.write(writer, document, 1, 0)

        with pytest.raises(NotDelivered) as caught:
            load.settle("delivering")

        assert caught.value.problems == ["client 1: 3 of 4 changes"]


def test_a_change_that_nobody_made_is_found() -> None:
    with FakeServer() as server, Load(server.url) as load:
        document = load.document(3)
        load.writer(document)
        server.replicas[document.made.document_id].put("made", "up")
        load.reader(document)

        with pytest.raises(WrongDelivery, match="nobody has made"):
            load.settle("joining")


def test_a_change_that_is_delivered_twice_is_counted() -> None:
    # The first is the document, then come those that warm up.
    with FakeServer(cheat_once(has_changes, lambda data: [data, data], 8)) as server:
        outcome = SMALL.run(RunningServer(server.url, None))

    assert outcome.figures["duplicate_changes"] == 1
    assert outcome.figures["delivered_changes"] == 3 * 10


def test_a_server_that_lacks_a_document_is_found() -> None:
    with FakeServer() as server, Load(server.url) as load:
        document = load.document(3)
        load.reader(document)

        with pytest.raises(
            WrongDelivery, match="0 of 3 changes; the server says that it has nothing"
        ):
            load.settle("joining")


def test_a_lost_connection_is_found() -> None:
    with FakeServer() as server:
        load = Load(server.url)
        document = load.document(3)
        load.writer(document)
    with pytest.raises(WrongDelivery, match="closed by the server"):
        load.run(0.2)


def test_a_wrong_delivery_makes_the_command_fail(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    with FakeServer(cheat_once(has_changes, flip_in_chunk)) as server:
        result = invoke(
            *("bench", "fan-out", "--quick", "--url", server.url, "--json", file),
        )

    assert result.exit_code == 1, result.output
    assert "WRONG" in result.output
    assert "checksum is wrong" in result.output
    assert "checksum is wrong" in file.read_text()


def test_the_command_measures_a_server_that_runs_already() -> None:
    with FakeServer() as server:
        result = invoke("bench", "fan-out", "cold-start", "--quick", "--url", server.url)

    assert result.exit_code == 0, result.output
    assert "delivered 40" in result.output
    assert "give --pid" in result.output
    assert "left out" in result.output

"""kill -9 again and again under load: nothing that the server ever named is lost.

kill -9 leaves what was written to the page cache, so this sees a promise that leaves before its
change was written, a file removed too early, a start that forgets; it can not see a missing
fsync. That is what tests/storage/test_crash.py and the simulated network are for.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from interop.conftest import ServerStarter
from interop.driver import Driver, results
from interop.recorder import Recorder
from interop.repos import Doc, Repo
from interop.servers import AmsyncServer
from simulation.oracle import INITIAL
from support.rawvolume import RawVolume

TYPING_SECONDS = 0.03
RETRY_SECONDS = 0.05
TYPED_AT_ONCE = 3
READ_AT_ONCE = 25
DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.001


@pytest.mark.usefixtures("amsync_only")
@pytest.mark.parametrize("announce", [False, True], ids=["on request", "announced"])
def test_nothing_named_is_lost_by_kill_9_in_a_loop(
    js: Driver, start_server: ServerStarter, announce: bool
) -> None:
    """automerge-repo's own server acknowledges before it saves."""
    kinds = ["promise", "start", "promise"]
    server = start_server(announce=announce)
    _run(js, server, seed=_seed(), kinds=kinds, announce=announce, creating_seconds=0.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("amsync_only")
@pytest.mark.parametrize("announce", [False, True], ids=["on request", "announced"])
def test_nothing_named_is_lost_by_fifty_times_kill_9(
    js: Driver, start_server: ServerStarter, announce: bool
) -> None:
    """Also while the WAL is moved into folders and these are compacted, every 10 s."""
    seed = _seed()
    more = random.Random(seed).choices(list(KILLS), weights=[6, 4, 1], k=50)
    kinds = [*KILLS, *more]
    server = start_server(announce=announce, hasty=True)
    _run(js, server, seed=seed, kinds=kinds, announce=announce, creating_seconds=1.0)


def _seed() -> int:
    """Of the moments; the machine has a say in them too, so no seed repeats a run exactly."""
    seed = int(os.environ.get("AMSYNC_KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"AMSYNC_KILL_SEED={seed}")
    return seed


def _run(
    js: Driver,
    server: AmsyncServer,
    *,
    seed: int,
    kinds: list[str],
    announce: bool,
    creating_seconds: float,
) -> None:
    randomness = random.Random(seed)
    volume = RawVolume(server.data_dir)
    with Recorder(server.url, seed) as recorder:
        load = Load(js, server, recorder, announce=announce)
        load.clients[0].start_creating("created", creating_seconds)
        for number, kind in enumerate(kinds):
            load.type_into_another_document(f"round-{number}")

            KILLS[kind](server, recorder, randomness)
            recorder.wait_lost()
            for client in load.clients:
                client.wait_disconnected()

            _assert_on_disk(volume, load, f"kill {number} ({kind}), AMSYNC_KILL_SEED={seed}")
            print(f"kill {number}: {kind}; {load.summary()}; {len(volume.segments())} segments")
            load.note_created()
            server.start()
        expected = load.finish()
        server.stop()

    _assert_on_disk(volume, load, "the clean stop")
    assert volume.quarantine() == {}
    assert volume.segments() == []
    stored = volume.changes()
    for document_id, (heads, _) in expected.items():
        assert {bytes.fromhex(head) for head in heads} <= stored[document_id], document_id
    for client in load.clients:
        client.close()
    assert _read_by_automerge_repo(js, server.data_dir, list(expected)) == expected


def _read_by_automerge_repo(
    js: Driver, data_dir: Path, document_ids: list[str]
) -> dict[str, tuple[list[str], object]]:
    """By its own server; in small batches, as it drops clients when it is busy for long."""
    reader = js.connect(js.listen(storage=data_dir).url)
    found: list[Doc] = []
    for at in range(0, len(document_ids), READ_AT_ONCE):
        batch = document_ids[at : at + READ_AT_ONCE]
        found += reader.find_many(batch, timeout=DEADLINE_SECONDS)
    return {doc.id: (sorted(doc.heads()), doc.value()) for doc in found}


class Load:
    """Clients that type and create without pause, whether the server is there or not."""

    def __init__(
        self, js: Driver, server: AmsyncServer, recorder: Recorder, *, announce: bool
    ) -> None:
        self.clients: list[Repo] = [
            js.connect(server.url, retry_seconds=RETRY_SECONDS) for _ in range(3)
        ]
        self.recorder = recorder
        self._js = js
        self._announce = announce
        self._typed: dict[str, list[Doc]] = {}
        self._typing: list[str] = []
        self._written: dict[str, list[str]] = {}

    def type_into_another_document(self, label: str) -> None:
        """Start a document that all clients type into; the oldest one has rest.

        The server must be there.
        """
        for client in self.clients:
            client.wait_connected()
        first = self.clients[0].create({"list": []})
        docs = [first, *(client.doc(first.id) for client in self.clients[1:])]
        first.start_typing(["list"], f"{label}-0", TYPING_SECONDS)
        for number, doc in enumerate(docs[1:], start=1):
            doc.repo.find(first.id)
            doc.start_typing(["list"], f"{label}-{number}", TYPING_SECONDS)
        self._typed[first.id] = docs
        self._typing.append(first.id)
        if not self._announce:
            self.recorder.follow([first.id])
        if len(self._typing) > TYPED_AT_ONCE:
            self._rest(self._typing.pop(0))

    def note_created(self) -> None:
        if not self._announce:
            self.recorder.follow(self.clients[0].created())

    def named(self) -> dict[str, set[bytes]]:
        """All heads that the server ever named to anybody who took notes."""
        found = {name: set(heads) for name, heads in self.recorder.named.items()}
        for client in self.clients:
            for name, heads in client.named_heads().items():
                found.setdefault(name, set()).update(bytes.fromhex(head) for head in heads)
        return found

    def summary(self) -> str:
        """How much there was, for the one who reads the output."""
        named, ours = self.named(), self.recorder.named
        return (
            f"{len(named)} documents, {sum(map(len, named.values()))} heads named, "
            f"{sum(map(len, ours.values()))} of them to the recorder, "
            f"{sum(map(len, self.recorder.written.values()))} edits by the recorder"
        )

    def finish(self) -> dict[str, tuple[list[str], object]]:
        """Stop all; heads and value of each document, the same for all and with all in it."""
        for document_id in self._typing:
            self._rest(document_id)
        created = self.clients[0].stop_creating()
        self.recorder.stop_writing()
        for client in self.clients:
            client.wait_connected()
        self.recorder.wait_connected()
        self.recorder.follow([*created, *self._typed])
        docs = {name: [self.clients[0].doc(name)] for name in created} | self._typed
        _wait_saved(self._js, docs)
        shown = {
            name: (sorted(copies[0].heads()), self._js.converge(copies, DEADLINE_SECONDS))
            for name, copies in docs.items()
        }
        self.recorder.wait_heads({name: heads for name, (heads, _) in shown.items()})
        for number, name in enumerate(created):
            self._written[name] = [f"created-{number}"]
        for name, (_, value) in shown.items():
            items = value.pop("list")
            assert len(items) == len(set(items)), f"{name} holds something twice"
            assert set(items) == set(self._written[name])
            assert set(value) == set(self.recorder.written[name])
            value["list"] = items
        return {name: (sorted(docs[name][0].heads()), value) for name, (_, value) in shown.items()}

    def _rest(self, document_id: str) -> None:
        items = [item for doc in self._typed[document_id] for item in doc.stop_typing()]
        self._written[document_id] = items


def _wait_saved(js: Driver, docs: dict[str, list[Doc]]) -> None:
    waits = [
        js.submit("waitSaved", {"documentId": doc.id}, doc.repo.name, DEADLINE_SECONDS)
        for copies in docs.values()
        for doc in copies
    ]
    results(waits, DEADLINE_SECONDS)


def _assert_on_disk(volume: RawVolume, load: Load, when: str) -> None:
    stored = volume.changes()
    promised = load.named()
    assert sum(map(len, promised.values())) > 0, f"{when}: nothing was promised yet"
    lost = {
        name: [head.hex() for head in missing]
        for name, heads in promised.items()
        if (missing := heads - stored.get(name, set()) - {INITIAL})
    }
    assert not lost, f"{when}: heads were named that are not on disk: {lost}"


# -- moments


def _at_a_promise(server: AmsyncServer, recorder: Recorder, randomness: random.Random) -> None:
    recorder.wait_connected()
    recorder.kill_at_news(randomness.randint(10, 150), server.pid)
    recorder.wait_killed(DEADLINE_SECONDS)
    server.kill9()


def _at_the_start(server: AmsyncServer, recorder: Recorder, randomness: random.Random) -> None:
    """In the middle of what an earlier kill has left to do."""
    _at_a_promise(server, recorder, randomness)
    count = len(_files(server.data_dir))
    wanted = randomness.randint(1, 12)
    server.begin()
    _wait(lambda: server.is_listening() or len(_files(server.data_dir)) >= count + wanted)
    server.kill9()


def _in_housekeeping(server: AmsyncServer, recorder: Recorder, randomness: random.Random) -> None:
    """While the WAL's content moves into the folders, or these are compacted."""
    recorder.wait_connected()
    before = _files(server.data_dir)
    wanted = randomness.randint(1, 60)
    _wait(lambda: len(_files(server.data_dir) ^ before) >= wanted)
    os.kill(server.pid, signal.SIGKILL)
    server.kill9()


KILLS: dict[str, Callable[[AmsyncServer, Recorder, random.Random], None]] = {
    "promise": _at_a_promise,
    "start": _at_the_start,
    "housekeeping": _in_housekeeping,
}


def _files(data_dir: Path) -> set[Path]:
    return set(RawVolume(data_dir).document_files())


def _wait(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not done():
        assert time.monotonic() < deadline, "the moment to kill did not come"
        time.sleep(POLL_SECONDS)

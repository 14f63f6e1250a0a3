"""Directories as other servers, file managers and accidents leave them, taken over as they are."""

from pathlib import Path

import pytest

from amsync._automerge import Replica
from amsync.storage.compaction import LEAST_INCREMENTAL_BYTES
from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.folders import Folder, Written, folders_of_others
from interop.repos import Json, Repo, UnavailableError
from server.replicas import ReplicaClient, eventually
from support.rawvolume import KINDS, RawVolume, readable_changes

Shown = dict[str, tuple[list[str], Json]]

pytestmark = pytest.mark.usefixtures("amsync_only")


NAMESPACES = {
    "se/ttings/theme": b"dark",
    "se/ttings/snapshot/theme": b"\x85\x6f\x4a\x83 looks like a chunk",
    "ui/layout": b"",
    "x/y": b"a namespace of one letter",
    "ap/plication/incremental/deep/er": b"deep",
    ".DS_Store": b"\0\0\0\1Bud1",
    "notes.txt": b"hello",
    "ab": b"a file where a folder could be",
}


def test_folders_of_others_are_served_and_both_servers_agree_on_them(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir, folders = tmp_path / "moved", folders_of_others()
    expected = _write(data_dir, folders)

    server = start_server(data_dir)
    assert _seen(js.connect(server.url), folders) == expected

    server.stop()
    reference = js.listen(storage=data_dir)
    visitor = js.connect(reference.url)
    assert _seen(visitor, folders) == expected

    after_visit = _visit(visitor, folders, "js")
    reference.close()
    server.start()
    visitor = js.connect(server.url)
    assert _seen(visitor, folders) == after_visit

    after_visit = _visit(visitor, folders, "ours")
    server.stop()
    reference = js.listen(storage=data_dir)
    assert _seen(js.connect(reference.url), folders) == after_visit


def test_restarts_change_nothing_and_bad_files_are_put_aside_whole(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir, folders = tmp_path / "moved", folders_of_others()
    expected = _write(data_dir, folders)
    for name, content in NAMESPACES.items():
        (data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / name).write_bytes(content)
    volume = RawVolume(data_dir)

    server = start_server(data_dir, announce=True)
    offered = js.connect(server.url, announce=False)
    offered.wait_documents([folder.document_id for folder in folders.values()])
    assert len(offered.documents()) == len(folders)
    assert _seen(js.connect(server.url), folders) == expected
    server.stop()
    tree, quarantine = volume.tree(), volume.quarantine()
    for _ in range(2):
        server.start()
        assert _seen(js.connect(server.url), folders) == expected
        server.stop()
        assert volume.tree() == tree
        assert volume.quarantine() == quarantine

    bad = sorted(folder.files[name] for folder in folders.values() for name in folder.bad)
    assert sorted(quarantine.values()) == bad
    for folder in folders.values():
        for name in folder.bad:
            assert not (folder.path(data_dir) / name).exists()
        for name in folder.kept:
            assert (folder.path(data_dir) / name).read_bytes() == folder.files[name]
    assert {name: tree.get(name) for name in NAMESPACES} == NAMESPACES


def test_nothing_readable_is_lost_by_edits_and_kill_9(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir, folders = tmp_path / "moved", folders_of_others()
    _write(data_dir, folders)
    found = _readable(folders)

    server = start_server(data_dir)
    visitor = js.connect(server.url)
    _seen(visitor, folders)
    _visit(visitor, folders, "ours")
    server.kill9()
    server.start()
    server.stop()

    assert _lost(found, data_dir, folders) == {}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_readable_is_lost_by_compaction(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    """The server compacts what has grown enough, with the next checkpoint: a minute later."""
    data_dir, folders = tmp_path / "moved", folders_of_others()
    _write(data_dir, folders)
    found = _readable(folders)
    # What waits for a change that is torn can't be in a snapshot, and stops the compaction.
    due = [folders[name] for name in folders if name != "torn increment that others need"]

    server = start_server(data_dir)
    visitor = js.connect(server.url)
    _seen(visitor, folders)
    after_visit = _visit(visitor, folders, "ours", grown_bytes=2 * LEAST_INCREMENTAL_BYTES)
    eventually(lambda: all(_is_compacted(folder, data_dir) for folder in due), timeout=150)
    server.kill9()

    assert _lost(found, data_dir, folders) == {}
    server.start()
    assert _seen(js.connect(server.url), folders) == after_visit
    server.stop()
    reference = js.listen(storage=data_dir)
    assert _seen(js.connect(reference.url), folders) == after_visit


def test_changes_that_need_a_torn_snapshot_appear_when_a_client_brings_it(
    start_server: ServerStarter, tmp_path: Path
) -> None:
    written = Written()
    folder = Folder(
        {
            "snapshot/a": written.saved(3)[:-10],
            "incremental/b": written.changes[3] + written.changes[4],
            "incremental/c": written.changes[5],
        },
        written.upto(6),
    )
    folder.write(tmp_path / "moved")
    server = start_server(tmp_path / "moved", auto_create_docs=False)
    with ReplicaClient(server.url, folder.document_id, peer_id="asks") as asking:
        asking.wait(lambda: asking.unavailable == 1)
        assert asking.frames == []
    server.restart()

    with (
        ReplicaClient(server.url, folder.document_id, peer_id="asks") as asking,
        ReplicaClient(server.url, folder.document_id, written.upto(3), peer_id="brings") as brings,
    ):
        brings.wait_value(written.upto(6).value())
        asking.wait_value(written.upto(6).value())

    server.stop()
    volume = RawVolume(tmp_path / "moved")
    assert list(volume.quarantine().values()) == [folder.files["snapshot/a"]]
    assert len(volume.changes()[folder.document_id]) == 6


@pytest.mark.parametrize("auto_create", [False, True])
def test_document_of_which_nothing_can_be_read_is_absent_for_both_servers(
    js: Driver, start_server: ServerStarter, tmp_path: Path, auto_create: bool
) -> None:
    """Instead of an empty one, which looks to its users as if somebody had emptied it."""
    written = Written()
    folder = Folder({"snapshot/a": written.saved()[:-10]}, Replica())
    folder.write(tmp_path / "moved")
    server = start_server(tmp_path / "moved", auto_create_docs=auto_create)

    for _ in range(2):
        with pytest.raises(UnavailableError):
            js.connect(server.url).find(folder.document_id)
        server.restart()
    server.stop()
    volume = RawVolume(tmp_path / "moved")
    assert list(volume.quarantine().values()) == [folder.files["snapshot/a"]]
    assert volume.document_files() == []
    reference = js.listen(storage=tmp_path / "moved")
    with pytest.raises(UnavailableError):
        js.connect(reference.url).find(folder.document_id)


def test_change_behind_zeros_in_one_file_is_served(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    """As a file system leaves it that had no time to write a block of a longer file."""
    written = Written()
    broken = written.changes[3] + bytes(20) + written.changes[4] + written.changes[5]
    folder = Folder({"snapshot/a": written.saved(3), "incremental/b": broken}, written.upto(6))
    expected = _write(tmp_path / "moved", {"zeros": folder})

    server = start_server(tmp_path / "moved")

    assert _seen(js.connect(server.url), {"zeros": folder}) == expected


def test_bad_file_with_a_long_name_costs_only_its_own_content(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    written = Written()
    files = {"snapshot/a": written.saved(), f"incremental/{'x' * 250}": b"garbage"}
    folder = Folder(files, written.upto(6))
    expected = _write(tmp_path / "moved", {"long": folder})

    server = start_server(tmp_path / "moved")

    assert _seen(js.connect(server.url), {"long": folder}) == expected


def test_dangling_link_of_an_editor_costs_nothing(
    js: Driver, start_server: ServerStarter, tmp_path: Path
) -> None:
    written = Written()
    folder = Folder({"snapshot/a": written.saved()}, written.upto(6))
    expected = _write(tmp_path / "moved", {"link": folder})
    (folder.path(tmp_path / "moved") / "snapshot" / ".#a").symlink_to("user@host.1234")

    server = start_server(tmp_path / "moved")

    assert _seen(js.connect(server.url), {"link": folder}) == expected


def _write(data_dir: Path, folders: dict[str, Folder]) -> Shown:
    for folder in folders.values():
        folder.write(data_dir)
    return {
        name: (sorted(head.hex() for head in folder.served.heads()), folder.served.value())
        for name, folder in folders.items()
    }


def _seen(reader: Repo, folders: dict[str, Folder]) -> Shown:
    docs = reader.find_many([folder.document_id for folder in folders.values()])
    return {
        name: (sorted(doc.heads()), doc.value()) for name, doc in zip(folders, docs, strict=True)
    }


def _visit(visitor: Repo, folders: dict[str, Folder], label: str, *, grown_bytes: int = 0) -> Shown:
    """Edit every document; what they are then."""
    docs = [visitor.doc(folder.document_id) for folder in folders.values()]
    for doc in docs:
        doc.edit(["set", ["visit"], label])
        if grown_bytes:
            doc.edit(["bytes", ["grown"], grown_bytes])
    for doc in docs:
        doc.wait_saved()
    shown = _seen(visitor, folders)
    visitor.close()
    return shown


def _readable(folders: dict[str, Folder]) -> dict[str, set[bytes]]:
    return {
        name: set().union(*map(readable_changes, folder.files.values()))
        for name, folder in folders.items()
    }


def _lost(
    found: dict[str, set[bytes]], data_dir: Path, folders: dict[str, Folder]
) -> dict[str, int]:
    stored = RawVolume(data_dir).changes()
    lost = {name: found[name] - stored[folder.document_id] for name, folder in folders.items()}
    return {name: len(hashes) for name, hashes in lost.items() if hashes}


def _is_compacted(folder: Folder, data_dir: Path) -> bool:
    chunks = [path for kind in KINDS for path in (folder.path(data_dir) / kind).glob("*")]
    return len(chunks) == 1

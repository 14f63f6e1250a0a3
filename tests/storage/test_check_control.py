"""What a check finds in the control folder: identity, log, tombstones, quarantine, leftovers."""

import json
import os
import socket
from pathlib import Path

import pytest

from amsync.storage.check import Holder, Problem
from amsync.storage.check.log import documents_in_log
from support.tree import snapshot

from .broken import CLUSTER, Directory, folder
from .shapes import changes, document, tombstone

ONE, TWO = document(1), document(2)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "data")


def only(directory: Directory) -> Problem:
    (problem,) = directory.check()[1]
    return problem


def test_an_unknown_layout_is_an_error_and_its_log_is_not_touched(directory: Directory) -> None:
    directory.store(ONE, b"a")
    directory.log(changes({TWO: [b"b"]}))
    directory.put(".amsync/cluster.json", json.dumps(CLUSTER | {"layout_version": 2}).encode())

    check, (problem,) = directory.check()

    assert problem.kind == "unknown_layout"
    assert "2; this version knows 1" in problem.detail
    assert check.totals.documents == 1
    assert check.totals.wal_bytes == 0


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"layout_version": 1}', b"\xff", b"null", b"[" * 100_000],
    ids=lambda text: repr(text[:30]),
)
def test_a_damaged_cluster_file_is_an_error(directory: Directory, text: bytes) -> None:
    directory.put(".amsync/cluster.json", text)

    assert directory.problems() == [("bad_cluster_file", ".amsync/cluster.json")]


def test_a_used_directory_without_cluster_file_is_an_error(directory: Directory) -> None:
    directory.log(changes({ONE: [b"a"]}))
    (directory.root / ".amsync" / "cluster.json").unlink()

    assert directory.problems() == [
        ("missing_cluster_file", ".amsync/cluster.json"),
        ("wal_only", ".amsync/wal"),
    ]


def test_different_storage_ids_are_told(directory: Directory) -> None:
    directory.put("st/orage-adapter-id", b"another")

    problem = only(directory)

    assert (problem.kind, problem.path) == ("storage_id_differs", "st/orage-adapter-id")
    assert "another" in problem.detail
    assert "the-storage-id" in problem.detail


@pytest.mark.parametrize("text", [b"", b"a\nb", b"\xff", b"x" * 300])
def test_a_storage_id_that_is_no_text_is_told(directory: Directory, text: bytes) -> None:
    directory.put("st/orage-adapter-id", text)

    assert directory.problems() == [("bad_adapter_id", "st/orage-adapter-id")]


def test_a_healthy_control_folder_has_no_findings(directory: Directory) -> None:
    mark = {"cluster_epoch": "e", "entry": "1-0", "sequences": {"g": 1}}
    directory.put(".amsync/shards/017/mark", json.dumps(mark).encode())
    directory.put(".amsync/shards/017/4")
    directory.put(f".amsync/tombstones/{ONE}")
    directory.put(f"{TWO}.automerge", b"C\0\0\0\1a")
    directory.put(f".amsync/imported/{TWO}.automerge", b"{}")
    directory.put(".amsync/lock")
    (directory.root / ".amsync" / "tmp").mkdir()

    assert directory.problems() == []


def test_unknown_things_in_the_control_folder_are_foreign(directory: Directory) -> None:
    names = [
        ".amsync/notes.txt",
        ".amsync/graphs/x",
        ".amsync/shards/notes",
        ".amsync/shards/017/notes",
        ".amsync/tombstones/notes",
        ".amsync/imported/notes",
        ".amsync/wal/notes",
        ".amsync/wal/000001-owner/notes",
        ".amsync/quarantine/folder/x",
    ]
    for name in names:
        directory.put(name)
    (directory.root / ".amsync" / "wal" / "folder").mkdir()

    found = directory.problems()

    assert {kind for kind, _ in found} == {"foreign_control"}
    folders = {".amsync/graphs", ".amsync/quarantine/folder", ".amsync/wal/folder"}
    files = {name for name in names if str(Path(name).parent) not in folders}
    assert {path for _, path in found} == files | folders


def test_files_and_folders_in_each_others_place_are_in_the_way(directory: Directory) -> None:
    directory.put(".amsync/wal")
    directory.put(".amsync/lock/x")

    assert directory.problems() == [
        ("in_the_way", ".amsync/lock"),
        ("in_the_way", ".amsync/wal"),
    ]


def test_a_file_instead_of_the_control_folder_is_in_the_way(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    (tmp_path / ".amsync" / "cluster.json").unlink()
    (tmp_path / ".amsync").rmdir()
    directory.put(".amsync")

    assert directory.problems() == [("in_the_way", ".amsync")]


def test_a_damaged_mark_is_told(directory: Directory) -> None:
    directory.put(".amsync/shards/017/mark", b'{"entry": 1')

    assert directory.problems() == [("bad_mark", ".amsync/shards/017/mark")]


def test_quarantined_files_are_told_with_their_note(directory: Directory) -> None:
    note = {"path": f"{folder(ONE)}/incremental/x", "why": "checksum: wrong"}
    directory.put(".amsync/quarantine/000001-x", b"data")
    directory.put(".amsync/quarantine/000001-x.json", json.dumps(note).encode())

    problem = only(directory)

    assert (problem.kind, problem.path) == ("quarantined", ".amsync/quarantine/000001-x")
    assert problem.document_id == ONE
    assert problem.detail == f"from {folder(ONE)}/incremental/x: checksum: wrong"


@pytest.mark.parametrize("note", [None, b"", b"[]", b'{"path": "\\ud800"}'], ids=repr)
def test_quarantined_files_without_a_note_are_told(
    directory: Directory, note: bytes | None
) -> None:
    directory.put(".amsync/quarantine/000001-x", b"data")
    if note is not None:
        directory.put(".amsync/quarantine/000001-x.json", note)

    assert directory.problems() == [("quarantined_without_note", ".amsync/quarantine/000001-x")]


def test_a_note_without_its_file_and_a_quarantined_json_are_told_apart(
    directory: Directory,
) -> None:
    directory.put(".amsync/quarantine/000001-x.json", b"{}")
    directory.put(".amsync/quarantine/000002-y.json", b"data")
    directory.put(".amsync/quarantine/000002-y.json.json", b'{"path": "a", "why": "\\ud800"}')

    _, problems = directory.check()

    assert [(each.kind, each.path[-13:]) for each in problems] == [
        ("note_without_file", "000001-x.json"),
        ("quarantined", "000002-y.json"),
    ]
    for each in problems:
        each.detail.encode()


def test_a_marker_whose_file_is_gone_and_a_damaged_one_are_notes(directory: Directory) -> None:
    directory.put(f".amsync/imported/{ONE}.automerge", b"{}")
    directory.put(f"{TWO}.automerge", b"C\0\0\0\1a")
    directory.put(f".amsync/imported/{TWO}.automerge", b"{")

    assert sorted(directory.problems()) == [
        ("bad_marker", f".amsync/imported/{TWO}.automerge"),
        ("marker_without_file", f".amsync/imported/{ONE}.automerge"),
    ]


def test_unfinished_files_are_one_note(directory: Directory) -> None:
    directory.put(".amsync/tmp/a-1")
    directory.put(".amsync/tmp/a-2")

    problem = only(directory)

    assert (problem.kind, problem.path) == ("unfinished_files", ".amsync/tmp")
    assert problem.detail == "2 unfinished files"


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_a_torn_end_of_the_log_is_a_note(directory: Directory, cut: int) -> None:
    segment = directory.log(changes({ONE: [b"a"]}), changes({ONE: [b"b"]}))
    with segment.open("r+b") as file:
        file.truncate(max(0, segment.stat().st_size - cut))

    check, problems = directory.check()

    torn = [each for each in problems if each.kind != "wal_only"]
    assert [(each.kind, each.path) for each in torn] == [
        ("torn_wal_end", str(segment.relative_to(directory.root)))
    ]
    assert check.totals.errors == 0
    assert check.totals.wal_bytes == segment.stat().st_size


def test_a_bad_record_before_good_ones_is_an_error_and_these_are_read(
    directory: Directory,
) -> None:
    segment = directory.log(*(changes({ONE: [body]}) for body in (b"aa", b"bb", b"cc")))
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b"bb", b"BB"))

    check, (first, second) = directory.check()

    assert (first.kind, second.kind) == ("bad_wal_record", "wal_only")
    assert first.path == str(segment.relative_to(directory.root))
    assert check.totals.changes == 2


def test_a_change_in_the_log_that_is_not_whole_is_an_error(directory: Directory) -> None:
    batch = changes({ONE: [b"a"]})
    item = batch.changes[0]
    torn = type(batch)(changes=(type(item)(0, 1, ONE, (*item.chunks, b"C\0\0\0\5torn"[:-1])),))
    directory.log(torn)
    directory.store(ONE, b"b")

    problem = only(directory)

    assert (problem.kind, problem.path) == ("bad_wal_chunk", ".amsync/wal")
    assert problem.document_id == ONE


def test_a_document_that_the_log_deletes_is_gone(directory: Directory) -> None:
    directory.log(changes({ONE: [b"a"]}), tombstone(ONE))

    check, problems = directory.check()

    assert problems == []
    assert check.totals.documents == 0


def test_a_log_beyond_its_bound_is_read_in_part_and_nothing_is_called_missing(
    directory: Directory,
) -> None:
    directory.log(changes({ONE: [b"orphan" + b"x" * 100]}))
    rest = directory.put(".amsync/wal/000002-owner/00000001.wal", b"")

    problems = directory.problems(log_bytes=50)

    assert problems == [
        ("too_large", str(rest.relative_to(directory.root))),
        ("wal_only", ".amsync/wal"),
    ]


def test_a_huge_segment_is_named_and_not_read(directory: Directory) -> None:
    segment = directory.log(changes({ONE: [b"a"]}))
    with segment.open("r+b") as file:
        file.truncate(1 << 40)

    assert directory.problems() == [("too_large", str(segment.relative_to(directory.root)))]


def test_the_log_alone_can_be_read(directory: Directory) -> None:
    directory.log(changes({ONE: [b"a"]}), changes({TWO: [b"b"]}))
    before = snapshot(directory.root)

    log = documents_in_log(directory.root)

    assert set(log.chunks) == {ONE, TWO}
    assert snapshot(directory.root) == before


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("fields", "holder"),
    [
        ({"pid": os.getpid(), "host": HERE}, Holder(os.getpid(), HERE, True)),
        ({"pid": 1, "host": HERE}, Holder(1, HERE, True)),
        ({"pid": 2**22 + 1, "host": HERE}, None),
        ({"pid": 2**80, "host": HERE}, None),
        ({"pid": -1, "host": HERE}, None),
        ({"pid": 7, "host": "elsewhere"}, Holder(7, "elsewhere", None)),
        ({"pid": os.getpid(), "host": HERE, "has_stopped": True}, None),
        ({"pid": os.getpid(), "host": HERE, "has_stopped": False}, Holder(os.getpid(), HERE, True)),
        ({"pid": "many", "host": HERE}, None),
        ([], None),
    ],
    ids=str.split("ours init none huge negative elsewhere stopped running text list"),
)
def test_the_holder_is_told_from_the_lock_file_alone(
    directory: Directory, fields: object, holder: Holder | None
) -> None:
    directory.put(".amsync/lock", json.dumps(fields).encode().ljust(511) + b"\n")

    check, problems = directory.check()

    assert check.holder == holder
    assert problems == []


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 100_000], ids=lambda text: text[:5])
def test_a_lock_file_that_says_nothing_names_nobody(directory: Directory, text: bytes) -> None:
    directory.put(".amsync/lock", text)

    assert directory.check()[0].holder is None

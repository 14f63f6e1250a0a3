"""What a check finds in document folders, flat files and among them."""

import errno
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from amsync.ids import DocumentId, base58check_encode
from amsync.storage import Examination
from amsync.storage.check import KINDS, Check
from amsync.storage.check.documents import DocumentCheck, Place
from amsync.storage.check.tree import Parts, Tree
from support.fakecodec import FakeCodec, make_chunk, make_snapshot

from .broken import Directory, folder
from .shapes import changes, document, tombstone

ONE, TWO = document(1), document(2)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "data")


def test_a_healthy_directory_has_no_findings_and_is_counted(directory: Directory) -> None:
    directory.store(ONE, b"a", b"b")
    directory.put(f"{folder(ONE)}/snapshot/x", make_snapshot([b"a"]))
    directory.put(f"{folder(ONE)}/sync-state/some-peer", b"whatever")
    directory.store(TWO, b"c")
    directory.put(f"{TWO}.automerge", make_chunk(b"d"))
    directory.put(".sync_states/peer/x.sync", b"of the R server")
    directory.root.joinpath(folder(document(3))).mkdir(parents=True)  # left by automerge-repo

    check, problems = directory.check()

    assert problems == []
    assert (check.totals.documents, check.totals.changes) == (2, 4)
    files = [path for path in directory.root.rglob("*") if path.is_file()]
    chunks = [path for path in files if path.parent.name in ("incremental", "snapshot")]
    flats = [path for path in files if path.suffix == ".automerge"]
    assert check.totals.file_bytes == sum(path.stat().st_size for path in chunks + flats)
    assert check.holder is None


def test_a_directory_of_automerge_repo_alone_is_healthy(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    (tmp_path / ".amsync" / "cluster.json").unlink()
    (tmp_path / ".amsync").rmdir()
    directory.store(ONE, b"a")

    assert directory.problems() == []


def test_a_cut_file_is_torn_and_its_good_changes_are_counted(directory: Directory) -> None:
    path = directory.store(ONE, b"a", b"b", b"c", cut=1)

    check, (problem,) = directory.check()

    assert (problem.kind, problem.document_id) == ("torn_file", ONE)
    assert problem.path == str(path.relative_to(directory.root))
    assert problem.detail.startswith("2 changes load; the rest does not")
    assert check.totals.errors == 1
    assert check.totals.changes == 2


def test_an_empty_file_is_harmless(directory: Directory) -> None:
    directory.store(ONE, b"a")
    directory.put(f"{folder(ONE)}/incremental/empty")

    assert directory.problems() == [("empty_file", f"{folder(ONE)}/incremental/empty")]


def test_a_file_that_is_no_chunk_is_foreign_and_not_torn(directory: Directory) -> None:
    directory.store(ONE, b"a")
    directory.put(f"{folder(ONE)}/snapshot/.DS_Store", b"\0\0\0\1Bud1")

    assert directory.problems() == [("not_a_chunk", f"{folder(ONE)}/snapshot/.DS_Store")]


@pytest.mark.parametrize("content", [b"", b"notes", make_chunk(b"a")[:-1]], ids=repr)
def test_a_bad_flat_file_is_torn(directory: Directory, content: bytes) -> None:
    directory.store(ONE, b"a")
    directory.put(f"{ONE}.automerge", content)

    assert directory.problems() == [("torn_flat_file", f"{ONE}.automerge")]


def test_nothing_that_loads_is_an_unloadable_document(directory: Directory) -> None:
    directory.store(ONE, b"a", cut=1)

    kinds = [kind for kind, _ in directory.problems()]

    assert kinds == ["torn_file", "unloadable_document"]


def test_a_file_on_which_the_engine_fails_is_named(directory: Directory) -> None:
    directory.store(ONE, b"a", name="good")
    directory.store(ONE, b"panic", name="bad")

    assert directory.problems() == [
        ("torn_file", f"{folder(ONE)}/incremental/bad"),
        ("unloadable_document", folder(ONE)),
    ]


def test_changes_that_wait_are_counted_after_everything_is_merged(directory: Directory) -> None:
    directory.store(ONE, b"a", b"orphan 1", b"orphan 2")

    check, (problem,) = directory.check()

    assert (problem.kind, problem.path) == ("waiting_changes", folder(ONE))
    assert problem.detail == "2 changes wait for others that are not stored"
    assert check.totals.changes == 1


def test_a_deleted_document_with_files_is_a_note_and_not_examined(directory: Directory) -> None:
    directory.put(f".amsync/tombstones/{ONE}")
    directory.store(ONE, b"a", cut=1)
    directory.put(f".amsync/tombstones/{TWO}")
    directory.put(f"{TWO}.automerge", b"bad")
    directory.log(tombstone(document(3)))
    directory.store(document(3), b"a")

    check, problems = directory.check()

    assert sorted((each.kind, each.path) for each in problems) == sorted(
        [
            ("deleted_with_files", folder(ONE)),
            ("deleted_with_files", f"{TWO}.automerge"),
            ("deleted_with_files", folder(document(3))),
        ]
    )
    assert check.totals.documents == 0


def test_foreign_names_and_files_are_named(directory: Directory) -> None:
    directory.store(ONE, b"a")
    directory.put("README", b"")
    directory.put("notes.automerge", make_chunk(b"a"))
    directory.put("photos/1.jpg")
    directory.put("ab/my-app/key")
    directory.put("ab/notes.txt")
    directory.put(f"{folder(ONE)}/readme.txt")

    assert sorted(directory.problems()) == [
        ("foreign_file", f"{folder(ONE)}/readme.txt"),
        ("foreign_file", "README"),
        ("foreign_file", "ab/notes.txt"),
        ("foreign_flat_file", "notes.automerge"),
        ("foreign_name", "ab/my-app"),
        ("foreign_name", "photos"),
    ]


def test_a_file_where_a_folder_is_needed_is_in_the_way(directory: Directory) -> None:
    blocked = [document(number) for number in (255, 256, 257)]
    directory.put("zz")
    directory.put(f"{folder(blocked[0])}/incremental")
    directory.put(folder(blocked[1]))
    directory.put(f"{folder(blocked[2])}/snapshot/folder/file")

    assert sorted(directory.problems()) == sorted(
        [
            ("in_the_way", "zz"),
            ("in_the_way", f"{folder(blocked[0])}/incremental"),
            ("in_the_way", folder(blocked[1])),
            ("in_the_way", f"{folder(blocked[2])}/snapshot/folder"),
        ]
    )


def named(name: str) -> str:
    return f"{name[:2]}/{name[2:]}"


def test_a_folder_with_a_wrong_checksum_is_unreachable(directory: Directory) -> None:
    wrong = ONE[:-1] + ("1" if ONE[-1] != "1" else "2")
    directory.put(f"{named(wrong)}/incremental/x", make_chunk(b"a") + make_chunk(b"b"))

    check, (problem,) = directory.check()

    assert (problem.kind, problem.path) == ("unreachable_document", named(wrong))
    assert problem.detail.startswith("2 changes in 1 files")
    assert problem.document_id is None
    assert check.totals.errors == 1


def test_a_folder_with_the_wrong_case_is_unreachable_and_its_id_is_told(
    directory: Directory,
) -> None:
    document_id = DocumentId(base58check_encode(bytes(range(16, 32))))
    wrong = document_id[:2].swapcase() + document_id[2:]
    assert wrong != document_id
    directory.put(f"{named(wrong)}/incremental/x", make_chunk(b"a"))

    _, (problem,) = directory.check()

    assert (problem.kind, problem.path) == ("unreachable_document", named(wrong))
    assert problem.document_id == document_id
    assert f"{document_id[:2]}/{document_id[2:]}" in problem.detail


def test_a_folder_with_a_legacy_spelling_is_unreachable_and_its_id_is_told(
    directory: Directory,
) -> None:
    uuid = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
    directory.put(f"{named(uuid)}/incremental/x", make_chunk(b"a"))

    _, (problem,) = directory.check()

    assert problem.kind == "unreachable_document"
    assert problem.document_id == base58check_encode(bytes.fromhex(uuid.replace("-", "")))


def test_folders_that_differ_only_in_case_collide(directory: Directory) -> None:
    document_id = DocumentId(base58check_encode(bytes(range(16, 32))))
    other = document_id[:2].swapcase() + document_id[2:]
    directory.store(document_id, b"a")
    directory.put(f"{named(other)}/incremental/x", make_chunk(b"a"))
    if len(list(directory.root.iterdir())) < 4:
        pytest.skip("this file system ignores case")

    kinds = [kind for kind, _ in directory.problems()]

    assert sorted(kinds) == ["case_collision", "unreachable_document"]


def test_links_are_named_and_never_followed(directory: Directory, tmp_path: Path) -> None:
    outside = Directory(tmp_path / "outside")
    outside.store(ONE, b"secret", cut=1)
    root = directory.root
    directory.store(TWO, b"a")
    (root / ONE[:2]).mkdir(exist_ok=True)
    (root / folder(ONE)).symlink_to(outside.root / folder(ONE))
    (root / folder(TWO) / "snapshot").symlink_to(root, target_is_directory=True)
    (root / folder(TWO) / "incremental" / "loop").symlink_to("loop")
    (root / ".amsync" / "wal").symlink_to(root, target_is_directory=True)

    assert sorted(directory.problems()) == sorted(
        [
            ("symlink", folder(ONE)),
            ("symlink", f"{folder(TWO)}/snapshot"),
            ("symlink", f"{folder(TWO)}/incremental/loop"),
            ("symlink", ".amsync/wal"),
        ]
    )


def test_a_link_that_is_put_in_place_after_the_listing_is_not_followed(
    directory: Directory, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"outside")
    (directory.root / "file").symlink_to(tmp_path / "secret")
    (directory.root / "folder").symlink_to(tmp_path)

    with closing(Tree(directory.root)) as tree:
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            tree.read(("file",), 100)
        with pytest.raises(NotADirectoryError):
            tree.list(("folder",))
        with pytest.raises(NotADirectoryError):
            tree.read(("folder", "secret"), 100)
        assert not tree.has_file(("file",))
        assert not tree.has_file(("folder", "secret"))


def test_changes_in_the_log_are_not_called_waiting_when_the_folder_is_behind_a_link(
    directory: Directory, tmp_path: Path
) -> None:
    directory.log(changes({ONE: [b"orphan"]}))
    (tmp_path / "elsewhere").mkdir()
    (directory.root / ONE[:2]).symlink_to(tmp_path / "elsewhere")

    assert directory.problems() == [("symlink", ONE[:2]), ("wal_only", ".amsync/wal")]


def test_pipes_and_sockets_are_named_and_never_opened(directory: Directory) -> None:
    directory.store(ONE, b"a")
    inside = directory.root / folder(ONE) / "incremental"
    os.mkfifo(inside / "pipe")
    here = Path.cwd()
    os.chdir(inside)  # the name of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
    finally:
        os.chdir(here)

    assert directory.problems() == [
        ("special_file", f"{folder(ONE)}/incremental/pipe"),
        ("special_file", f"{folder(ONE)}/incremental/socket"),
    ]


def test_names_that_are_not_utf_8_are_shown_with_escapes(directory: Directory) -> None:
    raw = os.fsencode(directory.root) + b"/\xff\xfe"
    os.mkdir(raw)  # noqa: PTH102 - a name that is not UTF-8
    with open(raw + b"/\x80.txt", "wb"):  # noqa: PTH123
        pass
    directory.put("line\nbreak")

    _, problems = directory.check()

    assert sorted((each.kind, each.path) for each in problems) == [
        ("foreign_file", "\\xff\\xfe/\\x80.txt"),
        ("foreign_file", "line\nbreak"),
    ]
    for each in problems:
        each.path.encode()


def test_a_huge_file_is_named_and_not_read(directory: Directory) -> None:
    directory.store(ONE, b"a")
    huge = directory.put(f"{folder(ONE)}/snapshot/huge")
    with huge.open("r+b") as file:
        file.truncate(1 << 40)

    assert directory.problems() == [("too_large", f"{folder(ONE)}/snapshot/huge")]


def test_files_of_one_document_are_read_up_to_a_bound_together(directory: Directory) -> None:
    directory.store(ONE, b"x" * 100, name="1")
    directory.store(ONE, b"y" * 100, name="2")
    directory.store(TWO, b"z" * 100)

    assert directory.problems(document_bytes=150) == [("too_large", f"{folder(ONE)}/incremental/2")]


def test_what_could_not_be_looked_at_is_not_called_missing(directory: Directory) -> None:
    directory.store(ONE, b"orphan", name="1")
    directory.store(ONE, b"x" * 100, name="2")

    assert directory.problems(document_bytes=50) == [("too_large", f"{folder(ONE)}/incremental/2")]


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything; nobody may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_an_error_and_the_rest_is_examined() -> None:
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        directory = Directory(Path(parent) / "data")
        directory.store(ONE, b"a", name="good")
        directory.store(ONE, b"b", name="locked").chmod(0)
        directory.store(TWO, b"c", cut=1)
        directory.put("ab/x").parent.chmod(0)
        try:
            with without_privileges():
                problems = directory.problems()
        finally:
            (directory.root / "ab").chmod(0o755)

    assert set(problems) == {
        ("unreadable", "ab"),
        ("unreadable", f"{folder(ONE)}/incremental/locked"),
        ("torn_file", f"{folder(TWO)}/incremental/some"),
        ("unloadable_document", folder(TWO)),
    }


def test_documents_in_log_and_flat_files_only_are_counted(directory: Directory) -> None:
    directory.log(changes({ONE: [b"a", b"b"], TWO: [b"c"]}))
    directory.store(TWO, b"d")
    directory.put(f"{document(3)}.automerge", make_chunk(b"e"))

    check, (problem,) = directory.check()

    assert (problem.kind, problem.path) == ("wal_only", ".amsync/wal")
    assert problem.detail == "1 documents are only in the log"
    assert (check.totals.documents, check.totals.changes) == (3, 5)


def test_log_folder_and_flat_file_are_examined_together(directory: Directory) -> None:
    directory.log(changes({ONE: [b"orphan", b"a"]}))
    directory.store(ONE, b"a", b"b")
    directory.put(f"{ONE}.automerge", make_snapshot([b"b", b"c"]))

    check, (problem,) = directory.check()

    assert (problem.kind, problem.path) == ("waiting_changes", folder(ONE))
    assert check.totals.changes == 3


class Finishing(FakeCodec):
    """Another program finishes a file while we examine what it has written so far."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content

    def examine(self, blobs: Sequence[bytes]) -> Examination:
        found = super().examine(blobs)
        self._path.write_bytes(self._content)
        return found


def test_a_file_that_is_being_written_is_not_taken_for_damage(directory: Directory) -> None:
    path = directory.store(ONE, b"a", b"b", cut=1)
    codec = Finishing(path, make_chunk(b"a") + make_chunk(b"b"))
    check = Check(directory.root, codec)

    assert list(check.run()) == []
    assert check.totals.changes == 2


class Compacting(Tree):
    """A server compacts just before each of the first reads."""

    times = 5

    def __init__(self, directory: Directory) -> None:
        super().__init__(directory.root)
        self._directory = directory

    def read(self, file: Parts, limit_bytes: int) -> bytes:
        if self.times:
            self.times -= 1
            self._directory.store(ONE, b"a", name=f"newer-{self.times}")
            self._directory.root.joinpath(*file).unlink()
        return super().read(file, limit_bytes)


def test_files_that_vanish_are_looked_up_again(directory: Directory) -> None:
    directory.store(ONE, b"a")

    with closing(Compacting(directory)) as tree:
        found = DocumentCheck(tree, FakeCodec()).examine(Place(ONE, (ONE[:2], ONE[2:])))

    assert found.problems == ()
    assert found.change_count == 1


def test_files_that_vanish_all_the_time_are_an_error(directory: Directory) -> None:
    directory.store(ONE, b"a")

    with closing(Compacting(directory)) as tree:
        tree.times = 10_000
        found = DocumentCheck(tree, FakeCodec()).examine(Place(ONE, (ONE[:2], ONE[2:])))

    assert [each.kind for each in found.problems] == ["unreadable"]


def test_every_kind_has_advice_of_whole_sentences() -> None:
    for name, kind in KINDS.items():
        assert kind.advice.endswith("."), name
        assert "  " not in kind.advice, name

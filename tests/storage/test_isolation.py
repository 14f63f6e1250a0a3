"""One document that can't be read or written, or one bad file, costs nobody else anything."""

import errno
from pathlib import Path

import pytest

from amsync.errors import DocumentDeleted, StorageError, StorageFull
from amsync.storage import open_store
from amsync.storage.files import RealFileSystem
from support.fakecodec import FakeCodec, make_chunk
from support.memfs import KEEP_EVERYTHING, KEEP_NOTHING, MemoryFileSystem

from .conftest import ROOT, OpenStore
from .shapes import bodies, changes, commit, document

ONE, TWO = document(1), document(2)
BAD = ROOT / ONE[:2] / ONE[2:]


def fail_in_bad(memory: MemoryFileSystem) -> None:
    memory.fault = lambda _, path: errno.EIO if path.is_relative_to(BAD) else None


def test_a_document_that_can_not_be_written_holds_up_no_other(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory(tail_limit_bytes=3_000)
    fail_in_bad(memory)
    commit(store, changes({ONE: [b"a"]}))

    for number in range(60):
        commit(store, changes({TWO: [b"b%d" % number]}))
        store.checkpoint()

    kinds = [finding.kind for finding in store.report()]
    assert kinds == ["document_unwritable"], "said once"
    assert bodies(store, ONE) == {b"a"}
    memory.restart(KEEP_NOTHING)
    store = open_memory()
    assert bodies(store, ONE) == {b"a"}
    store.checkpoint()
    store.close()
    assert bodies(open_memory(), TWO) == {b"b%d" % number for number in range(60)}


def test_a_long_log_and_a_document_that_can_not_be_written_do_not_keep_a_start_from_serving(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    store = open_memory()
    commit(store, changes({ONE: [b"a" * 100]}))
    memory.restart(KEEP_EVERYTHING)
    fail_in_bad(memory)

    store = open_memory(checkpoint_bytes=100)

    assert bodies(store, ONE) == {b"a" * 100}


def test_a_folder_that_somebody_removes_is_made_again(tmp_path: Path) -> None:
    store = open_store(tmp_path, codec=FakeCodec(), threaded=False)
    commit(store, changes({ONE: [b"a"]}))
    store.checkpoint()
    for path in sorted(tmp_path.glob(f"{ONE[:2]}/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / ONE[:2]).rmdir()

    commit(store, changes({ONE: [b"b"]}))
    store.checkpoint()

    assert bodies(store, ONE) == {b"b"}
    store.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_flat_file_that_can_not_be_taken_in_is_shown_and_taken_in_later(
    memory: MemoryFileSystem, open_memory: OpenStore, error: int
) -> None:
    store = open_memory()
    commit(store, changes({TWO: [b"b"]}))
    store.close()
    memory.put(ROOT / f"{ONE}.automerge", make_chunk(b"flat"))
    memory.fault = lambda operation, path: (
        error if operation in ("create", "write") and "-test-" not in path.name else None
    )

    store = open_memory()

    assert bodies(store, TWO) == {b"b"}
    assert bodies(store, ONE) == {b"flat"}
    assert store.list_ids() == sorted([ONE, TWO])
    memory.restart(KEEP_EVERYTHING)
    open_memory().close()
    assert len(memory.tree(BAD / "snapshot")) == 1


def test_a_deletion_that_failed_takes_no_edits_with_it(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    """Its tombstone may be on disk all the same, and would beat them at the next start."""
    store = open_memory()
    commit(store, changes({ONE: [b"a"]}))
    memory.fault = lambda operation, path: (
        errno.EIO if operation == "fsync" and path.suffix == ".wal" else None
    )
    with pytest.raises(StorageError):
        store.delete(ONE)
    memory.fault = None

    assert store.is_deleted(ONE), "so that whoever has it open takes no more edits"
    with pytest.raises(DocumentDeleted):
        store.load(ONE)
    assert store.tail_bytes > 0
    store.checkpoint()
    memory.restart(KEEP_NOTHING)

    assert open_memory().is_deleted(ONE), "the next checkpoint has made sure of it"


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_note_in_quarantine_that_can_not_be_read_costs_no_document(
    tmp_path: Path, is_directory: bool
) -> None:
    class Files(RealFileSystem):
        def read(self, path: Path) -> bytes:
            if path.name == "000001-x.json" and not is_directory:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(path)

    note = tmp_path / ".amsync" / "quarantine" / "000001-x.json"
    note.parent.mkdir(parents=True)
    note.mkdir() if is_directory else note.write_text("{}")

    store = open_store(tmp_path, codec=FakeCodec(), files=Files(), threaded=False)
    commit(store, changes({ONE: [b"a"]}))

    assert bodies(store, ONE) == {b"a"}
    store.close()


def test_a_quarantine_that_fails_leaves_nothing(
    memory: MemoryFileSystem, open_memory: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_memory()
    bad = BAD / "incremental" / "foreign"
    memory.put(bad, b"x" * 10_000)
    write = store.volume.durable.write

    def write_small(path: Path, data: bytes) -> None:
        if len(data) > 1_000:
            raise StorageFull("no room for the file; there is for its note")
        write(path, data)

    monkeypatch.setattr(store.volume.durable, "write", write_small)

    for _ in range(5):
        with pytest.raises(StorageFull):
            store.bad_blob(ONE, bad, [], "foreign")

    assert not [name for name in memory.tree(ROOT) if "quarantine" in name]
    assert memory.read(bad) == b"x" * 10_000


def test_a_parent_without_fsync_of_directories_is_no_reason_to_refuse(tmp_path: Path) -> None:
    class Files(RealFileSystem):
        def fsync_directory(self, path: Path) -> None:
            if path == Path("/"):
                raise OSError(errno.EINVAL, "Invalid argument")
            super().fsync_directory(path)

    open_store(tmp_path / "d", codec=FakeCodec(), files=Files(), threaded=False).close()

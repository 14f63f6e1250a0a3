import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from amsync.errors import StorageError
from amsync.storage.documents import DocumentFiles
from amsync.storage.volume import Volume
from support.fakecodec import make_chunk
from support.memfs import MemoryFileSystem

from .conftest import ROOT
from .shapes import document

ONE = document(1)
FOLDER = ROOT / ONE[:2] / ONE[2:]


@pytest.fixture
def documents(memory: MemoryFileSystem) -> DocumentFiles:
    return DocumentFiles(Volume.open(ROOT, files=memory))


def files_of(memory: MemoryFileSystem) -> dict[str, bytes]:
    return memory.tree(FOLDER)


def test_names_are_those_that_automerge_repo_gives(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    # keyHash(chunk) and headsHash(heads) of automerge-repo 2.5's keyHash.ts, by hand.
    heads = [bytes([1]) * 32, bytes([0xAB]) * 32]

    incremental = documents.write_incremental(ONE, b"abc")
    snapshot = documents.write_snapshot(ONE, b"saved", heads)

    assert incremental == FOLDER / "incremental" / (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    text = b"01" * 32 + b"ab" * 32
    assert snapshot == FOLDER / "snapshot" / hashlib.sha256(text).hexdigest()
    assert files_of(memory) == {
        f"incremental/{incremental.name}": b"abc",
        f"snapshot/{snapshot.name}": b"saved",
    }


def test_a_folder_of_automerge_repo_is_read_snapshots_first(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    memory.put(FOLDER / "incremental" / "aa", b"change")
    memory.put(FOLDER / "incremental" / "bb", b"")
    memory.put(FOLDER / "snapshot" / "cc", b"saved")
    memory.put(FOLDER / "sync-state" / "peer", b"state")

    assert [blob.data for blob in documents.read(ONE)] == [b"saved", b"change", b""]
    assert [size.size_bytes for size in documents.sizes(ONE)] == [5, 6, 0]


def test_foreign_names_are_not_documents(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    # automerge-repo keeps its adapter id in st/, where this document belongs too.
    starts_with_st = document(((50 * 58 + 51) * 58**25 + 58**25 // 2) >> 32)
    assert starts_with_st[:2] == "st"
    for name in (ONE, starts_with_st):
        memory.put(ROOT / name[:2] / name[2:] / "snapshot" / "aa", b"saved")
    deleted = document(2)
    memory.put(ROOT / deleted[:2] / deleted[2:] / "sync-state" / "peer", b"state")
    memory.put(ROOT / "ab" / "settings" / "x", b"an application's own key")
    memory.put(ROOT / "00" / "0Ol" / "snapshot" / "x", b"no base58")
    memory.put(ROOT / "README", b"")

    assert sorted(documents.ids()) == sorted([ONE, starts_with_st])
    assert not documents.paths(deleted)


def test_a_file_that_vanishes_is_listed_again(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    old = documents.write_incremental(ONE, b"old")
    read = memory.read

    def read_after_compaction(path: Path) -> bytes:
        if path == old:
            memory.read = read  # type: ignore[method-assign]
            documents.replace(ONE, b"new", [b"h" * 32], [old])
        return read(path)

    memory.read = read_after_compaction  # type: ignore[method-assign]

    assert [blob.data for blob in documents.read(ONE)] == [b"new"]


def test_files_that_always_vanish_are_an_error(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    documents.write_incremental(ONE, b"old")

    def vanished(path: Path) -> bytes:
        raise FileNotFoundError(str(path))

    memory.read = vanished  # type: ignore[method-assign]

    with pytest.raises(StorageError, match="vanish"):
        documents.read(ONE)


@pytest.mark.parametrize("write", ["incremental", "snapshot"])
def test_other_content_under_the_same_name_is_kept(
    memory: MemoryFileSystem, documents: DocumentFiles, write: str
) -> None:
    writers: dict[str, Callable[[bytes], Path]] = {
        "incremental": lambda data: documents.write_incremental(ONE, data),
        "snapshot": lambda data: documents.write_snapshot(ONE, data, [b"h" * 32]),
    }
    first = writers[write](b"whole")
    memory.put(first, b"who")

    second = writers[write](b"whole")

    assert second != first
    assert sorted(files_of(memory).values()) == [b"who", b"whole"]
    assert writers[write](b"whole") == second


def test_replace_removes_its_inputs_and_nothing_else(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    first = documents.write_incremental(ONE, b"first")
    documents.write_incremental(ONE, b"later")

    path = documents.replace(ONE, b"saved", [b"h" * 32], [first, FOLDER / "incremental" / "gone"])
    assert sorted(files_of(memory).values()) == [b"later", b"saved"]

    documents.replace(ONE, b"saved", [b"h" * 32], [path])
    assert sorted(files_of(memory).values()) == [b"later", b"saved"]


def test_a_snapshot_that_reads_back_differently_removes_nothing(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    first = documents.write_incremental(ONE, b"first")
    read = memory.read
    memory.read = lambda path: read(path) + b"x"  # type: ignore[method-assign]

    with pytest.raises(StorageError, match="reads back"):
        documents.replace(ONE, b"saved", [b"h" * 32], [first])

    memory.read = read  # type: ignore[method-assign]
    assert b"first" in files_of(memory).values()


def test_quarantine_keeps_the_file_with_a_note(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    targets = []
    for number in (1, 2):
        path = documents.write_incremental(document(number), b"the same bytes")
        targets.append(documents.quarantine(path, "torn"))

    first, second = targets
    assert first is not None
    assert second is not None
    assert first != second
    assert memory.read(first) == memory.read(second) == b"the same bytes"
    note = json.loads(memory.read(first.with_name(f"{first.name}.json")))
    assert note["why"] == "torn"
    assert note["path"].startswith(f"{ONE[:2]}/{ONE[2:]}/incremental/")
    assert not documents.paths(ONE)
    assert documents.quarantine(path, "torn") is None


def test_a_deleted_document_leaves_only_its_tombstone(
    memory: MemoryFileSystem, documents: DocumentFiles
) -> None:
    documents.write_incremental(ONE, make_chunk(b"a"))
    documents.write_snapshot(ONE, make_chunk(b"a"), [b"h" * 32])
    memory.put(FOLDER / "sync-state" / "peer", b"state")

    documents.delete(ONE)
    documents.delete(ONE)

    assert documents.is_deleted(ONE)
    assert documents.tombstones() == {ONE}
    assert not documents.paths(ONE)
    assert not [name for name in memory.tree(ROOT) if ONE[2:] in name and "tombstones" not in name]

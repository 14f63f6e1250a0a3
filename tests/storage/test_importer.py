from pathlib import Path

import pytest

from amsync.storage import Store
from amsync.storage.compaction import LEAST_INCREMENTAL_BYTES
from support.fakecodec import make_chunk
from support.memfs import MemoryFileSystem

from .conftest import ROOT, OpenStore
from .shapes import bodies, changes, commit, document

ONE, TWO = document(1), document(2)
FLAT = ROOT / f"{ONE}.automerge"


def kinds(store: Store) -> list[str]:
    return [finding.kind for finding in store.report()]


def test_a_flat_file_is_there_at_the_first_answer_and_the_original_untouched(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(FLAT, make_chunk(b"r"))

    store = open_memory()

    assert bodies(store, ONE) == {b"r"}
    assert store.list_ids() == [ONE]
    assert memory.read(FLAT) == make_chunk(b"r")


def test_a_flat_file_is_merged_with_what_is_there(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(ROOT / ONE[:2] / ONE[2:] / "incremental" / "aa", make_chunk(b"js"))
    memory.put(FLAT, make_chunk(b"r"))

    assert bodies(open_memory(), ONE) == {b"r", b"js"}


def test_a_second_start_takes_nothing_in_again(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(FLAT, make_chunk(b"r"))
    store = open_memory()
    commit(store, changes({ONE: [b"a" * LEAST_INCREMENTAL_BYTES]}))
    store.checkpoint()
    assert store.compact_if_due(ONE)
    store.close()
    before = memory.tree(ROOT / ONE[:2])

    open_memory()

    assert memory.tree(ROOT / ONE[:2]) == before


def test_a_changed_flat_file_is_taken_in_again(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(FLAT, make_chunk(b"r"))
    open_memory().close()
    memory.put(FLAT, make_chunk(b"r") + make_chunk(b"later"))

    assert bodies(open_memory(), ONE) == {b"r", b"later"}


@pytest.mark.parametrize("blob", [b"", b"torn", make_chunk(b"r")[:-1]], ids=repr)
def test_a_bad_flat_file_is_reported_and_left(
    memory: MemoryFileSystem, open_memory: OpenStore, blob: bytes
) -> None:
    memory.put(FLAT, blob)
    memory.put(ROOT / f"{TWO}.automerge", make_chunk(b"good"))

    store = open_memory()

    assert store.list_ids() == [TWO]
    assert kinds(store) == ["bad_import"]
    assert memory.read(FLAT) == blob


def test_a_flat_file_with_a_foreign_name_is_reported_and_left(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(ROOT / "notes.automerge", make_chunk(b"x"))
    memory.put(ROOT / ".automerge" / "x", b"")

    store = open_memory()

    assert store.list_ids() == []
    assert kinds(store) == ["foreign_name"]


def test_a_flat_file_with_orphans_is_taken_in_as_it_is(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(FLAT, make_chunk(b"orphan"))

    store = open_memory()

    assert bodies(store, ONE) == {b"orphan"}
    assert [path.parent.name for path in store.load(ONE).paths if path] == ["incremental"]


def test_a_deleted_document_is_not_brought_back(
    memory: MemoryFileSystem, open_memory: OpenStore
) -> None:
    memory.put(FLAT, make_chunk(b"r"))
    store = open_memory()
    store.delete(ONE)
    store.close()
    memory.put(FLAT, make_chunk(b"later"))

    store = open_memory()

    assert store.is_deleted(ONE)
    assert store.list_ids() == []
    assert memory.read(FLAT) == make_chunk(b"later")


def test_real_files_are_taken_in(tmp_path: Path, open_real: OpenStore) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / f"{ONE}.automerge").write_bytes(make_chunk(b"r"))

    open_real().close()

    assert bodies(open_real(), ONE) == {b"r"}
    assert len(list((root / ONE[:2] / ONE[2:] / "snapshot").iterdir())) == 1

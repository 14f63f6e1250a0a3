"""Pages of the list of documents: from the log and the folders, and what they cost."""

from pathlib import Path

import pytest

from amsync.ids import DocumentId
from amsync.storage.files import Entry
from support.memfs import MemoryFileSystem

from .conftest import ROOT, OpenStore
from .shapes import changes, commit, document, tombstone

NAMES = sorted(document(number) for number in range(1, 40))


def anything(_: DocumentId) -> bool:
    return True


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_put_log_and_folders_together(open_memory: OpenStore, size: int) -> None:
    store = open_memory()
    commit(store, changes({name: [b"a"] for name in NAMES[::2]}))
    store.checkpoint()
    commit(store, changes({name: [b"b"] for name in NAMES[1::2] + NAMES[:3]}))

    seen: list[DocumentId] = []
    while True:
        page = store.list_page("", seen[-1] if seen else "", size, is_wanted=anything)
        seen += page
        if len(page) < size:
            break

    assert seen == NAMES == store.list_ids()


def test_prefix_and_wish_narrow_it(open_memory: OpenStore) -> None:
    store = open_memory()
    commit(store, changes({name: [b"a"] for name in NAMES}))
    for _ in range(2):
        for length in (1, 2, 3, 10):
            prefix = NAMES[5][:length]
            wanted = [name for name in NAMES if name.startswith(prefix)]
            assert store.list_page(prefix, "", 100, is_wanted=anything) == wanted
        odd = set(NAMES[1::2])
        assert store.list_page("", NAMES[2], 3, is_wanted=odd.__contains__) == NAMES[3:9:2]
        store.checkpoint()


def test_deleted_documents_are_not_listed(open_memory: OpenStore) -> None:
    store = open_memory()
    commit(store, changes({name: [b"a"] for name in NAMES[:4]}))
    store.checkpoint()
    commit(store, tombstone(NAMES[1]))
    store.delete(NAMES[2])
    assert store.list_page("", "", 100, is_wanted=anything) == [NAMES[0], NAMES[3]]


def test_page_reads_no_folders_but_those_of_its_documents(
    memory: MemoryFileSystem, open_memory: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_memory()
    commit(store, changes({name: [b"a"] for name in NAMES}))
    store.checkpoint()
    listed: list[Path] = []
    list_directory = memory.list_directory

    def note(path: Path) -> list[Entry]:
        listed.append(path)
        return list_directory(path)

    monkeypatch.setattr(memory, "list_directory", note)
    page = store.list_page("", NAMES[9], 3, is_wanted=anything)

    assert page == NAMES[10:13]
    folders = {ROOT / name[:2] / name[2:] for name in page}
    kinds = [each for each in listed if each.name in ("snapshot", "incremental")]
    assert {each.parent for each in kinds} == folders
    assert len(listed) == len(kinds) + 2

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amsync.storage import Store, open_store
from support.fakecodec import FakeCodec
from support.memfs import MemoryFileSystem

ROOT = Path("/data/.automerge")

OpenStore = Callable[..., Store]


@pytest.fixture
def memory() -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.put(Path("/data/other"), b"")
    return files


@pytest.fixture
def open_memory(memory: MemoryFileSystem) -> OpenStore:
    def open_it(**options: object) -> Store:
        chosen: dict[str, object] = {"codec": FakeCodec(), "files": memory, "threaded": False}
        return open_store(ROOT, **{**chosen, **options})  # type: ignore[arg-type]

    return open_it


@pytest.fixture
def open_real(tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[Store] = []

    def open_it(root: Path = tmp_path / "data", **options: object) -> Store:
        chosen: dict[str, object] = {"codec": FakeCodec()}
        opened.append(open_store(root, **{**chosen, **options}))  # type: ignore[arg-type]
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()

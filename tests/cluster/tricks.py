"""A worker that does strange things at moments that nobody can hit from outside.

    python tricks.py worker ...

What it does is asked for by files in the folder that TRICKS names:
`stop-before-publish`: removed, and the process stops itself (SIGSTOP) after the next commit of
changes, before anybody is told of it. `hold-load`: while it is there, documents that are being
read are not finished; `loading` is made when one is. In `born` processes note the names that they
make: where HIDE_SECONDS is set, the volume counts as one on a network, each process as a machine of
its own, and such a name is not there for the others before it is so old.
"""

import hashlib
import importlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from amsync.cli import main
from amsync.storage import RealFileSystem, Store, WalBatch

FOLDER = Path(os.environ["TRICKS"])
HIDE_SECONDS = float(os.environ.get("HIDE_SECONDS", "0"))
HOLD_SECONDS = 0.02

_commit, _load = Store.commit, Store.load


async def _commit_and_stop(store: Store, batch: WalBatch) -> Any:
    result = await _commit(store, batch)
    trigger = FOLDER / "stop-before-publish"
    if batch.changes and trigger.exists():
        trigger.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
    return result


def _load_slowly(store: Store, document_id: Any) -> Any:
    result = _load(store, document_id)
    while (FOLDER / "hold-load").exists():
        (FOLDER / "loading").touch()
        time.sleep(HOLD_SECONDS)
    return result


def _birth(path: Path) -> Path:
    return FOLDER / "born" / hashlib.sha1(os.fsencode(path), usedforsecurity=False).hexdigest()


def _note(path: Path, is_new: bool) -> None:
    if is_new:
        _birth(path).write_text(str(os.getpid()))


def _look(path: Path) -> None:
    for each in (path, path.parent):
        if _is_hidden(each):
            raise FileNotFoundError(2, "not seen yet", str(each))


def _is_hidden(path: Path) -> bool:
    birth = _birth(path)
    try:
        is_fresh = time.time() - birth.stat().st_mtime < HIDE_SECONDS
        return is_fresh and birth.read_text() != str(os.getpid())
    except FileNotFoundError:
        return False


class _LateNames(RealFileSystem):
    """A file system on which the names that other machines make show late."""

    def is_networked(self, path: Path) -> bool:
        return True

    def machine_id(self) -> str:
        return f"machine-{os.getpid()}"

    def create(self, path: Path) -> Any:
        made = super().create(path)
        _note(path, True)
        return made

    def rename(self, source: Path, target: Path) -> None:
        is_new = not target.exists()
        super().rename(source, target)
        _note(target, is_new)

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        _note(path, True)

    def read(self, path: Path) -> bytes:
        _look(path)
        return super().read(path)

    def stat(self, path: Path) -> Any:
        _look(path)
        return super().stat(path)

    def list_directory(self, path: Path) -> Any:
        _look(path)
        return [
            entry for entry in super().list_directory(path) if not _is_hidden(path / entry.name)
        ]

    def lock(self, path: Path, *, shared: bool = False) -> Any:
        if shared:
            _look(path)
        is_new = not path.exists()
        held = super().lock(path, shared=shared)
        _note(path, is_new and not shared)
        return held


if __name__ == "__main__":
    Store.commit = _commit_and_stop  # type: ignore[method-assign,assignment]
    Store.load = _load_slowly  # type: ignore[method-assign]
    if HIDE_SECONDS:
        (FOLDER / "born").mkdir(exist_ok=True)
        volume: Any = importlib.import_module("amsync.storage.opening")
        volume.RealFileSystem = _LateNames
    main()

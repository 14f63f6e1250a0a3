"""A worker that does strange things at moments that nobody can hit from outside.

    python tricks.py worker ...

What it does is asked for by files in the folder that TRICKS names:
`stop-before-publish`: removed, and the process stops itself (SIGSTOP) after the next commit of
changes, before anybody is told of it. `hold-load`: while it is there, documents that are being
read are not finished; `loading` is made when one is.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from amsync.cli import main
from amsync.storage import Store, WalBatch

FOLDER = Path(os.environ["TRICKS"])
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


if __name__ == "__main__":
    Store.commit = _commit_and_stop  # type: ignore[method-assign,assignment]
    Store.load = _load_slowly  # type: ignore[method-assign]
    main()

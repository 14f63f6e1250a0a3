"""The programs of docs/start.md and docs/guarantees.md do what these pages say."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from amsync import Server

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "tests" / "js" / "node_modules"
DEFAULT_URL = "ws://127.0.0.1:3030"

pytestmark = pytest.mark.node


def program(page: str, folder: Path, url: str, before: str = "", behind: str = "") -> Path:
    """The page's first JavaScript, with the server's URL, where it finds its packages."""
    assert shutil.which("node"), "Node 20 or newer is missing"
    assert MODULES.exists(), "the JavaScript packages are missing: make test"
    found = re.search(r"```js\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert found is not None
    assert DEFAULT_URL in found[1]
    (folder / "node_modules").symlink_to(MODULES)
    path = folder / "program.mjs"
    path.write_text(before + found[1].replace(DEFAULT_URL, url) + behind)
    return path


@contextmanager
def running(*command: str | Path) -> Iterator[Iterator[str]]:
    """A Node program; gives its lines, which end when it does."""
    with subprocess.Popen(["node", *command], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield (line.rstrip("\n") for line in process.stdout)
        finally:
            process.kill()


def test_two_clients_of_the_start_share_a_list(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path / "data") as server, ExitStack() as stack:
        script = program("start.md", tmp_path, server.url)

        first = stack.enter_context(running(script))
        url, _, items = next(first).partition(" ")
        assert items == "[]"
        second = stack.enter_context(running(script, url, "hello"))

        assert next(second) == f"{url} []"
        assert next(second) == "[ 'hello' ]"
        assert next(first) == "[ 'hello' ]"


IMPORTS = """
import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
"""
TELL = """
handle.on("remote-heads", ({ heads }) => {
  if (heads.join() === handle.heads().join()) console.log("saved", handle.doc().n)
})
await repo.networkSubsystem.whenReady()
handle.change(doc => { doc.n = 1 })
"""


def test_a_client_hears_that_its_edit_is_saved(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path / "data") as server:
        script = program("guarantees.md", tmp_path, server.url, IMPORTS, TELL)
        text = script.read_text().replace("handle.on", "const handle = repo.create()\nhandle.on", 1)
        script.write_text(text)

        with running(script) as lines:
            assert "saved 1" in lines

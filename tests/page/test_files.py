"""The operator's page as files: which there are, and what a browser is told about them.

How the page looks and works is in test_page.py.
"""

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from aiohttp import ClientSession

from amsync import Server
from amsync.admin import AdminServer
from amsync.gateway.page.serving import FILES, KINDS, names
from amsync.metrics import Metrics

IMPORT = re.compile(r'^(?:import|export)\b[^"\n]*(?:\n[^"\n]*)*?"(\.[^"]+)"', re.MULTILINE)
LOADED = re.compile(r'(?:href|src)="([^"#]+)"')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("data")
    with Server(data_dir=folder, admin_port=0, admin_token="the-operators-token") as server:
        yield server


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, Message, str]:
    """Status, headers and body."""
    request = urllib.request.Request(f"{server.admin_url}{path}", headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def test_every_file_is_served_with_its_kind(server: Server) -> None:
    for name in names():
        status, headers, body = get(server, f"/page/{name}")
        assert status == 200, name
        assert headers["Content-Type"] == f"{KINDS[Path(name).suffix]}; charset=utf-8"
        assert body == (FILES / name).read_text()
    status, headers, body = get(server, "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body == (FILES / "index.html").read_text()


def test_every_file_in_the_folder_is_of_a_known_kind() -> None:
    """Others would be left out of the wheel, and not served."""
    assert {path.suffix for path in FILES.rglob("*") if path.is_file()} == set(KINDS)


def test_page_needs_no_token_and_no_token_needs_to_exist(tmp_path: Path) -> None:
    with Server(data_dir=tmp_path / "data", admin_port=0) as server:
        assert get(server, "/")[0] == 200
        assert get(server, "/page/app.js")[0] == 200


@pytest.mark.parametrize("path", ["/", "/page/app.js", "/page/style.css"])
def test_browser_is_told_to_trust_nothing_else(server: Server, path: str) -> None:
    headers = get(server, path)[1]
    policy = dict(
        each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/page/app.js"])
def test_file_is_asked_for_again_and_sent_again_only_if_it_has_changed(
    server: Server, path: str
) -> None:
    _, headers, _ = get(server, path)
    assert headers["Cache-Control"] == "no-cache"
    tag = headers["ETag"]

    known = {"If-None-Match": f'"other", {tag}'}
    status, again, body = get(server, path, **known)
    assert (status, again["ETag"], again["Cache-Control"], body) == (304, tag, "no-cache", "")

    other = {"If-None-Match": '"other"'}
    assert get(server, path, **other)[0] == 200


def test_files_have_tags_of_their_own(server: Server) -> None:
    tags = {get(server, f"/page/{name}")[1]["ETag"] for name in names()}
    assert len(tags) == len(names())


def test_nothing_can_be_sent_to_the_page(server: Server) -> None:
    assert get(server, "/", "POST")[0] == 405
    status, headers, body = get(server, "/", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 100


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/index.html", "/page/../serving.py", "/page/%2e%2e/serving.py", "/page/x"],
)
def test_nothing_but_the_files_is_served(server: Server, path: str) -> None:
    assert get(server, path)[0] == 404


def test_port_without_a_page_says_where_it_is() -> None:
    """That of a worker."""

    async def ask() -> tuple[int, str]:
        admin = AdminServer(Metrics(), reasons=list, refresh=lambda: None)
        port = await admin.start("127.0.0.1", 0)
        try:
            async with (
                ClientSession() as session,
                session.get(f"http://127.0.0.1:{port}/") as found,
            ):
                return found.status, await found.text()
        finally:
            await admin.stop()

    status, text = asyncio.run(ask())
    assert status == 404
    assert "gateway" in text


def test_all_that_is_loaded_is_there() -> None:
    """A module that is missing would be an empty page."""
    index = (FILES / "index.html").read_text()
    loaded = set(LOADED.findall(index))
    for name in names():
        path = FILES / name
        if path.suffix == ".js":
            for found in IMPORT.findall(path.read_text()):
                target = (path.parent / found).resolve()
                loaded.add(f"page/{target.relative_to(FILES.resolve())}")
    assert loaded == {f"page/{name}" for name in names()}


def test_nothing_is_loaded_from_elsewhere_and_no_html_is_made() -> None:
    for path in (path for path in FILES.rglob("*") if path.is_file()):
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]", text), path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write", text), path
        assert not re.search(r"\beval\(|new Function|\bstyle=|<style|localStorage|cookie", text), (
            path
        )

"""Our client in Chromium: comes in, edits, is renewed, restricted, kicked, and stays away.

Each step is looked at from the page and from the server. Fails where there is no Chromium; the
pictures of each step are beside the test's other files.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from amsync import Server, TLSConfig
from jsclient.browser import Browser, Site
from jsclient.clients import Clients
from jsclient.conftest import Serve
from support.issuer import IssuerServer

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def browser(tmp_path: Path, odd: IssuerServer, pair: TLSConfig) -> Iterator[Browser]:
    with Browser(tmp_path / "browser.log", [pair.cert, odd.ca]) as browser:
        yield browser


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve()


@pytest.fixture
def site(odd: IssuerServer, browser: Browser, server: Server) -> Site:
    return Site(odd, browser.bundle(), server.url)


def wait_server(server: Server, document_id: str, items: list[str]) -> None:
    """Until the server has them."""
    deadline = time.monotonic() + 20
    while (found := server.get_document(document_id)) is None or found.value != {"list": items}:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def test_page_in_all_that_can_happen_to_it(
    server: Server,
    issuer: IssuerServer,
    site: Site,
    browser: Browser,
    clients: Clients,
    tmp_path: Path,
) -> None:
    colleague = clients.come(server.url, issuer.token(sub="colleague"), wait=True)
    long = issuer.token(sub="user", exp=int(time.time()) + 600)
    short = issuer.token(sub="user", exp=int(time.time()) + 6)
    site.token = lambda reason: short if reason == "first" else long

    # It comes in, and edits.
    browser.open(site.url)
    browser.wait_status("connected")
    document_id = browser.app("create()")
    browser.app("edit('one')")
    wait_server(server, document_id, ["one"])
    theirs = colleague.find(document_id)
    theirs.edit(["push", ["list"], "two"])
    browser.wait_list(["one", "two"])
    browser.screenshot(tmp_path / "1-in.png")

    # Its token ends while it edits.
    written = ["one", "two"]
    while browser.app("statuses.length") == 2:
        written.append(f"edit {len(written)}")
        browser.app(f"edit('{written[-1]}')")
    browser.wait_status("connected", count=2)
    wait_server(server, document_id, written)
    assert browser.app("asked") == ["first", "expired"]
    assert [each["closed"] for each in browser.sockets()] == [True, False]
    browser.screenshot(tmp_path / "2-renewed.png")

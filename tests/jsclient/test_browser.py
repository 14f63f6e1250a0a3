"""Our client in Chromium: comes in, edits, is renewed, restricted, kicked, and stays away.

Each step is looked at from the page and from the server. Fails where there is no Chromium; the
pictures of each step are beside the test's other files.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsync import Limits, Server, TLSConfig
from amsync.version import API_PATH
from jsclient.browser import AppBrowser, Site
from jsclient.clients import Clients
from jsclient.conftest import Serve
from support.issuer import IssuerServer

ADMIN_TOKEN = "the-token-of-the-operator"
pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def browser(
    tmp_path_factory: pytest.TempPathFactory, odd_session: IssuerServer, pair: TLSConfig
) -> Iterator[AppBrowser]:
    log = tmp_path_factory.mktemp("browser") / "browser.log"
    with AppBrowser(log, [pair.cert, odd_session.ca]) as browser:
        yield browser


@pytest.fixture
def open_page(odd: IssuerServer, browser: AppBrowser) -> Iterator[Callable[..., Site]]:
    """Show the page, which gets its tokens from a function of the reason; nothing may be thrown."""

    def show(server: Server, token: Callable[[str], str | None]) -> Site:
        site = Site(odd, browser.program, server.url)
        site.token = token
        browser.open(site.url)
        return site

    yield show
    assert browser.complaints() == []


def order(server: Server, what: str, body: dict[str, str]) -> dict[str, Any]:
    """Ask for something at the admin port."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    url = f"{server.admin_url}{API_PATH}/access/{what}"
    asked = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def wait_server(server: Server, document_id: str, items: list[str]) -> None:
    """Until the server has them."""
    deadline = time.monotonic() + 20
    while (found := server.get_document(document_id)) is None or found.value != {"list": items}:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


class TestRefusals:
    """A browser hides why an upgrade was refused; what the page asks instead is readable."""

    def test_page_learns_that_its_token_is_not_accepted(
        self,
        serve: Serve,
        issuer: IssuerServer,
        odd: IssuerServer,
        browser: AppBrowser,
        open_page: Any,
    ) -> None:
        server, token = serve(allowed_origins=[odd.url]), issuer.token(aud="somebody-else")
        open_page(server, lambda reason: token)

        status = browser.wait_status("stopped")

        assert status == {
            "state": "stopped",
            "reason": "unauthorized",
            "detail": "audience refused",
        }
        assert browser.app("asked") == ["first", "refused"]
        assert any("failed" in line for line in browser.logged())
        assert not any(token in line for line in browser.logged())

    def test_page_learns_that_its_user_may_not_come_in(
        self,
        serve: Serve,
        issuer: IssuerServer,
        odd: IssuerServer,
        browser: AppBrowser,
        open_page: Any,
    ) -> None:
        auth = {"required_claims": {"role": "editor"}}
        server = serve(auth=auth, allowed_origins=[odd.url])
        open_page(server, lambda reason: issuer.token())

        status = browser.wait_status("stopped")

        assert status == {"state": "stopped", "reason": "forbidden", "detail": "claim refused"}
        assert browser.app("asked") == ["first"]

    def test_page_learns_how_long_it_has_to_wait(
        self,
        serve: Serve,
        issuer: IssuerServer,
        odd: IssuerServer,
        browser: AppBrowser,
        open_page: Any,
        clients: Clients,
    ) -> None:
        limits = Limits(handshakes_per_minute=1)
        server = serve(limits=limits, allowed_origins=[odd.url])
        clients.come(server.url, issuer.token(), wait=True)
        open_page(server, lambda reason: issuer.token())

        status = browser.wait_status("waiting")

        assert (status["reason"], status["detail"]) == ("busy", "too many handshakes")
        assert status["retryInMs"] >= 5000

    def test_page_of_an_origin_that_is_not_allowed_learns_nothing(
        self, serve: Serve, issuer: IssuerServer, browser: AppBrowser, open_page: Any
    ) -> None:
        server = serve(allowed_origins=["https://app.example.org"])
        open_page(server, lambda reason: issuer.token())

        status = browser.wait_status("waiting", count=2)

        assert status["reason"] == "network"
        assert "detail" not in status


def test_page_in_all_that_can_happen_to_it(
    serve: Serve,
    issuer: IssuerServer,
    odd: IssuerServer,
    open_page: Any,
    browser: AppBrowser,
    clients: Clients,
    tmp_path: Path,
) -> None:
    server = serve(allowed_origins=[odd.url], admin_port=0, admin_token=ADMIN_TOKEN)
    user = {"issuer": issuer.url, "subject": "user"}
    colleague = clients.come(server.url, issuer.token(sub="colleague"), wait=True)

    tokens: list[str] = []

    def token(reason: str) -> str:
        """A short one, and then a long one that the application keeps."""
        if len(tokens) < 2:
            expires = int(time.time()) + (600 if tokens else 6)
            tokens.append(issuer.token(sub="user", exp=expires))
        return tokens[-1]

    # It comes in, and edits.
    open_page(server, token)
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
    browser.wait_sockets(True, False)
    browser.screenshot(tmp_path / "2-renewed.png")

    # It is made read-only: its edits stay with it, others' come, and nothing goes round.
    restriction = {**user, "document_id": document_id, "access": "read"}
    assert order(server, "restrict", restriction)["connections_here"] == 1
    frames = browser.frames()
    for number in range(5):
        browser.app(f"edit('refused {number}')")
    theirs.edit(["push", ["list"], "from outside"])
    browser.wait("app.list().includes('from outside')")
    theirs.edit(["push", ["list"], "and more"])
    browser.wait("app.list().includes('and more')")
    wait_server(server, document_id, [*written, "from outside", "and more"])
    assert len(browser.app("list()")) == len(written) + 7
    assert browser.frames() - frames < 40
    assert browser.app("status().state") == "connected"
    browser.screenshot(tmp_path / "3-read-only.png")

    # It is kicked.
    assert order(server, "kick", user)["closed_here"] == 1
    stopped = browser.wait_status("stopped")
    assert (stopped["reason"], stopped["detail"]) == ("withdrawn", "access was withdrawn")
    browser.wait_sockets(True, True)
    browser.screenshot(tmp_path / "4-kicked.png")

    # It can't come back with what it has; it goes on working by itself, and nothing is thrown.
    browser.app("retry()")
    stopped = browser.wait_status("stopped", count=2)
    assert (stopped["reason"], stopped["detail"]) == ("forbidden", "kicked")
    browser.app("edit('alone')")
    assert browser.app("list()")[-1] == "alone"
    assert browser.app("status().state") == "stopped"
    browser.wait_sockets(True, True, True)
    wait_server(server, document_id, [*written, "from outside", "and more"])
    browser.screenshot(tmp_path / "5-refused.png")

"""The operator's page in Chromium, at real servers with real clients.

Each test looks from the page and from the server; nothing may come up in the console, so that the
page keeps to its own policy. Pictures of all views are beside the other files of
`test_views_look_right`.
"""

import contextlib
import errno
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amsync import Server, node
from amsync.errors import StorageFull
from amsync.storage import open_store
from interop.driver import Driver
from page.conftest import Serve
from page.operator_page import HOSTILE, TOKEN, VIEWS, OperatorPage
from support.memfs import MemoryFileSystem
from support.rawclient import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.node]


class TestSigningIn:
    def test_wrong_token_is_refused_and_the_right_one_opens_the_page(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        page.visit(serve().admin_url, token=None)
        page.wait_heading("Sign in to this server")
        assert page.focused() == "token"

        page.type("wrong")
        page.press("Enter")
        page.wait_text("This token is not accepted.")

        page.type(TOKEN)
        page.press("Enter")
        page.wait_heading("All is well.")

    def test_token_of_the_address_is_gone_at_once_and_lasts_over_a_reload(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        page.visit(serve().admin_url)
        assert TOKEN not in page.evaluate("location.href")
        assert page.evaluate("history.length") == 1 + 1  # about:blank is the other

        page.evaluate("location.reload()")
        page.wait_heading("All is well.")
        assert page.evaluate("document.cookie + JSON.stringify(localStorage)") == "{}"

    def test_signing_out_forgets_the_token(self, serve: Serve, page: OperatorPage) -> None:
        page.visit(serve().admin_url)
        page.click("button", "Sign out")
        page.wait_text("You have signed out.")
        assert page.evaluate("sessionStorage.length") == 0
        page.evaluate("location.reload()")
        page.wait_heading("Sign in to this server")

    def test_server_without_a_token_says_so(self, serve: Serve, page: OperatorPage) -> None:
        page.visit(serve(token=None).admin_url, token=None)
        page.fill("Admin token", "any")
        page.press("Enter")
        page.wait_text("started without an admin token")


class TestOverview:
    def test_numbers_and_plots_follow_what_clients_do(
        self, serve: Serve, page: OperatorPage, clients: Driver
    ) -> None:
        server = serve()
        page.visit(server.admin_url)
        page.wait_text("0 clients connected. 64 shards served.")

        repo = clients.connect(server.url)
        document = repo.create({"list": []})
        page.wait_text("1 client connected.")
        number = 0
        while page.fact("Messages in").startswith(("0/s", "–")):
            number += 1
            document.edit(["push", ["list"], f"item {number}"])
            assert number < 3000
        page.wait("!document.querySelectorAll('.facts dd')[3].innerText.includes('–')")

        label = "[...document.querySelectorAll('.area')].map(each => each.ariaLabel)"
        connections, messages, *_ = page.evaluate(label)
        assert connections.startswith("Connections over the last ")
        assert ": now 1, least 0, most 1." in connections
        assert "in now " in messages
        assert len(page.rows("Gateways")) == len(page.rows("Workers")) == 1

    def test_plot_tells_older_values_to_the_arrow_keys(
        self, serve: Serve, page: OperatorPage, clients: Driver
    ) -> None:
        server = serve()
        page.visit(server.admin_url)
        clients.connect(server.url)
        page.wait_text("1 client connected.")
        page.wait("document.querySelector('.area').ariaLabel.includes('now 1, least 0')")

        page.evaluate("document.querySelector('.area').focus()")
        page.press("Home")

        page.wait("/ s ago 0, least 0/.test(document.querySelector('.area').ariaLabel)")
        page.press("Escape")
        page.wait("document.querySelector('.area').ariaLabel.includes(' now 1')")

    def test_trouble_of_the_volume_is_said_and_that_it_is_over(
        self, serve: Serve, page: OperatorPage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = MemoryFileSystem()
        disk.put(Path("/volume/other"), b"")
        monkeypatch.setattr(node, "open_store", partial(open_store, files=disk))
        server = serve(data_dir="/volume/data")
        page.visit(server.admin_url)

        disk.fault = lambda _operation, path: errno.ENOSPC if path.suffix == ".wal" else None
        with pytest.raises(StorageFull):
            server.create_document(data={"a": 1})
        page.wait_heading("1 problem to look at.")
        page.wait_text("No space left on device")
        assert page.evaluate("document.querySelector('.badge').ariaLabel") == "1 problem"
        page.wait("document.querySelector('#spoken').innerText === '1 problem to look at.'")

        disk.fault = lambda _operation, _path: None
        page.wait_heading("All is well.")


class TestShards:
    def test_shards_are_squares_that_arrow_keys_choose(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        page.visit(serve().admin_url)
        page.go("shards")
        page.wait_text("64 shards, each with an owner. Nothing waits to be done.")
        assert page.evaluate("document.querySelectorAll('.owner .square').length") == 64

        page.evaluate("document.querySelector('.square').focus()")
        page.press("ArrowRight", "ArrowRight")

        page.wait_text("Shard 2: epoch ")
        assert page.evaluate("document.querySelectorAll('.square[tabindex=\"0\"]').length") == 1
        page.press("End")
        page.wait_text("Shard 63: epoch ")

    def test_shards_are_listed_too(self, serve: Serve, page: OperatorPage) -> None:
        page.visit(serve().admin_url)
        page.go("shards?as=table")
        rows = page.rows("Shards, those without an owner and the latest first")
        assert [row[0] for row in rows] == [str(each) for each in range(64)]

    @pytest.mark.parametrize("width", [360, 1280])
    def test_thousand_shards_of_a_cluster_in_trouble_are_readable(
        self, serve: Serve, page: OperatorPage, width: int, tmp_path: Path
    ) -> None:
        owners = ["", "a" * 32, "b" * 32, "c" * 32]
        shards = [
            {
                "shard": number,
                "owner": owners[number % 4 if number % 8 < 4 else 1],
                "epoch": 3,
                "documents": number,
                "lag_entries": 1500 if number % 9 == 8 else 0,
                "lag_bytes": 2_000_000,
            }
            for number in range(1024)
        ]
        workers = [{"worker_id": each, "host": f"host-{each[0]}"} for each in owners[1:]]
        page.see(width)
        page.visit(serve().admin_url)
        page.go("shards")
        page.evaluate(
            f"""import("./page/views/shards.js").then(shards => {{
              const cluster = {json.dumps({"shards": shards, "workers": workers})}
              const view = shards.open({{ cluster }}, {{ query: new URLSearchParams() }})
              document.querySelector("main").replaceChildren(view.element)
              view.update()
            }})"""
        )
        page.screenshot(tmp_path / "shards.png", whole=True)

        groups = "[...document.querySelectorAll('.owner')]"
        names = page.evaluate(f"{groups}.map(each => each.querySelector('h2').innerText)")
        assert names == ["Nobody", "aaaaaaaa host-a", "bbbbbbbb host-b", "cccccccc host-c"]
        sizes = page.evaluate(f"{groups}.map(each => each.querySelectorAll('.square').length)")
        assert sizes == [128, 640, 128, 128]
        late = [each for each in shards if each["lag_entries"]]
        page.wait_text(f"in {len(late)} shards: the filled squares.")
        assert page.evaluate("document.querySelectorAll('.late').length") == len(late)
        cut = "[...document.querySelectorAll('.square')].filter(e => e.scrollWidth > e.clientWidth)"
        assert page.evaluate(f"{cut}.length") == 0
        assert not page.is_wide()
        assert page.contrasts() == []


class TestConnections:
    def test_more_connections_than_fit_are_on_a_next_page(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        with contextlib.ExitStack() as stack:
            for number in range(101):
                client = stack.enter_context(RawClient(server.url, peer_id=f"peer{number}"))
                client.join()
            page.visit(server.admin_url or "")
            page.go("connections")
            page.wait_row("Connections", "peer0")
            assert len(page.rows("Connections")) == 100

            page.click("link", "Next page")

            page.wait_row("Connections", "peer100")
            assert len(page.rows("Connections")) == 1

    def test_client_is_kicked(self, serve: Serve, page: OperatorPage) -> None:
        server = serve()
        with RawClient(server.url, peer_id="somebody") as client:
            client.join()
            page.visit(server.admin_url)
            page.go("connections")
            assert page.wait_row("Connections", "somebody")[1:3] == ["no token", "127.0.0.1"]

            page.click("button", "Kick…")
            page.wait_text("Peer somebody")
            page.press("Escape")
            client.ping()
            page.click("button", "Kick…")
            page.click("button", "Kick")

            assert client.wait_closed()[0] == 1012
        page.wait_text("1 connection closed at this gateway.")
        page.wait_text("Nobody is connected here.")


class TestQuarantine:
    def test_files_that_were_set_aside_are_listed_with_their_reason(
        self, serve: Serve, page: OperatorPage, tmp_path: Path
    ) -> None:
        first = serve()
        document_id = first.create_document(data={"a": 1})
        first.close()
        folder = tmp_path / "data" / document_id[:2] / document_id[2:] / "incremental"
        folder.mkdir(exist_ok=True)
        (folder / "<b>bad").write_bytes(b"nonsense")
        page.visit(serve().admin_url)
        page.go(f"documents/{document_id}")
        page.wait_text("a: 1")

        page.go("quarantine")

        page.wait_text("1 file that could not be read, set aside on the volume.")
        file, document, size, at, why = page.wait_row("Files set aside", ".amsync/quarantine/")
        assert file.endswith("<b>bad")
        assert (document, size) == (document_id, "8 B")
        assert at.startswith("20")
        assert why != "none"
        page.click("link", document_id)
        page.wait_heading(document_id)


class TestTrouble:
    def test_server_that_is_gone_is_said_and_the_page_comes_back_by_itself(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        url = server.admin_url
        port = int(url.rpartition(":")[2])
        page.visit(url)
        server.close()
        page.wait_text("The server does not answer.")
        page.wait_text("no answer")
        page.wait_heading("All is well.")  # what was heard last stays

        serve(admin_port=port)

        page.wait_gone("The server does not answer.")
        page.wait_text("live")

    def test_token_that_holds_no_longer_is_asked_for_again(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        port = int(server.admin_url.rpartition(":")[2])
        page.visit(server.admin_url)
        page.go("documents")
        server.close()

        serve(admin_port=port, token="another-operators-token")

        page.wait_text("The token is no longer accepted.")
        page.fill("Admin token", "another-operators-token")
        page.press("Enter")
        page.wait_heading("Documents")

    def test_slow_answer_is_said(self, serve: Serve, page: OperatorPage) -> None:
        page.visit(serve().admin_url)
        page.call("hold", {"ending": "/cluster"})
        page.wait_text("waiting")
        page.call("release", {})
        page.wait_text("live")

    def test_nothing_is_asked_while_nobody_looks(self, serve: Serve, page: OperatorPage) -> None:
        page.visit(serve().admin_url)
        hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
        tell = "document.dispatchEvent(new Event('visibilitychange'))"
        asked = "performance.getEntriesByType('resource').length"
        page.evaluate(f"void ({hide % 'true'}, {tell})")
        time.sleep(0.5)  # an answer that was under way
        count = page.evaluate(asked)
        time.sleep(2.5)
        assert page.evaluate(asked) == count

        page.evaluate(f"void ({hide % 'false'}, {tell})")
        page.wait(f"{asked} > {count}")


class TestLooks:
    @pytest.fixture
    def busy(self, serve: Serve, clients: Driver) -> Server:
        server = serve()
        repo = clients.connect(server.url)
        for number in range(12):
            repo.create({"title": f"Minutes {number}", "items": [{"done": False, "n": number}]})
        server.create_document(data=HOSTILE)
        return server

    @pytest.mark.parametrize(
        ("width", "height", "scheme"),
        [
            (1280, 900, "light"),
            (1280, 900, "dark"),
            (800, 600, "light"),
            (360, 740, "light"),
            (360, 740, "dark"),
        ],
    )
    def test_views_look_right(
        self,
        busy: Server,
        page: OperatorPage,
        tmp_path: Path,
        width: int,
        height: int,
        scheme: str,
    ) -> None:
        page.see(width, height, scheme=scheme)
        page.visit(busy.admin_url, token=None)
        page.wait_heading("Sign in to this server")
        found: dict[str, Any] = {"sign-in": page.contrasts()}
        page.screenshot(tmp_path / "sign-in.png")
        page.fill("Admin token", TOKEN)
        page.press("Enter")
        page.wait_heading("All is well.")
        for view in (*VIEWS, f"documents/{busy.list_documents()[0]}"):
            if view != "overview":
                page.go(view)
            page.wait_idle()
            name = view.partition("/")[0].replace("?as=", "-") if "/" not in view else "document"
            page.screenshot(tmp_path / f"{name}.png", whole=True)
            found[name] = page.contrasts()
            assert not page.is_wide(), name
        page.click("button", "Delete…")
        page.screenshot(tmp_path / "dialog.png")
        assert not page.is_wide()
        assert found == {name: [] for name in found}

    def test_page_is_used_by_keyboard_alone(self, busy: Server, page: OperatorPage) -> None:
        page.visit(busy.admin_url, token=None)
        page.wait_heading("Sign in to this server")
        page.type(TOKEN)
        page.press("Enter")
        page.wait_heading("All is well.")
        assert page.focused() == "All is well."
        page.evaluate("location.reload()")
        page.wait_heading("All is well.")
        page.press("Tab")
        assert page.focused() == "Skip to the content"
        page.tab_to("Documents")
        page.press("Enter")
        page.wait("document.activeElement.innerText === 'Documents'")
        assert page.evaluate("document.activeElement.tagName") == "H1"
        document_id = busy.list_documents()[0]
        page.wait_row("Documents", document_id)
        page.tab_to(document_id)
        page.press("Enter")
        page.wait_heading(document_id)
        page.wait_idle()
        page.tab_to("Delete…")
        page.press("Enter")
        page.wait("document.activeElement.id === 'typed'")
        page.press("Escape")
        page.wait("document.activeElement.innerText === 'Delete…'")
        page.press("Enter")
        page.type(document_id[:6])
        page.press("Enter")
        page.wait_text(f"{document_id} was deleted.")
        page.wait("document.activeElement.innerText === 'Documents'")
        assert document_id not in busy.list_documents()

    def test_places_are_in_the_address(self, serve: Serve, page: OperatorPage) -> None:
        page.visit(serve().admin_url)
        page.click("link", "Shards")
        page.wait_heading("Shards")
        page.click("link", "Table")
        page.wait("document.querySelector('table')")
        page.evaluate("location.reload()")
        page.wait("document.querySelector('table')")
        page.wait_heading("Shards")
        page.back()
        page.wait("document.querySelector('.square')")
        page.back()
        page.wait_heading("All is well.")

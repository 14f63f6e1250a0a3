"""The operator's page in Chromium, at real servers with real clients.

Each test looks from the page and from the server; nothing may come up in the console, so that the
page keeps to its own policy. Pictures of all views are beside the other files of
`test_views_look_right`.
"""

import errno
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import amsync
from amsync import Server, node
from amsync.errors import StorageFull
from amsync.storage import open_store
from interop.driver import Driver
from page.conftest import Serve
from page.operator_page import TOKEN, VIEWS, OperatorPage
from support.memfs import MemoryFileSystem
from support.rawclient import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.node]

HOSTILE = {
    "<img src=x onerror=alert(1)>": "<script>alert(2)</script>",
    "turned": "abc\u202edef",
    "controls": "bell\u0007 and\nline",
    "\u202eyek": 1,
    "__proto__": {"constructor": "mine"},
    "": "no name",
    "digits": 9_007_199_254_740_993,
}


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


class TestDocuments:
    def test_documents_are_found_by_prefix_id_url_and_uuid(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        ids = sorted(server.create_document(data={"n": n}) for n in range(60))
        page.visit(server.admin_url)
        page.go("documents")
        page.wait_row("Documents", ids[0])
        assert [row[0] for row in page.rows("Documents")] == ids[:50]

        page.click("link", "Next page")
        page.wait_row("Documents", ids[50])
        assert [row[0] for row in page.rows("Documents")] == ids[50:]
        page.evaluate("location.reload()")
        page.wait_row("Documents", ids[50])
        page.back()
        page.wait_row("Documents", ids[0])

        page.fill("Search documents", ids[7][:5])
        page.wait("document.querySelectorAll('tbody tr').length < 50")
        expected = [each for each in ids if each.startswith(ids[7][:5])]
        assert [row[0] for row in page.rows("Documents")] == expected
        assert page.focused() == "search"

        for text in (f"automerge:{ids[3]}", f" automerge:{ids[3]}"):
            page.go("documents")
            page.fill("Search documents", text)
            page.press("Enter")
            page.wait_heading(ids[3])

        page.go("documents?prefix=none0")
        page.wait_text("No document's id begins like this.")

    def test_document_that_is_not_there_is_said_to_be_so(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        page.visit(server.admin_url)
        page.go(f"documents/{amsync.generate_document_id()}")
        page.wait_text("There is no such document.")
        page.go("documents/nonsense")
        page.wait_text("This is no document's id.")

    def test_document_is_followed_while_a_client_edits_it(
        self, serve: Serve, page: OperatorPage, clients: Driver
    ) -> None:
        server = serve()
        repo = clients.connect(server.url)
        document = repo.create({"title": "one", "inner": {"list": ["a"]}})
        document.wait_saved()
        page.visit(server.admin_url)
        page.go(f"documents/{document.id}")
        page.wait_text("“one”")
        assert page.wait_row("Peers that sync this document", repo.peer_id)[1] == "write"

        page.click("button", "Delete…")  # a dialog stays over what is brought up to date
        document.edit(["set", ["title"], "two"])
        page.wait_text("“two”")
        page.press("Escape")

        view = server.get_document(document.id)
        assert view is not None
        (head,) = view.heads
        page.wait_text(head.hex())
        page.wait("document.activeElement.innerText === 'Delete…'")

    def test_document_is_saved_deleted_and_brought_back(
        self, serve: Serve, page: OperatorPage, tmp_path: Path
    ) -> None:
        server = serve()
        document_id = server.create_document(data={"a": [1, 2]})
        page.visit(server.admin_url)
        page.go(f"documents/{document_id}")
        saved, shown = tmp_path / f"{document_id}.automerge", tmp_path / "shown.json"
        page.wait_text("Download")
        assert page.download("Download .automerge", saved) == f"{document_id}.automerge"
        assert page.download("Download JSON", shown) == f"{document_id}.json"
        assert json.loads(shown.read_text())["value"] == {"a": [1, 2]}

        page.click("button", "Delete…")
        page.type(document_id[:5])
        page.press("Enter")
        assert server.get_document(document_id) is not None
        page.type(document_id[5])
        page.press("Enter")
        page.wait_text(f"{document_id} was deleted.")
        page.wait_text("There are no documents yet.")
        assert server.list_documents() == []

        page.click("button", "Import…")
        page.upload("A saved document", saved)
        page.fill("Id to merge it into", "")
        page.click("button", "Import")
        page.wait_text(" was imported.")
        (imported,) = server.list_documents()
        page.wait_heading(imported)
        page.wait_text("list of 2 items")

    def test_file_is_merged_into_a_document(
        self, serve: Serve, page: OperatorPage, tmp_path: Path, clients: Driver
    ) -> None:
        server = serve()
        document_id = server.create_document(data={"a": 1})
        before = server.get_document(document_id)
        assert before is not None
        document = clients.connect(server.url).find(document_id)
        document.edit(["set", ["b"], 2])
        document.wait_saved()
        edited = server.get_document(document_id)
        assert edited is not None
        saved = tmp_path / "saved.automerge"
        saved.write_bytes(edited.saved)
        page.visit(server.admin_url)
        page.go(f"documents/{document_id}")

        page.click("button", "Merge a file…")
        page.upload("A saved document", saved)
        page.click("button", "Merge")

        page.wait_text(f"{document_id} has 0 new changes.")

    def test_file_that_is_none_is_refused_in_the_dialog(
        self, serve: Serve, page: OperatorPage, tmp_path: Path
    ) -> None:
        server = serve()
        page.visit(server.admin_url)
        page.go("documents")
        (tmp_path / "x.automerge").write_bytes(b"no document at all")
        page.click("button", "Import…")
        page.upload("A saved document", tmp_path / "x.automerge")
        page.click("button", "Import")
        page.wait("document.querySelector('dialog .trouble').innerText.length > 10")
        assert server.list_documents() == []

    def test_document_is_created_with_all_its_digits(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        page.visit(server.admin_url)
        page.go("documents")
        page.click("button", "Create…")
        page.fill("Content, a JSON object", '{"n": ')
        page.click("button", "Create")
        page.wait_text("The content is no JSON")
        page.fill("Content, a JSON object", '{"n": 9007199254740993}')
        page.click("button", "Create")
        page.wait_text(" was created.")
        page.wait_text("9007199254740993")
        (created,) = server.list_documents()
        view = server.get_document(created)
        assert view is not None
        assert view.value == {"n": 9_007_199_254_740_993}

    def test_text_of_others_is_text_and_nothing_in_it_is_hidden(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        document_id = server.create_document(data=HOSTILE)
        peer_id = "<img src=x onerror=alert(3)>\u202e\u200b"
        with RawClient(server.url, peer_id=peer_id) as client:
            client.join()
            client.request(document_id)
            client.receive_type("sync", document_id)
            page.visit(server.admin_url)
            page.go(f"documents/{document_id}")
            page.wait_text("<script>alert(2)</script>")
            shown = page.wait_row("Peers that sync this document", "<img")[0]
            page.go("connections")
            listed = page.wait_row("Connections", "<img")[0]
            page.back()
            page.wait_text("<img src=x onerror=alert(1)>")
            text: str = page.evaluate("document.querySelector('.tree').innerText")

        assert shown == listed == "<img src=x onerror=alert(3)>U+202EU+200B"
        assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
        assert "abcU+202Edef" in text
        assert "bellU+0007 and\\nline" in text
        assert "U+202Eyek" in text
        assert "9007199254740993" in text
        assert "__proto__" in text

    def test_document_of_many_megabytes_costs_what_is_looked_at(
        self, serve: Serve, page: OperatorPage
    ) -> None:
        server = serve()
        data = {"rows": list(range(40_000)), "bytes": os.urandom(3_750_000)}
        document_id = server.create_document(data=data)
        page.visit(server.admin_url)
        page.go(f"documents/{document_id}")
        page.wait(
            "[...document.querySelectorAll('section button')].some(e => /^Show/.test(e.innerText))"
        )
        page.evaluate("document.querySelector('[key=read]').click()")
        page.wait_text("list of 40,000 items")

        page.evaluate("document.querySelector('.tree summary').click()")
        page.wait_text("100 more of 39,900")
        page.click("button", "100 more of 39,900")
        page.wait_text("100 more of 39,800")
        page.click("button", "10,000 more of 4,999,600 characters")
        page.wait_text("10,000 more of 4,989,600 characters")

        assert page.evaluate("document.querySelectorAll('*').length") < 4_000
        assert page.evaluate("document.body.innerText.length") < 40_000


class TestConnections:
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

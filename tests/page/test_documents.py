"""Documents on the operator's page: finding, following, saving, making, and hostile ones."""

import json
import os
from pathlib import Path

import pytest

import amsync
from interop.driver import Driver
from page.conftest import Serve
from page.operator_page import HOSTILE, OperatorPage
from support.rawclient import RawClient

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.node]


def test_documents_are_found_by_prefix_id_url_and_uuid(serve: Serve, page: OperatorPage) -> None:
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


def test_document_that_is_not_there_is_said_to_be_so(serve: Serve, page: OperatorPage) -> None:
    server = serve()
    page.visit(server.admin_url)
    page.go(f"documents/{amsync.generate_document_id()}")
    page.wait_text("There is no such document.")
    page.go("documents/nonsense")
    page.wait_text("This is no document's id.")


def test_document_is_followed_while_a_client_edits_it(
    serve: Serve, page: OperatorPage, clients: Driver
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
    serve: Serve, page: OperatorPage, tmp_path: Path
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
    serve: Serve, page: OperatorPage, tmp_path: Path, clients: Driver
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
    serve: Serve, page: OperatorPage, tmp_path: Path
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


def test_document_is_created_with_all_its_digits(serve: Serve, page: OperatorPage) -> None:
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
    serve: Serve, page: OperatorPage
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
    serve: Serve, page: OperatorPage
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


def test_content_that_is_too_large_to_be_shown_is_not_asked_for_again_and_again(
    serve: Serve, page: OperatorPage
) -> None:
    server = serve()
    document_id = server.create_document(data={"zeros": bytes(13_000_000)})

    def asked(end: str) -> str:
        entries = "performance.getEntriesByType('resource')"
        return f"{entries}.filter(e => e.name.endsWith('{document_id}{end}')).length"

    page.visit(server.admin_url)
    page.go(f"documents/{document_id}")
    page.wait_text("it is too large to be shown here")
    details, values = page.evaluate(asked("")), page.evaluate(asked("/value"))

    page.wait(f"{asked('')} > {details + 1}")

    assert page.evaluate(asked("/value")) == values
    page.wait_text("it is too large to be shown here")

"""Documents between real automerge-repo clients and one server: made, found, edited, missing."""

import time

import pytest

from interop.conftest import ServerStarter
from interop.driver import Driver
from interop.repos import DEFAULT_SECONDS, FindTimeoutError, UnavailableError
from interop.servers import Server


def test_document_created_by_one_client_is_found_by_another(js: Driver, server: Server) -> None:
    writer, reader = js.connect(server.url), js.connect(server.url)
    doc = writer.create({"title": "plans", "items": ["a", {"deep": True}], "none": None})
    doc.wait_saved()

    found = reader.find(doc.id)

    assert found.value() == {"title": "plans", "items": ["a", {"deep": True}], "none": None}
    assert found.heads() == doc.heads()


def test_find_in_the_moment_of_connecting_is_answered(js: Driver, server: Server) -> None:
    doc = js.connect(server.url).create({"there": True})
    doc.wait_saved()
    assert js.connect(server.url, wait=False).find(doc.id).value() == {"there": True}


def test_every_kind_of_edit_reaches_the_other_client(js: Driver, server: Server) -> None:
    writer, reader = js.connect(server.url), js.connect(server.url)
    doc = writer.create({"text": "hello", "list": [1], "gone": 1})
    doc.wait_saved()
    found = reader.find(doc.id)

    doc.edit(["counter", ["n"], 3], ["bytes", ["blob"], 1000])
    doc.edit(["splice", ["text"], 5, 0, " world"], ["push", ["list"], 2, 3])
    doc.edit(["inc", ["n"], 4], ["del", ["gone"]])
    value = js.converge([doc, found])

    assert value == {
        "text": "hello world",
        "list": [1, 2, 3],
        "n": 7,
        "blob": doc.value()["blob"],
    }


def test_concurrent_edits_of_three_clients_converge(js: Driver, server: Server) -> None:
    clients = [js.connect(server.url) for _ in range(3)]
    first = clients[0].create({"text": "", "list": []})
    first.wait_saved()
    docs = [first, *(client.find(first.id) for client in clients[1:])]

    for number in range(10):
        for name, doc in zip("abc", docs, strict=True):
            doc.edit(["splice", ["text"], 0, 0, name], ["push", ["list"], f"{name}{number}"])
    value = js.converge(docs)

    assert sorted(value["text"]) == sorted("abc" * 10)
    assert sorted(value["list"]) == sorted(f"{name}{n}" for name in "abc" for n in range(10))


def test_edit_at_older_heads_reaches_the_other_client(js: Driver, server: Server) -> None:
    writer, reader = js.connect(server.url), js.connect(server.url)
    doc = writer.create({"text": "one"})
    old_heads = doc.heads()
    doc.type_text(["text"], " two three")
    doc.wait_saved()
    found = reader.find(doc.id)

    doc.edit_at(old_heads, ["set", ["branch"], 1])
    doc.edit_at(old_heads, ["splice", ["text"], 0, 0, "zero "])
    value = js.converge([doc, found])

    assert value == {"text": "zero one two three", "branch": 1}


def test_late_joiner_gets_the_whole_history(js: Driver, server: Server) -> None:
    writer = js.connect(server.url)
    doc = writer.create({"text": ""})
    doc.type_text(["text"], "0123456789" * 30)
    doc.wait_saved()
    writer.close()

    late = js.connect(server.url).find(doc.id)

    assert late.value() == {"text": "0123456789" * 30}


def test_late_joiner_edits_at_once_with_those_who_were_there(js: Driver, server: Server) -> None:
    early = js.connect(server.url).create({"list": []})
    early.start_typing(["list"], "early", 0.005)
    early.wait_saved()
    early.wait_typed(20)

    late = js.connect(server.url).find(early.id)
    late.start_typing(["list"], "late", 0.005)
    late.wait_typed(20)
    written = early.stop_typing() + late.stop_typing()
    value = js.converge([early, late])

    assert sorted(value["list"]) == sorted(written)


def test_unknown_document_is_unavailable_and_arrives_when_it_is_made(
    js: Driver, start_server: ServerStarter
) -> None:
    server = start_server(auto_create_docs=False)
    writer, reader = js.connect(server.url), js.connect(server.url)
    writer.go_offline()
    doc = writer.create({"late": True})

    started = time.monotonic()
    with pytest.raises(UnavailableError):
        reader.find(doc.id)
    assert time.monotonic() - started < DEFAULT_SECONDS / 2

    writer.go_online()
    reader.wait_documents([doc.id])
    assert reader.find(doc.id).value() == {"late": True}


@pytest.mark.usefixtures("amsync_only")
def test_unknown_document_is_created_empty_and_the_same_for_all(js: Driver, server: Server) -> None:
    """automerge-repo's own server creates nothing."""
    unknown = js.new_document_id()
    first = js.connect(server.url).find(unknown)
    second = js.connect(server.url).find(unknown)
    assert first.value() == second.value() == {}
    assert first.heads() == second.heads() != []

    first.edit(["set", ["a"], 1])
    second.edit(["set", ["b"], 2])
    assert js.converge([first, second]) == {"a": 1, "b": 2}


@pytest.mark.usefixtures("amsync_only")
def test_auto_created_document_has_the_same_first_change_on_every_server(
    js: Driver, start_server: ServerStarter
) -> None:
    """automerge-repo's own server creates nothing."""
    one, other = start_server(), start_server()
    unknown = js.new_document_id()
    here, there = js.connect(one.url).find(unknown), js.connect(other.url).find(unknown)

    assert here.heads() == there.heads() != []


def test_empty_document_is_found(js: Driver, server: Server) -> None:
    doc = js.connect(server.url).create()
    doc.wait_saved()
    assert js.connect(server.url).find(doc.id).value() == {}


def test_unshared_document_is_not_pushed_to_others(js: Driver, server: Server) -> None:
    writer, other = js.connect(server.url), js.connect(server.url)
    hidden = writer.create({"mine": 1})
    hidden.wait_saved()
    shared = writer.create({"ours": 1})
    shared.wait_saved()

    # The answer for the second document proves that the first had time to arrive.
    other.find(shared.id)

    assert other.documents() == {shared.id}


def test_client_that_announces_nothing_never_asks(js: Driver, server: Server) -> None:
    doc = js.connect(server.url).create({"there": True})
    doc.wait_saved()
    silent = js.connect(server.url, announce=False)

    with pytest.raises((UnavailableError, FindTimeoutError)):
        silent.find(doc.id, timeout=0.5)


def test_client_that_deletes_its_copy_leaves_the_others_alone(js: Driver, server: Server) -> None:
    keeper = js.connect(server.url).create({"kept": True})
    keeper.wait_saved()
    other = js.connect(server.url)
    other.find(keeper.id).delete()

    keeper.edit(["set", ["after"], 1])
    keeper.wait_saved()

    assert js.connect(server.url).find(keeper.id).value() == {"kept": True, "after": 1}

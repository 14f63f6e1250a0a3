"""samod, the Rust client, beside automerge-repo's clients on one server.

Every scenario is of the kind that the other modules have for automerge-repo alone. samod differs
from it in what it does with an empty `sync` (the document is unavailable), with `doc-unavailable`
of a document that it has (nothing), and in how it stores: one snapshot's name is made otherwise.
"""

from pathlib import Path

import pytest

import amsync
from interop.conftest import ServerStarter
from interop.driver import Driver, results
from interop.repos import Doc, Repo, UnavailableError
from interop.samod import SamodDriver, SamodRepo
from interop.servers import Server
from wire.friends import counted

pytestmark = pytest.mark.slow

RETRY_SECONDS = 0.1
CONTENT = {
    "title": "plans ü",
    "items": ["a", {"deep": [True, None, 1.5, -3]}],
    "none": None,
    "empty": {"list": [], "map": {}, "text": ""},
}


# -- documents


def test_document_created_by_samod_is_found_by_samod_and_javascript(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    doc = samod.connect(server.url).create(CONTENT)
    doc.wait_saved()

    found = [samod.connect(server.url).find(doc.id), js.connect(server.url).find(doc.id)]

    assert [one.value() for one in found] == [CONTENT, CONTENT]
    assert [one.heads() for one in found] == [doc.heads(), doc.heads()]


def test_document_created_by_javascript_is_found_by_samod(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    doc = js.connect(server.url).create(CONTENT)
    doc.edit(["counter", ["n"], 3])
    doc.edit(["inc", ["n"], 4])
    doc.wait_saved()

    found = samod.connect(server.url).find(doc.id)

    assert found.value() == {**CONTENT, "n": 7}
    assert found.heads() == doc.heads()


def test_empty_document_of_samod_is_found(js: Driver, samod: SamodDriver, server: Server) -> None:
    doc = samod.connect(server.url).create()
    doc.wait_saved()

    assert samod.connect(server.url).find(doc.id).value() == {}
    assert js.connect(server.url).find(doc.id).value() == {}


def test_concurrent_edits_of_samod_and_javascript_converge(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    first = samod.connect(server.url).create({"text": "", "list": [], "gone": 1})
    first.wait_saved()
    others = [samod.connect(server.url), js.connect(server.url), js.connect(server.url)]
    docs = [first, *(client.find(first.id) for client in others)]

    docs[0].edit(["del", ["gone"]])
    for number in range(10):
        for name, doc in zip("abcd", docs, strict=True):
            doc.edit(["splice", ["text"], 0, 0, name], ["push", ["list"], f"{name}{number}"])
            doc.edit(["set", [name], number])
    value = _agreed(js, server, docs)

    assert sorted(value["text"]) == sorted("abcd" * 10)
    assert sorted(value["list"]) == sorted(f"{name}{n}" for name in "abcd" for n in range(10))
    assert {name: value[name] for name in "abcd"} == dict.fromkeys("abcd", 9)
    assert "gone" not in value


def test_edit_of_each_reaches_the_other_without_being_asked_for(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    here = samod.connect(server.url).create({"list": []})
    here.wait_saved()
    there = js.connect(server.url).find(here.id)

    for number in range(20):
        here.edit(["push", ["list"], number])
        there.wait(path=["list"], length=2 * number + 1)
        there.edit(["push", ["list"], -number])
        here.wait(path=["list"], length=2 * number + 2)

    assert here.value() == there.value()


@pytest.mark.usefixtures("amsync_only")
def test_unknown_document_is_unavailable_and_arrives_when_it_is_made(
    js: Driver, samod: SamodDriver, start_server: ServerStarter
) -> None:
    """automerge-repo's own server sends an empty `sync` too, to samod an empty document."""
    server = start_server(auto_create_docs=False)
    reader = samod.connect(server.url)
    writers: list[Repo] = [samod.connect(server.url), js.connect(server.url)]
    for writer in writers:
        writer.go_offline()
    docs = [writer.create({"late": True}) for writer in writers]

    for doc in docs:
        with pytest.raises(UnavailableError):
            reader.find(doc.id)
    for writer in writers:
        writer.go_online()

    # samod doesn't ask twice: the server comes back to it.
    assert [reader.find_at_last(doc.id).value() for doc in docs] == [{"late": True}] * 2


@pytest.mark.usefixtures("amsync_only")
def test_unknown_document_is_created_empty_and_the_same_for_samod_and_javascript(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    """automerge-repo's own server creates nothing."""
    unknown = js.new_document_id()
    clients: list[Repo] = [samod.connect(server.url), samod.connect(server.url)]
    docs = [client.find(unknown) for client in [*clients, js.connect(server.url)]]
    assert [doc.value() for doc in docs] == [{}, {}, {}]

    for name, doc in zip("abc", docs, strict=True):
        doc.edit(["set", [name], 1])

    assert _agreed(js, server, docs) == {"a": 1, "b": 1, "c": 1}


def test_hundred_documents_on_one_connection(samod: SamodDriver, server: Server) -> None:
    writer, reader = samod.connect(server.url), samod.connect(server.url)
    docs = [writer.create({"number": number}) for number in range(100)]
    results([samod.submit("waitSaved", {"documentId": doc.id}, writer.name) for doc in docs])

    asked = [reader.find_later(doc.id) for doc in docs]
    found = [reader.doc(result["documentId"]) for result in results(asked)]
    for doc in docs:
        doc.edit(["set", ["edited"], True])

    for number, doc in enumerate(found):
        assert doc.wait(path=["edited"], equals=True) == {"number": number, "edited": True}


def test_thousands_of_changes_travel_both_ways(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    text = "0123456789" * 200
    mine = samod.connect(server.url).create({"text": ""})
    theirs = js.connect(server.url).create({"text": ""})
    for doc in (mine, theirs):
        doc.type_text(["text"], text)
        doc.wait_saved()

    late, later = samod.connect(server.url), js.connect(server.url)
    found = [client.find(doc.id) for client in (late, later) for doc in (mine, theirs)]

    assert [doc.value() == {"text": text} for doc in found] == [True] * 4
    assert [doc.heads() for doc in found] == [mine.heads(), theirs.heads()] * 2
    # Once more, to a client that lacks only the half of it.
    late.go_offline()
    for doc in (mine, theirs):
        doc.type_text(["text"], text)
        doc.wait_saved()
    late.go_online()
    for doc, its in zip((mine, theirs), found[:2], strict=True):
        its.wait(heads=doc.heads())


def test_large_text_travels_and_is_edited(js: Driver, samod: SamodDriver, server: Server) -> None:
    doc = samod.connect(server.url).create({"text": "x" * 500_000})
    doc.wait_saved()
    found = js.connect(server.url).find(doc.id)

    found.edit(["splice", ["text"], 250_000, 10, "middle"])
    value = _agreed(js, server, [doc, found])

    assert len(value["text"]) == 499_996
    assert value["text"][250_000:250_006] == "middle"


def test_ephemerals_travel_between_samod_and_javascript(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    one = samod.connect(server.url).create({})
    one.wait_saved()
    two, three = samod.connect(server.url).find(one.id), js.connect(server.url).find(one.id)

    for number in range(5):
        one.broadcast({"cursor": number, "name": "ü"})
    sent = [{"cursor": number, "name": "ü"} for number in range(5)]
    assert _messages(two, 5) == _messages(three, 5) == sent
    three.broadcast(["from", "javascript"])

    assert _messages(one, 1) == [["from", "javascript"]]
    assert _messages(two, 6) == [*sent, ["from", "javascript"]]
    assert _messages(three, 5) == sent


# -- connections and restarts


@pytest.mark.usefixtures("amsync_only")
def test_samod_goes_on_by_itself_after_its_connection_was_cut(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    """automerge-repo's own server leaves samod without a welcome after some cuts."""
    docs = _typists(js, samod, server)
    shaky = docs[0].repo

    for welcomes in range(2, 8):
        shaky.drop()
        shaky.wait_connected(welcomes=welcomes)
    docs[0].wait_typed(30)
    written = _stop_typing(docs)
    value = _agreed(js, server, docs)

    assert sorted(value["list"]) == sorted(written)
    assert docs[1].repo.connection()["welcomes"] == 1


def test_samod_goes_on_by_itself_after_a_clean_restart(
    js: Driver, samod: SamodDriver, start_server: ServerStarter
) -> None:
    server = start_server()
    docs = _typists(js, samod, server)

    server.restart()
    for doc in docs:
        doc.repo.wait_connected(welcomes=2)
    written = _stop_typing(docs)
    value = _agreed(js, server, docs)

    assert sorted(value["list"]) == sorted(written)


@pytest.mark.usefixtures("amsync_only")
def test_nothing_that_samod_saw_acknowledged_is_lost_by_kill_9(
    js: Driver, samod: SamodDriver, start_server: ServerStarter
) -> None:
    """automerge-repo's own server acknowledges before it saves."""
    server = start_server()
    docs = _typists(js, samod, server)
    before = 0

    for round_number in range(4):
        for doc in docs:
            doc.wait_typed(20 + 7 * round_number)
        server.kill9()
        written = _stop_typing(docs)
        acknowledged = [doc.acknowledged()["list"] for doc in docs]
        for doc in docs:
            doc.repo.go_offline()
        server.start()

        fresh = samod.connect(server.url)
        survived = fresh.find(docs[0].id).value()["list"]

        assert all(set(items) <= set(survived) for items in acknowledged)
        assert max(len(items) for items in acknowledged) > before, "nothing new was saved"
        for doc in docs:
            doc.repo.go_online()
            doc.repo.wait_connected()
        value = _agreed(js, server, docs)
        assert set(written) <= set(value["list"])
        before = len(value["list"])
        assert before == len(set(value["list"]))
        _start_typing(docs, f"round-{round_number}")


def test_samod_comes_back_by_itself_while_the_server_is_killed_again_and_again(
    js: Driver, samod: SamodDriver, start_server: ServerStarter
) -> None:
    server = start_server()
    docs = _typists(js, samod, server)

    for welcomes in range(2, 6):
        server.kill9()
        server.start()
        for doc in docs:
            doc.repo.wait_connected(welcomes=welcomes)
    written = _stop_typing(docs)
    value = _agreed(js, server, docs)

    assert sorted(value["list"]) == sorted(written)


def test_offline_edits_of_both_sides_merge_on_reconnect(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    here = samod.connect(server.url).create({"list": ["start"]})
    here.wait_saved()
    there = js.connect(server.url).find(here.id)

    here.repo.go_offline()
    for number in range(20):
        here.edit(["push", ["list"], f"offline-{number}"])
        there.edit(["push", ["list"], f"online-{number}"])
    there.wait_saved()
    here.repo.go_online()
    here.repo.wait_connected(welcomes=2)
    value = _agreed(js, server, [here, there])

    assert len(value["list"]) == len(set(value["list"])) == 41


def test_document_made_before_the_first_connection_is_uploaded(
    js: Driver, samod: SamodDriver, server: Server
) -> None:
    writer = samod.connect(server.url, offline=True)
    doc = writer.create({"text": ""})
    doc.type_text(["text"], "written at sea")

    writer.go_online()
    doc.wait_saved()

    assert js.connect(server.url).find(doc.id).value() == {"text": "written at sea"}


def test_document_that_is_sought_while_the_server_is_away_is_found_when_it_is_back(
    samod: SamodDriver, start_server: ServerStarter
) -> None:
    server = start_server()
    doc = samod.connect(server.url).create({"there": True})
    doc.wait_saved()
    doc.repo.close()
    reader = samod.connect(server.url, retry_seconds=RETRY_SECONDS)
    server.stop()
    reader.wait_disconnected()

    with pytest.raises(UnavailableError):
        reader.find(doc.id)
    server.start()

    assert reader.find_at_last(doc.id).value() == {"there": True}


def test_samod_with_storage_goes_on_in_a_new_repo(
    samod: SamodDriver, server: Server, tmp_path: Path
) -> None:
    first = samod.connect(server.url, storage=tmp_path / "client")
    doc = first.create({"list": ["morning"]})
    doc.wait_saved()
    other = samod.connect(server.url).find(doc.id)
    first.close()
    other.edit(["push", ["list"], "meanwhile"])
    other.wait_saved()

    again = samod.connect(server.url, storage=tmp_path / "client").find(doc.id)
    again.edit(["push", ["list"], "evening"])
    again.wait(path=["list"], contains=["meanwhile"])
    value = other.wait(path=["list"], contains=["evening"])

    assert sorted(value["list"]) == ["evening", "meanwhile", "morning"]


def test_deletion_on_the_server_ends_the_exchange_without_a_loop(
    samod: SamodDriver, tmp_path: Path
) -> None:
    """samod keeps a deleted document, goes on offering its edits and hears each time no."""
    edits = 10
    with amsync.Server(data_dir=tmp_path / "data") as server:
        document_id = server.create_document(data={"n": -1})
        client = samod.connect(server.url, retry_seconds=RETRY_SECONDS)
        doc = client.find(document_id)

        server.delete_document(document_id)
        for number in range(edits):
            doc.edit(["set", ["n"], number])
        client.drop()
        client.wait_connected(welcomes=2)
        doc.edit(["set", ["n"], edits])
        _exchange_another(client)
        said = _sync_messages(server)
        _exchange_another(client)
        costs = _sync_messages(server) - said
        refused = counted(server, "messages", type="doc-unavailable", direction="out")
        for _ in range(20):
            _exchange_another(client)

        # The deletion, each edit and each connection are answered once, or less often.
        assert 1 <= refused <= 1 + (edits + 1) + 1
        assert counted(server, "messages", type="doc-unavailable", direction="out") == refused
        assert _sync_messages(server) - said <= 21 * costs + 10
        assert doc.value() == {"n": edits}
        assert server.get_document(document_id) is None
        with pytest.raises(UnavailableError):
            samod.connect(server.url).find(document_id)


# -- directories


def test_directory_of_samod_is_served_as_it_is(
    js: Driver, samod: SamodDriver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    owner = samod.open(data_dir)
    expected = _some_documents(owner)
    owner.close()
    storage_id = (data_dir / "st" / "orage-adapter-id").read_text()

    server = start_server(data_dir)

    assert _seen(samod.connect(server.url), expected) == expected
    reader = js.connect(server.url)
    assert _seen(reader, expected) == expected
    assert reader.connection()["serverMetadata"]["storageId"] == storage_id


def test_directory_of_ours_is_read_by_samod_after_a_clean_stop(
    js: Driver, samod: SamodDriver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    server = start_server(data_dir)
    writers: list[Repo] = [samod.connect(server.url), js.connect(server.url)]
    expected = {**_some_documents(writers[0]), **_some_documents(writers[1])}
    for writer in writers:
        for document_id in expected:
            writer.find(document_id).wait_saved()
    server.stop()

    owner = samod.open(data_dir)

    assert _seen(owner, expected) == expected


def test_directory_goes_from_samod_to_ours_and_back_with_edits_in_between(
    samod: SamodDriver, start_server: ServerStarter, tmp_path: Path
) -> None:
    data_dir = tmp_path / "moved"
    owner = samod.open(data_dir)
    document_id = owner.create({"visits": ["samod"]}).id
    owner.close()
    server = start_server(data_dir)

    for _ in range(3):
        client = samod.connect(server.url)
        doc = client.find(document_id)
        doc.edit(["push", ["visits"], "ours"])
        doc.wait_saved()
        client.close()
        server.stop()
        owner = samod.open(data_dir)
        owner.find(document_id).edit(["push", ["visits"], "samod"])
        owner.close()
        server.start()

    value = samod.connect(server.url).find(document_id).value()
    assert value == {"visits": ["samod", *["ours", "samod"] * 3]}


def _agreed(js: Driver, server: Server, docs: list[Doc]) -> dict[str, object]:
    """Wait until all have what all have, and the server too; returns the document's value."""
    for doc in docs:
        doc.wait_saved()
    client = js.connect(server.url)
    at_server = client.find(docs[0].id)
    heads, value = at_server.heads(), at_server.value()
    client.close()
    for doc in docs:
        assert doc.wait(heads=heads) == value
    assert isinstance(value, dict)
    return value


def _typists(js: Driver, samod: SamodDriver, server: Server) -> list[Doc]:
    """Two samod clients and one of JavaScript, pushing to one list without pause."""
    clients: list[Repo] = [
        samod.connect(server.url, retry_seconds=RETRY_SECONDS),
        samod.connect(server.url, retry_seconds=RETRY_SECONDS),
        js.connect(server.url, retry_seconds=RETRY_SECONDS),
    ]
    first = clients[0].create({"list": []})
    first.wait_saved()
    docs = [first, *(client.find(first.id) for client in clients[1:])]
    _start_typing(docs, "start")
    return docs


def _start_typing(docs: list[Doc], label: str) -> None:
    for number, doc in enumerate(docs):
        doc.start_typing(["list"], f"{label}-{number}", 0.01)


def _stop_typing(docs: list[Doc]) -> list[str]:
    return [item for doc in docs for item in doc.stop_typing()]


def _messages(doc: Doc, at_least: int) -> list[object]:
    return [ephemeral["message"] for ephemeral in doc.ephemerals(at_least)]


def _exchange_another(client: SamodRepo) -> None:
    """Make a document and wait until the server has it, and so all that was sent before."""
    client.create({"other": True}).wait_saved()


def _sync_messages(server: amsync.Server) -> float:
    return sum(counted(server, "messages", type="sync", direction=way) for way in ("in", "out"))


def _some_documents(client: Repo) -> dict[str, tuple[list[str], object]]:
    """Documents that storage keeps in many files, in one, or nearly without content."""
    typed = client.create({"text": ""})
    typed.type_text(["text"], "many small changes " * 20)
    few = client.create({"list": []})
    for number in range(5):
        few.edit(["push", ["list"], number])
    big = client.create({"text": "x" * 300_000})
    docs = [typed, few, big, client.create(CONTENT), client.create()]
    return {doc.id: (doc.heads(), doc.value()) for doc in docs}


def _seen(
    reader: Repo, expected: dict[str, tuple[list[str], object]]
) -> dict[str, tuple[list[str], object]]:
    docs = [reader.find(document_id) for document_id in expected]
    return {doc.id: (doc.heads(), doc.value()) for doc in docs}

"""Many documents on one connection, many clients on one document, and big documents."""

from interop.driver import Driver, results
from interop.servers import Server


def test_two_hundred_documents_on_one_connection(js: Driver, server: Server) -> None:
    writer, reader = js.connect(server.url), js.connect(server.url)
    docs = [writer.create({"number": number}) for number in range(200)]
    results([js.submit("waitSaved", {"documentId": d.id}, writer.name, 30) for d in docs])

    found = reader.find_many([doc.id for doc in docs], timeout=30)
    for doc in docs:
        doc.edit(["set", ["edited"], True])

    for number, doc in enumerate(found):
        assert doc.wait(path=["edited"], equals=True) == {"number": number, "edited": True}
    assert reader.connection()["welcomes"] == 1


def test_fifty_clients_on_one_document(js: Driver, server: Server) -> None:
    first = js.connect(server.url).create({"list": []})
    first.wait_saved()
    clients = [js.connect(server.url) for _ in range(49)]
    results([client.find_later(first.id, timeout=30) for client in clients])
    docs = [first, *(client.doc(first.id) for client in clients)]

    for number, doc in enumerate(docs):
        doc.edit(["push", ["list"], number])
    value = js.converge(docs, timeout=45)

    assert sorted(value["list"]) == list(range(50))


def test_ten_megabyte_document_travels_both_ways(js: Driver, server: Server) -> None:
    writer, reader = js.connect(server.url), js.connect(server.url)
    doc = writer.create({"name": "big"})
    doc.edit(["bytes", ["blob"], 10_000_000])
    doc.wait_saved(timeout=30)

    found = reader.find(doc.id, timeout=30)
    assert found.value() == doc.value()

    found.edit(["set", ["name"], "bigger"])
    value = doc.wait(path=["name"], equals="bigger", timeout=30)
    assert value["blob"]["$bytes"] == 10_000_000


def test_large_text_travels_and_is_edited(js: Driver, server: Server) -> None:
    writer, reader = js.connect(server.url), js.connect(server.url)
    doc = writer.create({})
    doc.edit(["text", ["text"], 500_000])
    doc.wait_saved(timeout=30)
    found = reader.find(doc.id, timeout=30)

    found.edit(["splice", ["text"], 250_000, 10, "middle"])
    value = js.converge([doc, found], timeout=30)

    assert len(value["text"]) == 499_996
    assert value["text"][250_000:250_006] == "middle"

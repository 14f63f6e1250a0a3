"""A commit fails: nobody is told what is not saved, and what was written comes again."""

from amsync._automerge import build_document
from amsync.errors import StorageError
from amsync.ids import DocumentId, base58check_encode
from amsync.protocol.envelope import AccessIn, Call, HeadsOut, Offer, OfferDone, Reply, SubscribeIn
from amsync.worker.synchronizer import State
from native import craft
from server.replicas import names

from .net import Client, Net, new_document, stored

LARGE = b"x" * 100_000


def told(client: Client) -> list[bytes]:
    return [item.data for item in client.heard if hasattr(item, "data")]


def test_unsaved_heads_are_named_to_nobody_and_saved_afterwards(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    writer, reader = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(writer, reader)
    saved = list(net.stored[document_id])
    net.disk_is_full = True

    writer.put("b", 2)
    writer.say()
    net.settle()

    unsaved = writer.replica.heads()
    assert not any(names(message, unsaved) for message in told(writer) + told(reader))
    assert reader.value() == {"a": 1}
    assert net.stored[document_id] == saved

    net.make_room()
    net.settle()

    assert reader.value() == writer.value() == {"a": 1, "b": 2}
    assert any(names(message, unsaved) for message in told(writer))
    assert len(net.stored[document_id]) == len(saved) + 1


def test_while_the_disk_is_full_nothing_is_taken_and_nothing_fails_again(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    writer, other = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(writer, other)
    net.disk_is_full = True
    writer.put("b", 2)
    writer.say()
    net.settle()
    heard = len(writer.heard) + len(other.heard)

    for number in range(5):
        writer.put("b", number)
        writer.say()
        other.put("c", number)
        other.say()
        net.settle()

    assert net.counts.count(("documents_rewound", "")) == 1
    assert len(writer.heard) + len(other.heard) - heard < 20
    net.make_room()
    net.settle()
    assert writer.value() == other.value() == {"a": 1, "b": 4, "c": 4}


def test_who_comes_while_the_disk_is_full_gets_what_is_saved(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    writer = Client(net, document_id, 1)
    net.introduce(writer)
    net.disk_is_full = True
    writer.put("b", 2)
    writer.say()
    net.settle()

    late = Client(net, document_id, 2)
    net.introduce(late)

    assert late.value() == {"a": 1}
    late.put("c", 3)
    late.say()
    net.make_room()
    net.settle()
    assert late.value() == writer.value() == {"a": 1, "b": 2, "c": 3}


def test_documents_that_were_open_take_nothing_either(net: Net, document_id: DocumentId) -> None:
    other_id = new_document()
    stored(net, document_id, a=1)
    stored(net, other_id, a=1)
    client, other = Client(net, document_id, 1), Client(net, other_id, 2)
    net.introduce(client, other)
    net.disk_is_full = True
    client.put("b", 2)
    client.say()
    net.settle()

    other.put("c", 3)
    other.say()
    net.settle()

    assert net.counts.count(("documents_rewound", "")) == 1
    assert not any(names(message, other.replica.heads()) for message in told(other))
    net.make_room()
    net.settle()
    assert any(names(message, other.replica.heads()) for message in told(other))


def test_a_document_is_created_for_who_asked_if_the_one_that_was_brought_is_not_saved(
    net: Net, document_id: DocumentId
) -> None:
    asker, maker = Client(net, document_id, 1), Client(net, document_id, 2)
    maker.replica.put("a", 1)
    net.hold_loads = net.disk_is_full = True
    maker.say()
    asker.say()

    net.release()
    net.settle()

    assert "unavailable" not in asker.kinds()
    assert asker.value() == {}
    net.make_room()
    net.settle()
    assert asker.value() == maker.value() == {"a": 1}


def test_who_asked_for_a_document_that_could_not_be_saved_is_told_and_gets_it_later(
    document_id: DocumentId,
) -> None:
    net = Net(auto_create=False)
    asker, maker = Client(net, document_id, 1), Client(net, document_id, 2)
    maker.replica.put("a", 1)
    net.hold_loads = True
    asker.say()
    maker.say()
    net.disk_is_full = True

    net.release()
    net.settle()

    assert "unavailable" in asker.kinds()
    assert asker.replica.heads() == []
    net.make_room()
    net.settle()
    assert asker.value() == {"a": 1}


def test_a_message_that_waits_for_a_job_is_forgotten_with_the_document(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    writer, other = Client(net, document_id, 1), Client(net, document_id, 2)
    net.introduce(writer, other)
    other.put("large", LARGE)
    large = craft.message(other.replica.changes(), other.replica.heads())
    writer.put("b", 2)
    net.hold_jobs = net.disk_is_full = True

    # One step takes the small change, and begins a job with the large one.
    small = writer.replica.generate(0)
    assert small is not None
    net.step_with(writer.item(small), other.item(large))
    document = net.shard.documents[document_id]
    assert document.state is State.BUSY
    net.release()
    net.settle()

    assert len(net.stored[document_id]) == 1
    assert not any(names(message, writer.replica.heads()) for message in told(other))
    net.make_room()
    net.settle()
    assert writer.value() == other.value() == {"a": 1, "b": 2, "large": LARGE}


def test_calls_are_answered_with_the_error_and_shown_nothing_unsaved(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    assert net.call("get", document_id).error is None
    net.disk_is_full = True

    change = build_document({"b": 2})
    items = net.give(
        Call(1, "apply", document_id, change),
        Call(2, "get", document_id, b""),
        Call(3, "apply", new_document(), change),
    )
    again = net.call("apply", document_id, change)
    read = net.call("get", document_id)

    replies = {item.call: item for item in items if isinstance(item, Reply)}
    assert replies[1].error == again.error == "StorageFull"
    assert net.counts.count(("documents_rewound", "")) == 1
    assert replies[3].error == "DocumentNotFound"
    assert read.error is None
    assert replies[2].payload == read.payload
    net.make_room()
    assert net.call("apply", document_id, change).error is None


def test_remote_heads_of_a_step_that_failed_are_told(net: Net, document_id: DocumentId) -> None:
    """They are the writer's own, and true whether we could save them or not."""
    stored(net, document_id, a=1)
    writer = Client(net, document_id, 1, storage_id="writer's storage")
    reader = Client(net, document_id, 2)
    net.introduce(writer, reader)
    reader.give(SubscribeIn(2, ["writer's storage"], []))
    net.disk_is_full = True
    writer.put("b", 2)
    writer.say()
    net.settle()
    net.make_room()
    net.settle()

    told = [set(item.heads) for item in reader.heard if isinstance(item, HeadsOut)]
    assert {base58check_encode(head) for head in writer.replica.heads()} in told


def test_a_deletion_in_doubt_takes_no_more_edits(net: Net, document_id: DocumentId) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    net.introduce(client)
    net.hold_jobs = True
    net.give(Call(1, "delete", document_id, b""))
    net.waiting.clear()
    error = StorageError("EIO")

    net.step(
        lambda effects: net.shard.deletion_finished(
            document_id, error, effects, net.now, is_gone=True
        )
    )
    client.put("b", 2)
    client.say()
    net.settle()

    replies = [item for _, item in net.published if isinstance(item, Reply)]
    assert [reply.error for reply in replies] == ["StorageError"]
    assert client.kinds()[-1] == "unavailable"
    assert len(net.stored[document_id]) == 1


def test_a_document_can_be_deleted_while_the_disk_is_full(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    net.introduce(client)
    net.disk_is_full = True
    client.put("b", 2)
    client.say()
    net.settle()

    assert net.call("delete", document_id).error is None
    net.make_room()
    net.settle()

    assert client.kinds()[-1] == "unavailable"
    assert document_id not in net.stored


def test_a_role_that_changes_while_the_disk_is_full_holds_afterwards(
    net: Net, document_id: DocumentId
) -> None:
    stored(net, document_id, a=1)
    demoted, promoted = Client(net, document_id, 1), Client(net, document_id, 2, access=1)
    net.introduce(demoted, promoted)
    net.disk_is_full = True
    for client in (demoted, promoted):
        client.put(f"by {client.number}", 1)
        client.say()
    net.settle()

    demoted.access, promoted.access = 1, 2
    demoted.give(AccessIn(1, document_id, 1))
    promoted.give(AccessIn(2, document_id, 2))
    net.settle()
    assert net.counts.count(("documents_rewound", "")) == 1
    net.make_room()
    net.settle()

    assert demoted.value() == {"a": 1, "by 1": 1, "by 2": 1}
    assert promoted.value() == {"a": 1, "by 2": 1}


def test_a_document_that_was_not_saved_is_announced_only_when_it_is(
    net: Net, document_id: DocumentId
) -> None:
    maker, listener = Client(net, document_id, 1), Client(net, new_document(), 2, announce=True)
    listener.give(OfferDone(2))
    maker.replica.put("a", 1)
    net.disk_is_full = True

    maker.say()
    net.settle()
    offered = [item.documents for _, item in net.published if isinstance(item, Offer)]
    assert document_id not in {name for names in offered for name in names}

    listener.give(OfferDone(2))
    net.make_room()
    net.settle()
    offered = [item.documents for _, item in net.published if isinstance(item, Offer)]
    assert document_id in {name for names in offered for name in names}
    assert not any(isinstance(item, HeadsOut) for item in maker.heard)


def test_what_is_found_later_on_the_volume_reaches_the_peers(
    net: Net, document_id: DocumentId
) -> None:
    late = stored(net, document_id, a=1)
    client = Client(net, document_id, 1)
    net.introduce(client)
    client.put("mine", 1)
    client.say()
    net.settle()

    late.put("late", 2)
    net.stored[document_id].append(late.changes()[-1])
    net.step(lambda effects: net.shard.found([document_id], effects, net.now))
    net.settle()

    assert client.value() == {"a": 1, "mine": 1, "late": 2}


def test_what_is_found_while_the_document_is_being_read_is_read_too(
    net: Net, document_id: DocumentId
) -> None:
    late = stored(net, document_id, a=1)
    net.hold_loads = True
    client = Client(net, document_id, 1)
    client.say()

    net.step(lambda effects: net.shard.found([document_id], effects, net.now))
    net.step(net.waiting.popleft())  # the load that was under way ends, and gives what it saw
    late.put("late", 2)
    net.stored[document_id].append(late.changes()[-1])
    net.release()
    net.settle()

    assert client.value() == {"a": 1, "late": 2}
    assert net.loads == 2

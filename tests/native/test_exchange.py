"""Sync with honest peers: what is sent to whom, roles, flow control, resets."""

import os
import threading
import time

import pytest

from amsync._automerge import Document, Outcome, Replica, build_document

from . import craft
from .craft import Change
from .kinds import parts
from .pipes import Network

ALICE, BOB = b"alice-----------", b"bob-------------"
SYNC_RESET, READ_ONLY = 1, 2


def flags(message: bytes) -> int:
    return message[-1]


def named_heads(message: bytes) -> list[bytes]:
    return [message[2 + 32 * number : 34 + 32 * number] for number in range(message[1])]


def filled(size: int = 10) -> Replica:
    replica = Replica()
    for number in range(size):
        replica.put(f"k{number}", number)
    return replica


def opened(replica: Replica) -> Document:
    document = Document()
    document.apply(b"".join(replica.changes()))
    return document


def test_new_document_is_uploaded_and_comes_back_as_chunks_to_persist() -> None:
    replica = filled()
    network = Network(Document(), [replica])

    network.settle()

    assert network.converged()
    assert Document.load(network.chunks)[0].heads() == replica.heads()


def test_stored_document_reaches_a_peer_that_has_nothing() -> None:
    network = Network(opened(filled()), [Replica(), Replica(v1=True)])
    network.settle()
    assert network.converged()


def test_edit_reaches_all_others_in_one_message() -> None:
    network = Network(opened(filled()), [Replica() for _ in range(5)])
    network.settle()
    network.replicas[0].put("new", 1)

    outcome = network.exchange(network.say(0))

    by_peers = {tuple(peers) for _, peers in outcome.messages}
    assert by_peers == {(0,), (1, 2, 3, 4)}
    network.settle()
    assert network.converged()


def test_peer_that_never_spoke_gets_nothing_unless_greeted() -> None:
    document = opened(filled())
    document.add_peer(1)
    document.add_peer(2)

    outcome = document.sync([], hello=[2])

    assert [peers for _, peers in outcome.messages] == [[2]]
    assert document.sync([]).messages == []


def test_peer_with_the_same_heads_is_left_in_peace() -> None:
    replica = filled()
    network = Network(opened(replica), [replica])
    assert network.settle() <= 2
    assert network.delivered <= 2


def test_empty_document_answers_with_empty_heads() -> None:
    replica = Replica()
    network = Network(Document(), [replica])
    outcome = network.exchange(network.say(0))
    assert [data[1] for data, _ in outcome.messages] == [0]


def test_changes_are_acknowledged_when_messages_without_changes_follow_in_the_same_batch() -> None:
    """As samod's do, which answers each of our messages; it waited for the last edit forever."""
    replica = filled()
    network = Network(Document(), [replica])
    network.settle()
    replica.put("new", 1)
    batch = network.say(0) + 2 * [(0, craft.message([], replica.heads()))]

    outcome = network.exchange(batch)

    assert [named_heads(data) for data, _ in outcome.messages] == [replica.heads()]
    network.settle()
    assert network.converged()


def test_chunks_are_those_that_became_applied() -> None:
    one = filled(20)
    network = Network(Document(), [one, Replica()])
    network.settle()
    one.put("x", 1)
    one.put("y", 1)

    outcome = network.exchange(network.say(0))

    assert outcome.chunks == one.changes()[-2:]
    assert outcome.heads == tuple(network.document.heads())


def test_saved_document_that_is_smaller_than_its_changes_is_persisted_as_it_came() -> None:
    replica = Replica()
    for number in range(200):
        replica.splice("text", number, 0, "x")
    document = Document()

    outcome = document.apply(replica.save())

    assert outcome.chunks == [replica.save()]


def test_saved_document_with_little_news_is_persisted_as_changes() -> None:
    replica = filled(100)
    document = opened(replica)
    replica.put("new", 1)

    outcome = document.apply(replica.save())

    assert outcome.chunks == [replica.changes()[-1]]


def test_child_before_its_parent_waits_and_the_parent_is_asked_for() -> None:
    parent = Change(ALICE)
    child = Change(BOB, 1, 2, [parent.hash()])
    document = Document()
    document.add_peer(1)

    first = document.sync([(1, craft.message([child.chunk()], [child.hash()]))])
    assert (document.queued_count(), first.chunks) == (1, [])
    assert parent.hash() in first.messages[0][0]
    assert child.hash() not in first.messages[0][0]
    second = document.sync([(1, craft.message([parent.chunk()], [child.hash()]))])

    assert second.chunks == [parent.chunk(), child.chunk()]
    assert document.heads() == [child.hash()]
    assert document.queued_count() == 0


def test_parent_from_another_peer_releases_the_child() -> None:
    parent = Change(ALICE)
    child = Change(BOB, 1, 2, [parent.hash()])
    document = Document()
    document.add_peer(1)
    document.add_peer(2)
    document.sync([(1, craft.message([child.chunk()], [child.hash()]))])

    document.sync([(2, craft.message([parent.chunk()], [parent.hash()]))])

    assert document.heads() == [child.hash()]


def test_replica_that_sends_children_first_converges() -> None:
    replica = filled(30)
    document = Document()
    document.add_peer(0)
    changes = replica.changes()
    document.sync([(0, craft.message(changes[20:], replica.heads()))])
    network = Network(document, [replica])
    network.settle()
    assert network.converged()
    assert document.queued_count() == 0


def test_peer_heads_are_reported_when_they_change() -> None:
    replica = filled()
    document = Document()
    document.add_peer(1, track_heads=True)
    document.add_peer(2)
    replica.connect(0)
    hello = replica.generate(0)
    assert hello is not None

    first = document.sync([(1, hello), (2, hello)])
    second = document.sync([(1, hello)])

    assert first.peer_heads == [(1, replica.heads())]
    assert second.peer_heads == []


def test_read_only_peer_is_read_to_and_not_from() -> None:
    reader, writer = filled(), filled()
    network = Network(Document())
    network.join(reader, read_only=True)
    network.join(writer)

    network.settle()

    assert network.document.heads() == writer.heads()
    assert all(reader.has(head) for head in writer.heads())
    assert reader.heads() != writer.heads()
    assert not network.faults


def test_read_only_peer_that_may_write_again_uploads() -> None:
    reader = filled()
    network = Network(Document())
    network.join(reader, read_only=True)
    network.settle()

    network.document.set_read_only(0, False)
    network.exchange([])
    network.settle()

    assert network.document.heads() == reader.heads()


def test_peer_made_read_only_is_told() -> None:
    network = Network(Document(), [filled()])
    network.settle()

    network.document.set_read_only(0, True)
    outcome = network.exchange([])

    assert flags(outcome.messages[0][0]) & READ_ONLY


def test_read_only_peer_whose_last_sync_we_lack_does_not_loop() -> None:
    """ENGINE T4: the crate answers with resets at wire speed."""
    replica = filled()
    before = Network(opened(replica), [replica])
    before.settle()
    state = replica.disconnect(0)
    network = Network(opened(filled()))
    network.join(replica, read_only=True)
    replica.connect(0, state)

    network.settle(most_rounds=10)

    assert not network.faults
    assert all(replica.has(head) for head in network.document.heads())


def test_unanswered_messages_are_bounded_and_the_rest_comes_as_one() -> None:
    writer, reader = filled(20), Replica()
    document = Document(window=3)
    network = Network(document, [writer, reader])
    network.settle()
    held, holds = [], []
    for number in range(20):
        writer.put("n", number)
        outcome = document.sync(network.say(0))
        holds.append(outcome.holds)
        for data, peers in outcome.messages:
            if 1 in peers:
                held.append(data)
            if 0 in peers:
                writer.receive(0, data)
    assert len(held) == 3
    assert holds == [0, 0, 0, 1] + [0] * 16, "it was held once, from the fourth on"

    for data in held:
        reader.receive(0, data)
    outcome = network.exchange(network.say(1))

    assert [peers for _, peers in outcome.messages] == [[1]]
    assert reader.heads() == document.heads()


def test_reader_that_answers_each_message_is_never_held_for_good() -> None:
    writer, reader = Replica(), Replica()
    network = Network(Document(window=2), [writer, reader])
    network.settle()
    for number in range(50):
        writer.put("n", number)
        network.exchange(network.say(0))
        if number % 7 == 0:
            reader.put("m", number)
        if number % 3 == 0:
            network.exchange(network.say(1))

    network.settle()

    assert network.converged()


def test_reader_that_has_the_changes_from_elsewhere_is_never_held_for_good() -> None:
    writer, reader = Replica(), Replica()
    network = Network(Document(window=2), [writer, reader])
    network.settle()
    for number in range(20):
        writer.put("n", number)
        reader.merge(writer)
        network.exchange(network.say(0))
        network.exchange(network.say(1))

    network.settle()

    assert network.converged()


def test_reset_says_so_to_a_peer_that_understands() -> None:
    network = Network(opened(filled()), [Replica()])
    network.settle()

    network.document.reset_peer(0)
    outcome = network.exchange([])

    assert len(outcome.messages) == 1
    assert flags(outcome.messages[0][0]) & SYNC_RESET
    network.settle()
    assert network.converged()


def test_reset_of_an_old_peer_is_empty_heads_then_the_real_ones() -> None:
    replica = Replica(v1=True)
    network = Network(opened(filled()), [replica])
    network.settle()

    network.document.reset_peer(0)
    outcome = network.exchange([])

    assert [data[1] for data, _ in outcome.messages] == [0, 1]
    network.settle()
    assert network.converged()


def test_reset_is_said_to_a_peer_whose_last_sync_we_do_not_know() -> None:
    """The crate's own answer to such a message has no reset in it, and would go first."""
    document, replica = Document(), Replica()
    replica.put("n", 1)
    document.apply(b"".join(replica.changes()))
    document.add_peer(0)
    document.reset_peer(0)
    unknown = craft.message(heads=[b"?" * 32], haves=[craft.have([b"!" * 32])])

    outcome = document.sync([(0, unknown)])

    assert [data[-1] for data, _ in outcome.messages] == [0x85]


def test_reset_reaches_a_peer_that_has_nothing() -> None:
    """Empty heads alone would be equal to its own, and it would stay silent."""
    network = Network(opened(filled()), [Replica()])

    network.document.reset_peer(0)
    network.exchange([])
    network.settle()

    assert network.converged()


def test_removed_peer_is_forgotten() -> None:
    network = Network(opened(filled()), [Replica()])
    network.settle()
    network.document.remove_peer(0)
    network.document.remove_peer(0)
    network.document.apply(filled().save())
    assert network.document.sync([]).messages == []


def test_application_changes_reach_the_peers() -> None:
    network = Network(Document(), [Replica(), Replica()])
    network.settle()

    network.take(network.document.apply(filled().save()))
    network.settle()

    assert network.converged()


def test_sizes_grow_with_the_document() -> None:
    document = Document()
    empty = document.size_bytes()
    replica = filled()
    document.apply(b"".join(replica.changes()))
    assert document.change_count() == 10
    assert document.size_bytes() > empty + 10 * 100


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="window=0"):
        Document(window=0)
    with pytest.raises(ValueError, match="loop_limit=0"):
        Document.load([], loop_limit=0)


def test_other_threads_run_while_the_engine_works() -> None:
    data = build_document({"text": "x" * 300_000})
    ticks, done = [], threading.Event()

    def tick() -> None:
        while not done.wait(0.001):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    Document().apply(data)
    ended = time.monotonic()
    done.set()
    thread.join()

    assert sum(started < moment < ended for moment in ticks) >= 3


def test_large_document_in_flight_is_not_sent_again() -> None:
    """A slow reader would be sent a whole copy for every edit until it has answered the first."""
    writer, reader = Replica(b"writer----------"), Replica(b"reader----------")
    writer.put("blob", os.urandom(1_000_000))
    document, _ = Document.load([writer.save()])
    writer.connect(1)
    reader.connect(1)
    for peer in (1, 2):
        document.add_peer(peer)

    def edit(number: int) -> dict[int, list[bytes]]:
        writer.put("n", number)
        return sent(document.apply(writer.changes()[-1]))

    def sent(outcome: Outcome) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for data, peers in outcome.messages:
            for peer in peers:
                found.setdefault(peer, []).append(data)
        return found

    request = reader.generate(1)
    assert request is not None
    (whole,) = sent(document.sync([(2, request)]))[2]
    assert len(whole) > 1_000_000
    while_it_travels = [edit(number) for number in range(5)]
    assert all(2 not in messages for messages in while_it_travels)

    reader.receive(1, whole)
    for _ in range(5):
        answer = reader.generate(1)
        if answer is None:
            break
        for data in sent(document.sync([(2, answer)])).get(2, []):
            reader.receive(1, data)
    assert reader.heads() == document.heads()


def linear(size: int = 3) -> tuple[Document, list[bytes], list[bytes]]:
    """A document with one change after the other, their chunks and their hashes."""
    replica, hashes = Replica(ALICE), []
    for number in range(size):
        replica.put("n", number)
        hashes += replica.heads()
    return opened(replica), replica.changes(), hashes


def only(outcome: Outcome, peer: int) -> bytes:
    """The one message for this peer."""
    (message,) = (data for data, peers in outcome.messages if peer in peers)
    return message


def test_peer_that_says_reset_is_sent_again_what_it_was_sent() -> None:
    document, changes, hashes = linear(2)
    document.add_peer(1)
    behind = craft.message(heads=hashes[:1], haves=[craft.have(hashes[:1])])
    reset = craft.message(heads=hashes[:1], haves=[craft.have(hashes[:1])], flags=b"\2\2\x85")
    assert changes[1] in only(document.sync([(1, behind)]), 1)
    assert all(changes[1] not in data for data, _ in document.sync([(1, behind)]).messages)

    outcome = document.sync([(1, reset)])

    assert changes[1] in only(outcome, 1)


def test_unknown_last_sync_is_told_once_for_each_message_that_names_it() -> None:
    document, _, _ = linear()
    document.add_peer(1)
    document.add_peer(2)
    unknown = craft.message(heads=[b"?" * 32], haves=[craft.have([b"!" * 32])])
    change = Change(BOB)

    assert only(document.sync([(1, unknown)]), 1)
    meanwhile = document.sync([(2, craft.message([change.chunk()], [change.hash()]))])
    assert all(1 not in peers for _, peers in meanwhile.messages)
    assert only(document.sync([(1, unknown)]), 1)


def test_peer_that_names_our_new_heads_is_not_told_them() -> None:
    document, _, hashes = linear()
    for peer in (1, 2):
        document.add_peer(peer)
        document.sync([(peer, craft.message(heads=hashes[-1:]))])
    change = Change(BOB, 1, 4, hashes[-1:])
    brought = craft.message([change.chunk()], [change.hash()])
    named = craft.message(heads=[change.hash()], haves=[craft.have([change.hash()])])

    outcome = document.sync([(1, brought), (2, named)])

    assert [peers for _, peers in outcome.messages] == [[1]]


def test_same_message_before_and_after_a_change_came_is_taken_as_what_it_says_then() -> None:
    document, _, hashes = linear()
    for peer in (1, 2, 3):
        document.add_peer(peer)
        document.sync([(peer, craft.message(heads=hashes[-1:]))])
    change = Change(BOB, 1, 4, hashes[-1:])
    named = craft.message(heads=[change.hash()])

    document.sync([(1, named), (2, craft.message([change.chunk()], [change.hash()])), (3, named)])

    assert document.state(3)["shared_heads"] == [change.hash()]


def test_peer_that_only_asks_gets_what_lies_before_it_too() -> None:
    document, changes, hashes = linear()
    document.add_peer(1)
    message = craft.message(heads=hashes[:1], need=hashes[2:], haves=())

    answer = only(document.sync([(1, message)]), 1)

    assert [change in answer for change in changes] == [False, True, True]


def test_peer_that_asks_for_what_it_should_have_gets_it() -> None:
    document, changes, hashes = linear()
    document.add_peer(1)
    message = craft.message(heads=hashes[2:], need=hashes[1:2], haves=())

    answer = only(document.sync([(1, message)]), 1)

    assert [change in answer for change in changes] == [False, True, False]


def test_peer_that_has_nothing_gets_all_whatever_it_believes_to_share() -> None:
    document, changes, hashes = linear()
    document.add_peer(1)

    answer = only(document.sync([(1, craft.message(haves=[craft.have(hashes[-1:])]))]), 1)

    assert all(change in answer for change in changes)


def test_saved_document_is_sent_with_what_came_after_it() -> None:
    writer, reader = filled(), Replica()
    saved = writer.save()
    writer.put("later", 1)
    document, _ = Document.load([saved, writer.changes()[-1]])
    document.add_peer(1)
    reader.connect(0)
    hello = reader.generate(0)
    assert hello is not None

    reader.receive(0, only(document.sync([(1, hello)]), 1))

    assert reader.heads() == document.heads()


def test_first_hello_has_no_filter() -> None:
    """ENGINE T7: it would cost everybody who opens a document bytes in proportion to it."""
    document, _, _ = linear(1_000)
    document.add_peer(1)
    assert len(only(document.sync([], hello=[1]), 1)) < 100


def test_peer_that_has_nothing_for_us_gets_no_large_filter() -> None:
    """ENGINE T7."""
    document, _, hashes = linear(5_000)
    document.add_peer(1)
    message = craft.message(heads=hashes[:1], haves=[craft.have(hashes[:1])])

    answer = only(document.sync([(1, message)]), 1)

    assert len(parts(answer)[0]) < 200


def test_refused_peer_gets_nothing_in_that_batch() -> None:
    document, _, hashes = linear()
    for peer in (1, 2):
        document.add_peer(peer)
        document.sync([(peer, craft.message(heads=hashes[-1:]))])
    change = Change(BOB, 1, 4, hashes[-1:])
    bad = craft.message([craft.chunk(craft.CHANGE, change.data(), b"0000")])

    outcome = document.sync([(1, bad), (2, craft.message([change.chunk()], [change.hash()]))])

    assert [peers for _, peers in outcome.messages] == [[2]]
    assert [peers for _, peers in document.sync([], hello=[1]).messages] == [[1]]


def test_one_answer_to_all_that_is_under_way_opens_the_window() -> None:
    writer, reader = filled(3), Replica()
    document = Document(window=3)
    network = Network(document, [writer, reader])
    network.settle()
    reached = []
    for number in range(9):
        writer.put("n", number)
        outcome = document.sync(network.say(0))
        reached.append(any(1 in peers for _, peers in outcome.messages))
        for data, peers in outcome.messages:
            for peer in peers:
                network.replicas[peer].receive(0, data)
        if number % 3 == 2:
            network.exchange(network.say(1))

    assert all(reached)


def test_peer_made_read_only_is_told_also_when_it_has_not_answered() -> None:
    document, changes, hashes = linear(2)
    document = Document(window=1)
    document.apply(changes[0])
    document.add_peer(1)
    document.sync([(1, craft.message())])
    document.apply(changes[1])
    assert document.heads() == hashes[1:]

    document.set_read_only(1, True)
    outcome = document.sync([])

    assert flags(only(outcome, 1)) & READ_ONLY


def test_heads_come_after_the_reset_though_another_peer_gets_the_same_message() -> None:
    document, _, hashes = linear()
    document.add_peer(1)
    document.add_peer(2)
    document.reset_peer(2)

    outcome = document.sync([], hello=[1])

    to_two = [named_heads(data) for data, peers in outcome.messages if 2 in peers]
    assert outcome.messages[0][1] == [1]
    assert to_two == [[], hashes[-1:]]


def test_messages_that_differ_only_at_their_end_are_told_apart() -> None:
    common = Change(ALICE, extra=bytes(8_000))
    one, two = Change(BOB), Change(b"cid-------------")
    document = Document()
    document.apply(common.chunk() + one.chunk() + two.chunk())
    batch = []
    for peer, change in ((1, one), (2, two)):
        document.add_peer(peer)
        need = [common.hash(), change.hash()]
        batch.append((peer, craft.message(need=need, haves=(), flags=b"")))

    outcome = document.sync(batch)

    answers = only(outcome, 1), only(outcome, 2)
    assert len(answers[0]) == len(answers[1])
    assert [one.chunk() in answer for answer in answers] == [True, False]
    assert [two.chunk() in answer for answer in answers] == [False, True]


def test_changes_that_waited_for_the_same_one_come_out_oldest_first() -> None:
    parent = Change(ALICE)
    waiting = [Change(bytes([n]) * 16, 1, 2, [parent.hash()]) for n in range(10)]
    document = Document()
    document.add_peer(1)
    document.sync([(1, craft.message([change.chunk() for change in waiting]))])

    outcome = document.sync([(1, craft.message([parent.chunk()], [parent.hash()]))])

    assert outcome.chunks == [parent.chunk(), *(change.chunk() for change in waiting)]

"""A lost message makes an endless exchange (PROTOCOL 5.6); here it heals, or is stopped."""

import pytest

from amsync._automerge import Document, Replica

from . import craft
from .craft import Change
from .pipes import Network

ALICE = b"alice-----------"
LOOP_LIMIT = 3


def started(*, v1: bool) -> Network:
    network = Network(Document(loop_limit=LOOP_LIMIT), [Replica(v1=v1), Replica()])
    network.replicas[0].put("n", 0)
    network.settle()
    return network


def lose_inbound(network: Network) -> None:
    network.replicas[0].put("lost", 1)
    assert network.say(0)


@pytest.fixture(params=[False, True], ids=["v2", "v1"])
def network(request: pytest.FixtureRequest) -> Network:
    return started(v1=request.param)


def test_lost_inbound_message_then_an_edit_heals(network: Network) -> None:
    """B1: we ask for the lost change, and the peer believes that it sent it."""
    lose_inbound(network)
    network.replicas[0].put("n", 1)

    network.settle(most_rounds=20)

    assert network.converged()
    assert [fault.reason for fault in network.faults] == ["loop_reset"]


def test_lost_inbound_message_then_a_fresh_hello_heals(network: Network) -> None:
    """B2: a hello alone wakes the loop."""
    lose_inbound(network)
    network.document.add_peer(0)
    network.exchange([], hello=[0])

    network.settle(most_rounds=20)

    assert network.converged()
    assert [fault.reason for fault in network.faults] == ["loop_reset"]


def test_lost_inbound_message_then_a_reset_heals_without_a_loop(network: Network) -> None:
    """B3, B4, B8."""
    lose_inbound(network)
    network.document.reset_peer(0)
    network.exchange([])

    network.settle(most_rounds=20)

    assert network.converged()
    assert not network.faults


def test_lost_outbound_message_heals(network: Network) -> None:
    """D2: we believe that the peer has what we sent."""
    network.replicas[1].put("lost", 1)
    network.document.sync(network.say(1))
    network.replicas[1].put("n", 1)

    network.settle(most_rounds=30)

    assert network.converged()
    assert {fault.reason for fault in network.faults} <= {"loop_reset"}


def test_peer_that_ignores_the_reset_is_silenced_within_a_bound() -> None:
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    stubborn = craft.message(heads=[b"?" * 32])
    faults, sent = [], 0
    for _ in range(50):
        outcome = document.sync([(1, stubborn)])
        faults += [fault.reason for fault in outcome.faults]
        sent += len(outcome.messages)

    assert faults == ["loop_reset", "loop"]
    assert sent <= 2 * LOOP_LIMIT + 4


def test_silenced_peer_speaks_again_after_a_reset() -> None:
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    for _ in range(50):
        document.sync([(1, craft.message(heads=[b"?" * 32]))])
    document.reset_peer(1)
    assert document.sync([]).messages


def test_silenced_peer_is_still_listened_to() -> None:
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    for _ in range(50):
        document.sync([(1, craft.message(heads=[b"?" * 32]))])
    change = Change(ALICE)
    document.sync([(1, craft.message([change.chunk()], [change.hash()]))])
    assert document.heads() == [change.hash()]


def test_refused_change_is_not_asked_for_again() -> None:
    """ENGINE T5: refusing is a loop by default."""
    good = Change(ALICE)
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    document.sync([(1, craft.message([good.chunk()], [good.hash()]))])
    next_bad = Change(ALICE, 2, 1, [good.hash()])
    document.sync([(1, craft.message([next_bad.chunk()], [next_bad.hash()]))])

    sent = 0
    for _ in range(10):
        outcome = document.sync([(1, craft.message(heads=[next_bad.hash()]))])
        assert all(next_bad.hash() not in data for data, _ in outcome.messages)
        assert not outcome.faults
        sent += len(outcome.messages)

    assert sent <= 2


def test_much_that_was_under_way_does_not_hide_a_loop() -> None:
    network = started(v1=False)
    for number in range(300):
        network.replicas[0].put("n", number)
        network.exchange(network.say(0))
    lose_inbound(network)
    network.replicas[0].put("n", 1)

    network.settle(most_rounds=200)

    assert network.converged()
    assert [fault.reason for fault in network.faults] == ["loop_reset"]


def test_busy_document_does_not_hide_a_loop() -> None:
    network = started(v1=False)
    lose_inbound(network)
    network.replicas[0].put("n", 1)
    for number in range(10):
        network.replicas[1].put("busy", number)
        batch = [item for peer in (0, 1) for item in network.say(peer)]
        network.exchange(batch)
    network.settle(most_rounds=20)
    assert network.converged()


def test_peer_that_takes_nothing_is_told_of_news_once_until_it_answers() -> None:
    """Each message may have a filter over the whole history, and it has no use for any."""
    document = Document()
    document.add_peer(1)
    takes_nothing = craft.message(flags=bytes([2, 2, 0x86]))
    document.sync([(1, takes_nothing)])
    writer = Replica(ALICE)

    def told() -> int:
        writer.put("n", 1)
        return len(document.apply(writer.changes()[-1]).messages)

    assert [told() for _ in range(5)] == [0] * 5
    assert document.sync([(1, takes_nothing)]).messages
    assert told() == 0


def test_peer_that_only_listens_is_no_loop() -> None:
    """It is told of each change, and says nothing: what it is told is new each time."""
    document = Document(loop_limit=LOOP_LIMIT, window=100)
    document.add_peer(1)
    document.sync([(1, craft.message())])
    writer = Replica(ALICE)
    reached = 0
    for number in range(30):
        writer.put("n", number)
        outcome = document.apply(writer.changes()[-1])
        reached += len(outcome.messages)
        assert outcome.faults == []
    assert reached == 30


def test_peer_that_repeats_itself_again_after_bringing_changes_is_helped_again() -> None:
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    heads = [b"?" * 32]

    def repeat() -> list[str]:
        reasons: list[str] = []
        while not reasons:
            outcome = document.sync([(1, craft.message(heads=heads))])
            reasons = [fault.reason for fault in outcome.faults]
        return reasons

    assert repeat() == ["loop_reset"]
    change = Change(ALICE)
    document.sync([(1, craft.message([change.chunk()], heads))])
    assert document.heads() == [change.hash()]

    assert repeat() == ["loop_reset"]
    assert repeat() == ["loop"]


def test_what_lies_below_a_refused_change_is_asked_for() -> None:
    """Else a good change would be lost that came with a bad one after it."""
    good = Change(ALICE)
    bad = Change(ALICE, 2, 1, [good.hash()])
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    refused = document.sync([(1, craft.message([good.chunk(), bad.chunk()], [bad.hash()]))])
    assert [fault.reason for fault in refused.faults] == ["op_id"]

    ((asked, _),) = document.sync([(1, craft.message(heads=[bad.hash()]))]).messages

    assert good.hash() in asked
    assert bad.hash() not in asked


def test_silenced_peer_is_told_of_its_new_role() -> None:
    document = Document(loop_limit=LOOP_LIMIT)
    document.add_peer(1)
    for _ in range(50):
        document.sync([(1, craft.message(heads=[b"?" * 32]))])

    document.set_read_only(1, True)
    outcome = document.sync([])

    assert [peers for _, peers in outcome.messages] == [[1]]
    assert outcome.faults == []

"""Another engine goes on with a peer where the first one was, by its token (DESIGN 4)."""

import pytest

from amsync._automerge import Document, InvalidChunk, Replica

from . import craft
from .pipes import Network


def started(*, v1: bool = False) -> Network:
    writer = Replica(b"writer----------", v1=v1)
    for value in range(2_000):
        writer.put("n", value)
    network = Network(Document(), [writer, Replica(b"reader----------", v1=v1)])
    network.settle()
    return network


def moved(network: Network) -> Document:
    """Another engine with the same content and the peers' tokens."""
    document, _ = Document.load(network.replicas[0].changes())
    for peer in range(len(network.replicas)):
        document.add_peer(peer, token=network.document.token(peer))
    return document


@pytest.mark.parametrize("v1", [False, True])
def test_new_owner_greets_with_little_and_all_goes_on(v1: bool) -> None:
    network = started(v1=v1)
    network.document = moved(network)

    outcome = network.exchange([], hello=[0, 1])

    assert all(len(data) < 200 for data, _ in outcome.messages)
    network.replicas[0].put("n", -1)
    network.settle(most_rounds=10)
    assert network.converged()
    assert not network.faults


def test_lost_inbound_message_is_sent_again_after_a_pending_reset() -> None:
    """ENGINE T3: a reset that may not have arrived is part of the token, and said again."""
    network = started()
    network.replicas[0].put("lost", 1)
    assert network.say(0)  # and nobody takes it
    network.document.reset_peer(0)
    network.document = moved_without_telling(network)

    network.exchange([], hello=[0, 1])
    network.settle(most_rounds=10)

    assert network.converged()
    assert not network.faults


def moved_without_telling(network: Network) -> Document:
    heads = network.document.heads()
    changes = [c for c in network.replicas[0].changes() if craft.chunk_hash(craft.body(c)) in heads]
    assert changes, "the lost change is the newest"
    document, _ = Document.load(network.replicas[0].changes()[:-1])
    for peer in range(len(network.replicas)):
        document.add_peer(peer, token=network.document.token(peer))
    return document


def test_token_of_an_owner_that_knew_more_heals() -> None:
    """A server restored from an older copy: what is named as shared is cut to what is there."""
    network = started()
    tokens = [network.document.token(peer) for peer in (0, 1)]
    older = network.replicas[0].changes()[:-500]
    network.document, _ = Document.load(older)
    for peer, token in enumerate(tokens):
        network.document.add_peer(peer, token=token)

    network.exchange([], hello=[0, 1])
    network.settle(most_rounds=10)

    assert network.converged()


def test_role_of_the_peer_goes_with_it() -> None:
    network = started()
    network.document.set_read_only(1, True)
    network.exchange([])
    token = network.document.token(1)
    network.document.add_peer(1, read_only=False, token=token)

    outcome = network.exchange([], hello=[1])

    assert outcome.messages[0][0][-1] & 1, "it may write again, and is told to send again"


def test_token_of_a_document_with_many_heads_stays_small() -> None:
    """What is left out of the shared heads is found again."""
    replicas = [Replica(b"writer----------"), Replica(b"reader----------")]
    for number in range(500):
        other = Replica(number.to_bytes(16, "big"))
        other.put(str(number), number)
        replicas[0].merge(other)
    network = Network(Document(), replicas)
    network.settle()
    assert len(network.document.heads()) == 500

    assert all(len(network.document.token(peer)) < 4096 for peer in (0, 1))
    network.document = moved(network)
    network.exchange([], hello=[0, 1])
    replicas[0].put("last", 1)
    network.settle(most_rounds=10)

    assert network.converged()
    assert not network.faults


CARRIED = ("shared_heads", "takes_v2", "takes_reset", "peer_read_only", "needs_reset")


@pytest.mark.parametrize("v1", [False, True])
def test_what_is_known_of_a_peer_goes_with_it(v1: bool) -> None:
    network = started(v1=v1)
    network.replicas[1].set_read_only(0, True)
    network.settle()
    network.document.reset_peer(0)
    before = [network.document.state(peer) for peer in (0, 1)]
    assert before[1]["peer_read_only"] != v1
    assert before[1]["shared_heads"]

    document = moved(network)

    after = [document.state(peer) for peer in (0, 1)]
    for was, is_now in zip(before, after, strict=True):
        assert {key: is_now[key] for key in CARRIED} == {key: was[key] for key in CARRIED}


@pytest.mark.parametrize("bad", [b"", b"\x02\x00", b"\x01\x00" + b"x" * 31])
def test_bad_token_is_refused(bad: bytes) -> None:
    document = Document()
    with pytest.raises(InvalidChunk):
        document.add_peer(1, token=bad)
    with pytest.raises(KeyError):
        document.token(1)

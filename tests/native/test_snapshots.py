"""What is kept beside a saved document: what came after it, and copies of a few changes."""

import os

from amsync._automerge import Document, Replica, compact

from .pipes import Network

BLOB = 20_000
RECENT_BYTES = 256 << 10
SLACK = 50_000


def bulky(count: int, *, v1: bool = False) -> Replica:
    """Its changes can't be compressed."""
    replica = Replica(b"writer----------", v1=v1)
    for _ in range(count):
        replica.put("blob", os.urandom(BLOB))
    return replica


def test_single_changes_that_a_snapshot_has_are_let_go_of_but_for_the_newest() -> None:
    writer = bulky(50)
    document = Document()
    document.apply(b"".join(writer.changes()))
    snapshot, heads, _ = compact(writer.changes())
    assert document.size_bytes() > 50 * BLOB

    assert document.rebase(snapshot, heads)

    beside = document.size_bytes() - len(snapshot)
    assert RECENT_BYTES - 2 * BLOB < beside < RECENT_BYTES + SLACK


def test_who_was_away_for_a_moment_gets_the_newest_changes_and_not_the_snapshot() -> None:
    writer = bulky(50)
    document = Document()
    reader = Replica()
    network = Network(document, [writer, reader])
    network.settle()
    writer.put("n", 1)
    document.apply(writer.changes()[-1])
    snapshot, heads, _ = compact(writer.changes())
    document.rebase(snapshot, heads)
    document.add_peer(1)
    reader.connect(0, reader.disconnect(0))

    outcome = network.exchange(network.say(1))

    assert reader.heads() == writer.heads()
    assert sum(len(data) for data, _ in outcome.messages) < 1_000


def test_changes_taken_out_of_a_snapshot_for_an_old_peer_are_let_go_of_again() -> None:
    document, _ = Document.load([bulky(50).save()])
    before = document.size_bytes()
    network = Network(document, [Replica(v1=True)])

    network.settle()

    assert network.converged()
    assert document.size_bytes() < before + RECENT_BYTES + SLACK

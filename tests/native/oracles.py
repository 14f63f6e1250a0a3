"""Whether changes that a document has taken harm anybody who holds them, in whatever order."""

from collections.abc import Sequence
from random import Random

from amsync._automerge import Document, Replica, compact

from . import craft
from .craft import Change

PEER = 1 << 40
"""For the document under test: an id that no other peer has."""


def check_nobody_is_harmed(
    document: Document, stored: Sequence[bytes], changes: Sequence[Change], chance: Random
) -> None:
    """Look at everything that the server and its clients do with what was taken.

    Args:
        stored: What the document wanted to be persisted.
        changes: Those that it holds, dependencies first.
    """
    everything = Replica.load(b"".join(change.chunk() for change in changes))
    value = everything.value()
    assert everything.heads() == document.heads()
    assert document.value() == value

    _check_storage(document, stored, value)
    _check_parts(changes)
    _check_one_by_one(changes, value, chance)
    _check_honest_peer(document, stored, value)


def _check_storage(document: Document, stored: Sequence[bytes], value: object) -> None:
    saved = document.save()
    for blobs in ([saved], stored, [compact(stored)[0]]):
        again, problems = Document.load(blobs)
        assert problems == []
        assert again.heads() == document.heads()
        assert again.value() == value
    assert Replica.load(saved).value() == value


def _check_parts(changes: Sequence[Change]) -> None:
    """Somebody may hold just one change and what it depends on, and edit that."""
    for change in changes:
        needed, part = {change.hash()}, list[Change]()
        for earlier in reversed(changes):
            if earlier.hash() in needed:
                needed.update(earlier.deps)
                part.insert(0, earlier)
        replica = Replica.load(b"".join(each.chunk() for each in part))
        again = Replica.load(replica.save())
        assert again.value() == replica.value()
        _edit(replica)


def _check_one_by_one(changes: Sequence[Change], value: object, chance: Random) -> None:
    """A client that gets single changes in another order, and looks after each."""
    replica, left = Replica(b"one-by-one-peer-"), list(changes)
    replica.connect(0)
    while left:
        waiting = {change.hash() for change in left}
        change = chance.choice([each for each in left if waiting.isdisjoint(each.deps)])
        left.remove(change)
        replica.receive(0, craft.message([change.chunk()]))
        assert Replica.load(replica.save()).value() == replica.value()
    assert replica.value() == value
    _edit(replica)


def _check_honest_peer(document: Document, stored: Sequence[bytes], value: object) -> None:
    """A client that comes later gets everything, and what it does then is taken and kept."""
    document.add_peer(PEER)
    peer, stored = Replica(b"honest-peer-0000"), list(stored)
    peer.connect(0)
    _settle(document, peer, stored)
    assert peer.value() == value

    _edit(peer)
    _settle(document, peer, stored)
    assert document.value() == peer.value()
    _check_storage(document, stored, peer.value())


def _settle(document: Document, peer: Replica, stored: list[bytes]) -> None:
    while (said := peer.generate(0)) is not None:
        outcome = document.sync([(PEER, said)])
        assert outcome.faults == []
        stored += outcome.chunks
        for data, peers in outcome.messages:
            if PEER in peers:
                peer.receive(0, data)
    assert peer.heads() == document.heads()


def _edit(replica: Replica) -> None:
    """Honest edits, also of what hostile changes use: the keys `k`, `j` (if a text) and ``."""
    replica.put("k", 1)
    replica.splice("j", 0, 0, "abc")
    value = replica.value()
    assert isinstance(value, dict)
    assert (value.get("k"), str(value.get("j"))[:3]) == (1, "abc")
    if len(value["j"]) > 3:
        replica.splice("j", 3, 1, "")
    replica.put("", 3)
    replica.put("z", 4)
    assert Replica.load(replica.save()).value() == replica.value()

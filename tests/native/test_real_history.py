"""A text as people write it: nothing of it is refused, and every keystroke is light.

Light is what the event loop may take itself: a check that wrongly doubts an honest keystroke
costs a thread and, on a long history, the opening of the document.
"""

import random

import pytest

from amsync._automerge import Document, Outcome, Replica, compact

from .kinds import SERVER

KEYSTROKES = 4_000
BUILT = 400
WORDS = ["the ", "quick ", "brown ", "fox ", "jumps ", "over ", "żółty ", "pies. ", "\n"]


class Writer:
    """Types words at a cursor that stays where it is, or goes elsewhere, or back over a typo."""

    def __init__(self, peer: int, base: bytes, chance: random.Random) -> None:
        self.peer, self.chance = peer, chance
        self.replica = Replica.load(base, bytes([peer]) * 16)
        self.replica.connect(SERVER)
        self.cursor = 0
        self.patience = 0

    def length(self) -> int:
        value = self.replica.value()
        assert isinstance(value, dict)
        return len(value["text"])

    def burst(self) -> int:
        """Returns the number of keystrokes; each is one change."""
        length = self.length()
        if self.chance.random() < 0.3:
            self.cursor = self.chance.randint(0, length)
        self.cursor = min(self.cursor, length)
        before = self.cursor
        word = self.chance.choice(WORDS)
        for letter in word:
            self.replica.splice("text", self.cursor, 0, letter)
            self.cursor += 1
        backspaces = min(self.cursor, self.chance.choice([0, 0, 0, 1, 2, len(word), 9]))
        for _ in range(backspaces):
            self.cursor -= 1
            self.replica.splice("text", self.cursor, 1, "")
        deletes = min(length - before, self.chance.choice([0, 0, 0, 0, 3]))
        for _ in range(deletes):
            self.replica.splice("text", self.cursor, 1, "")
        return len(word) + backspaces + deletes


class Room:
    """A document and its writers, some of whom are away for a while and come back."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        author = Replica(b"author----------")
        author.splice("text", 0, 0, "Once upon a time")
        base = author.save()
        self.document = Document()
        self.document.apply(base)
        self.stored = [base]
        count = self.chance.randint(3, 5)
        self.writers = [Writer(peer, base, self.chance) for peer in range(1, count + 1)]
        self.keystrokes = 0
        for writer in self.writers:
            self.document.add_peer(writer.peer)

    def take(self, outcome: Outcome) -> None:
        assert outcome.faults == []
        self.stored += outcome.chunks
        for data, peers in outcome.messages:
            for peer in peers:
                self.writers[peer - 1].replica.receive(SERVER, data)

    def sync(self, writers: list[Writer]) -> bool:
        """Let these say what they have to; false when they have nothing."""
        said = [(writer.peer, writer.replica.generate(SERVER)) for writer in writers]
        batch = [(peer, message) for peer, message in said if message is not None]
        outcome = self.document.sync(batch, only_light=True)
        if self.keystrokes > BUILT:
            assert outcome.taken == len(batch)
            assert not outcome.is_frozen
        self.take(outcome)
        self.take(self.document.sync(batch[outcome.taken :]))
        return bool(batch)

    def write(self) -> None:
        writer = self.chance.choice(self.writers)
        self.keystrokes += writer.burst()
        if self.keystrokes > BUILT and self.chance.random() < 0.05:
            writer.patience = 5
        writer.patience = max(0, writer.patience - 1)
        if self.chance.random() < 0.05:
            other = self.chance.choice(self.writers)
            if other is not writer:
                writer.replica.merge(other.replica)
        self.sync([writer for writer in self.writers if not writer.patience])


@pytest.mark.parametrize("seed", range(3))
def test_every_keystroke_is_taken_and_light(seed: int) -> None:
    room = Room(seed)

    while room.keystrokes < KEYSTROKES:
        room.write()
    while room.sync(room.writers):
        pass

    assert room.document.change_count() > KEYSTROKES
    for writer in room.writers:
        assert writer.replica.heads() == room.document.heads()
    assert room.document.value() == room.writers[0].replica.value()
    for blobs in (room.stored, [compact(room.stored)[0]]):
        again, problems = Document.load(blobs)
        assert (again.heads(), problems) == (room.document.heads(), [])

"""Our sync beside the crate's own, step by step: equal states, equal messages.

Convergence alone is a weak oracle: the protocol heals most mistakes at the price of traffic
(ENGINE 1). Here the crate's document and states get the same inputs as ours, and after each step
every peer's whole state and what every message says are compared; only the order and encoding
of changes may differ, and the chunk without changes that the crate sends of an empty document.
That includes the crate's defects, so whether they converge is not asked here.
"""

import os
import random

import pytest

from amsync._automerge import Document, Replica

from .kinds import NEW, OLD, V1, Client, choose, parts

SEEDS = 4_000 if os.environ.get("AMSYNC_TEST_ALL") else 400
BLOCK = SEEDS // 8
NEVER = 1_000_000_000


class Lockstep:
    def __init__(self, seed: int, most_clients: int = 4) -> None:
        self.chance = random.Random(seed)
        count = self.chance.randint(1, most_clients)
        kinds = self.chance.choices([NEW, OLD, V1], [4, 1, 1], k=count)
        self.clients = [Client(peer + 1, self.chance, kind) for peer, kind in enumerate(kinds)]
        self.ours = Document(like_crate=True, window=NEVER, loop_limit=NEVER)
        self.theirs = Replica(b"server----------")
        self.saved = [self.theirs.save()]
        self.engaged: set[int] = set()
        self.readers: set[int] = set()
        for client in self.clients:
            if self.chance.random() < 0.5:
                client.edit()
            self.connect(client)

    def client(self) -> Client:
        return self.chance.choice(self.clients)

    def connect(self, client: Client) -> None:
        self.ours.add_peer(client.peer)
        self.theirs.connect(client.peer)
        self.engaged.discard(client.peer)
        self.readers.discard(client.peer)

    def exchange(self, client: Client, message: bytes | None) -> None:
        """Give a message to both, or have both greet; compare what they say and know then."""
        batch = [] if message is None else [(client.peer, message)]
        said = self.ours.sync(batch, [client.peer])
        assert said.faults == []
        self.engaged.add(client.peer)
        has_news = False
        if message is not None:
            self.theirs.receive(client.peer, message)
            has_news = parts(message)[1] and client.peer not in self.readers
        ours = {peer: data for data, peers in said.messages for peer in peers}
        for other in self.clients:
            if other.peer not in self.engaged or not (has_news or other is client):
                continue
            theirs = self.theirs.generate(other.peer)
            self.compare(other, ours.pop(other.peer, None), theirs)
        assert ours == {}
        assert list(said.heads) == self.theirs.heads()

    def compare(self, client: Client, ours: bytes | None, theirs: bytes | None) -> None:
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            before, has_changes, behind = parts(ours)
            other_before, has_other, other_behind = parts(theirs)
            is_of_nothing = self.ours.change_count() == 0
            assert (before, behind) == (other_before, other_behind)
            assert has_changes == has_other or (is_of_nothing and not has_changes)
            client.from_server.append(ours)
        state, other = self.ours.state(client.peer), self.theirs.state(client.peer)
        assert state == other

    def send(self) -> None:
        client = self.client()
        client.speak()
        if client.to_server:
            message = client.to_server.popleft()
            self.exchange(client, message)
            if self.chance.random() < 0.05:
                self.exchange(client, message)  # twice

    def hear(self) -> None:
        client = self.client()
        if client.from_server:
            client.hear()

    def lose(self) -> None:
        client = self.client()
        lost = self.chance.choice([client.from_server, client.to_server])
        if lost:
            lost.popleft()

    def hurry(self) -> None:
        """A message overtakes another one."""
        client = self.client()
        self.chance.choice([client.from_server, client.to_server]).rotate(1)

    def reconnect(self) -> None:
        client = self.client()
        client.reconnect(keep_state=self.chance.random() < 0.6)
        self.connect(client)
        if self.chance.random() < 0.5:
            self.exchange(client, None)

    def reset(self) -> None:
        client = self.client()
        if client.peer in self.engaged:
            self.ours.reset_peer(client.peer)
            self.theirs.reset_peer(client.peer)
            said = self.ours.sync([])
            ours = {peer: data for data, peers in said.messages for peer in peers}
            self.compare(client, ours.get(client.peer), self.theirs.generate(client.peer))

    def turn_server(self) -> None:
        client = self.client()
        if client.peer in self.engaged:
            read_only = client.peer not in self.readers
            (self.readers.add if read_only else self.readers.discard)(client.peer)
            self.ours.set_read_only(client.peer, read_only)
            self.theirs.set_read_only(client.peer, read_only)
            self.exchange(client, None)

    def turn_client(self) -> None:
        client = self.client()
        if client.kind == NEW:
            client.turn(read_only=not client.is_read_only)

    def restore(self) -> None:
        """The server comes back with an older copy."""
        copy = self.chance.choice(self.saved)
        self.ours, problems = Document.load([copy], like_crate=True, window=NEVER, loop_limit=NEVER)
        assert problems == []
        self.theirs = Replica.load(copy, b"server----------")
        for client in self.clients:
            self.connect(client)
            self.exchange(client, None)

    def merge(self) -> None:
        one, other = self.client(), self.client()
        if one is not other:
            one.replica.merge(other.replica)

    def play(self, steps: int) -> None:
        kinds = [
            (8.0, lambda: self.client().edit()),
            (20.0, self.send),
            (20.0, self.hear),
            (0.7, self.lose),
            (0.5, self.hurry),
            (0.7, self.reconnect),
            (0.7, self.reset),
            (0.7, self.turn_server),
            (0.5, self.turn_client),
            (0.3, self.restore),
            (1.0, self.merge),
            (0.5, lambda: self.saved.append(self.theirs.save())),
        ]
        for _ in range(steps):
            choose(self.chance, kinds)()


@pytest.mark.parametrize("start", range(0, SEEDS, BLOCK))
def test_every_step_is_that_of_the_crate(start: int) -> None:
    for seed in range(start, start + BLOCK):
        try:
            Lockstep(seed).play(120)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

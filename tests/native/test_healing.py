"""Peers of three generations come to equal heads, whatever was lost, in a bounded exchange.

Losses are repaired as the protocol asks (PROTOCOL 5.7): after an inbound loss the peer's state is
renewed with a reset, after an outbound one it is renewed and greeted, or the peer connects again.
Meanwhile documents are compacted, loaded anew, restored from older copies and taken over with
tokens, and roles change on both sides.
"""

import os
import random

import pytest

from amsync._automerge import Document, Outcome, compact

from .kinds import NEW, OLD, V1, Client, choose

SEEDS = 8_000 if os.environ.get("AMSYNC_TEST_ALL") else 800
BLOCK = SEEDS // 8
MOST_ROUNDS = 60


class Healing:
    def __init__(self, seed: int, most_clients: int = 5) -> None:
        self.chance = random.Random(seed)
        count = self.chance.randint(2, most_clients)
        kinds = self.chance.choices([NEW, OLD, V1], [4, 1, 1], k=count)
        self.clients = [Client(peer + 1, self.chance, kind) for peer, kind in enumerate(kinds)]
        self.window = self.chance.choice([1, 2, 8])
        self.document = Document(window=self.window)
        self.stored: list[bytes] = []
        self.sidecar: bytes | None = None
        self.copies: list[list[bytes]] = [[]]
        self.readers: set[int] = set()
        self.delivered = 0
        for client in self.clients:
            for _ in range(self.chance.randrange(4)):
                client.edit()
            self.document.add_peer(client.peer)

    def client(self) -> Client:
        return self.chance.choice(self.clients)

    def take(self, outcome: Outcome) -> None:
        faults = [fault for fault in outcome.faults if fault.reason != "loop_reset"]
        assert faults == []
        self.stored += outcome.chunks
        for data, peers in outcome.messages:
            for peer in peers:
                self.clients[peer - 1].from_server.append(data)

    def sync(self, batch: list[tuple[int, bytes]], hello: list[int]) -> None:
        outcome = self.document.sync(batch, hello, only_light=True)
        self.take(outcome)
        rest = batch[outcome.taken :]
        if rest or outcome.is_frozen:
            self.take(self.document.sync(rest))

    def send(self) -> None:
        batch = []
        for client in self.chance.sample(self.clients, self.chance.randint(1, len(self.clients))):
            client.speak()
            if client.to_server:
                message = client.to_server.popleft()
                batch += [(client.peer, message)] * self.chance.choice([1, 1, 1, 1, 2])
        self.sync(batch, [])

    def hear(self) -> None:
        """And answer at once, as JavaScript does: whoever hears a message without changes before
        it has answered one with changes, never answers that one."""
        client = self.client()
        if client.from_server:
            client.hear()
            client.speak()

    def lose_inbound(self) -> None:
        client = self.client()
        if client.to_server:
            client.to_server.clear()
            self.document.reset_peer(client.peer)
            self.sync([], [])

    def lose_outbound(self) -> None:
        client = self.client()
        if client.from_server:
            client.from_server.clear()
            self.document.add_peer(client.peer, read_only=client.peer in self.readers)
            self.sync([], [client.peer])

    def hurry(self) -> None:
        client = self.client()
        self.chance.choice([client.from_server, client.to_server]).rotate(1)

    def reconnect(self) -> None:
        client = self.client()
        client.reconnect(keep_state=self.chance.random() < 0.7)
        self.readers.discard(client.peer)
        self.document.add_peer(client.peer)
        if self.chance.random() < 0.5:
            self.sync([], [client.peer])

    def turn_server(self) -> None:
        client = self.client()
        read_only = client.peer not in self.readers
        (self.readers.add if read_only else self.readers.discard)(client.peer)
        self.document.set_read_only(client.peer, read_only)
        self.sync([], [client.peer])

    def turn_client(self) -> None:
        client = self.client()
        if client.kind == NEW:
            client.turn(read_only=not client.is_read_only)

    def compact(self) -> None:
        if not self.document.queued_count() and self.stored:
            snapshot, heads, self.sidecar = compact(self.stored)
            self.stored = [snapshot]
            assert self.document.rebase(snapshot, heads)

    def open(self, blobs: list[bytes]) -> None:
        document, problems = Document.load(blobs, sidecar=self.sidecar, window=self.window)
        assert problems == []
        self.document, self.stored = document, list(blobs)

    def take_over(self) -> None:
        """A new owner with the same content, and what it is told of the peers."""
        tokens = {client.peer: self.document.token(client.peer) for client in self.clients}
        self.open(self.stored)
        for client in self.clients:
            read_only = client.peer in self.readers
            self.document.add_peer(client.peer, read_only=read_only, token=tokens[client.peer])
            if client.from_server and self.chance.random() < 0.3:
                client.from_server.clear()
            if client.to_server and self.chance.random() < 0.3:
                client.to_server.clear()
                self.document.reset_peer(client.peer)
        self.sync([], [client.peer for client in self.clients])

    def restore(self) -> None:
        """An older copy comes back: everybody may have more than we believe."""
        self.open(self.chance.choice(self.copies))
        for client in self.clients:
            self.document.add_peer(client.peer, read_only=client.peer in self.readers)
            self.document.reset_peer(client.peer)
        self.sync([], [])

    def play(self, steps: int) -> None:
        kinds = [
            (8.0, lambda: self.client().edit()),
            (12.0, self.send),
            (16.0, self.hear),
            (0.7, self.lose_inbound),
            (0.7, self.lose_outbound),
            (0.5, self.hurry),
            (0.5, self.reconnect),
            (0.5, self.turn_server),
            (0.5, self.turn_client),
            (0.4, self.compact),
            (0.4, self.take_over),
            (0.3, self.restore),
            (0.5, lambda: self.copies.append(list(self.stored))),
        ]
        for _ in range(steps):
            choose(self.chance, kinds)()

    def drain(self) -> None:
        for client in self.clients:
            if client.is_read_only:
                client.turn(read_only=False)
        for peer in self.readers:
            self.document.set_read_only(peer, False)
        self.sync([], sorted(self.readers))
        for _ in range(MOST_ROUNDS):
            for client in self.clients:
                client.speak()
                while client.from_server:
                    self.delivered += 1
                    client.hear()
                    client.speak()
            batch = [(client.peer, data) for client in self.clients for data in client.to_server]
            if not batch:
                break
            for client in self.clients:
                client.to_server.clear()
            self.sync(batch, [])
        else:
            raise AssertionError("still talking")
        for client in self.clients:
            assert client.replica.heads() == self.document.heads()
        again, problems = Document.load(self.stored)
        assert (again.heads(), problems) == (self.document.heads(), [])


@pytest.mark.parametrize("start", range(0, SEEDS, BLOCK))
def test_all_come_to_equal_heads(start: int) -> None:
    for seed in range(start, start + BLOCK):
        try:
            healing = Healing(seed)
            healing.play(100)
            healing.drain()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

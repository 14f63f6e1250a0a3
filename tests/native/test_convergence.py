"""Replicas with random edits over lossless ordered pipes end with equal heads."""

import random
from collections import deque

import pytest

from amsync._automerge import Document, Replica

SEEDS = 300
BLOCK = 50


class Client:
    def __init__(self, chance: random.Random, number: int) -> None:
        v1 = chance.random() < 0.3
        self.replica = Replica(bytes([number]) * 16, v1=v1)
        self.inbox: deque[bytes] = deque()
        self.outbox: deque[bytes] = deque()
        self.alone: list[bytes] = []

    def edit(self, chance: random.Random) -> None:
        kind = chance.random()
        if kind < 0.5:
            self.replica.put(chance.choice("abc"), chance.randrange(100))
        elif kind < 0.9:
            self.replica.splice("text", 0, 0, chance.choice(["x", "hello", "żółw"]))
        elif self.alone:
            self.replica.edit_at(self.alone, "at", chance.randrange(100))
        else:
            self.alone = self.replica.heads()

    def speak(self) -> None:
        message = self.replica.generate(0)
        if message is not None:
            self.outbox.append(message)


def deliver(document: Document, clients: list[Client], batch: list[tuple[int, bytes]]) -> None:
    outcome = document.sync(batch)
    assert not [fault for fault in outcome.faults if fault.reason != "loop_reset"], outcome.faults
    for data, peers in outcome.messages:
        for peer in peers:
            clients[peer].inbox.append(data)


def play(seed: int) -> None:
    chance = random.Random(seed)
    document = Document(window=chance.choice([1, 2, 8]))
    clients = [Client(chance, number + 1) for number in range(chance.randint(2, 5))]
    for peer, client in enumerate(clients):
        for _ in range(chance.randrange(4)):
            client.edit(chance)
        client.replica.connect(0)
        document.add_peer(peer)
    for _ in range(60):
        peer = chance.randrange(len(clients))
        client = clients[peer]
        action = chance.random()
        if action < 0.35:
            client.edit(chance)
        elif action < 0.55:
            client.speak()
        elif action < 0.75 and client.inbox:
            client.replica.receive(0, client.inbox.popleft())
        elif action < 0.78:
            client.inbox.clear()
            client.outbox.clear()
            client.replica.connect(0, client.replica.disconnect(0))
            document.add_peer(peer)
        elif client.outbox:
            deliver(document, clients, [(peer, client.outbox.popleft())])
    for _ in range(60):
        for client in clients:
            while client.inbox:
                client.replica.receive(0, client.inbox.popleft())
            client.speak()
        batch = [(peer, data) for peer, client in enumerate(clients) for data in client.outbox]
        for client in clients:
            client.outbox.clear()
        if not batch:
            break
        deliver(document, clients, batch)
    else:
        raise AssertionError(f"seed {seed}: still talking")
    assert all(client.replica.heads() == document.heads() for client in clients), f"seed {seed}"
    assert all(client.replica.value() == document.value() for client in clients)
    assert Document.load([document.save()])[0].heads() == document.heads()


@pytest.mark.parametrize("start", range(0, SEEDS, BLOCK))
def test_replicas_converge(start: int) -> None:
    for seed in range(start, start + BLOCK):
        play(seed)


def test_empty_document_sent_as_a_chunk_is_not_counted_as_unanswered() -> None:
    """With a window of 1 this peer was held for good."""
    play(1024)

"""Lossless ordered pipes between a `Document` and replicas; a peer's number is its index."""

from collections.abc import Iterable

from amsync._automerge import Document, Fault, Outcome, Replica


class Network:
    def __init__(self, document: Document, replicas: Iterable[Replica] = ()) -> None:
        self.document = document
        self.replicas: list[Replica] = []
        self.faults: list[Fault] = []
        self.delivered = 0
        self.chunks: list[bytes] = []
        for replica in replicas:
            self.join(replica)

    def join(self, replica: Replica, *, read_only: bool = False) -> int:
        peer = len(self.replicas)
        self.replicas.append(replica)
        self.document.add_peer(peer, read_only=read_only)
        replica.connect(0)
        return peer

    def say(self, peer: int) -> list[tuple[int, bytes]]:
        message = self.replicas[peer].generate(0)
        return [] if message is None else [(peer, message)]

    def exchange(self, batch: list[tuple[int, bytes]], hello: Iterable[int] = ()) -> Outcome:
        outcome = self.document.sync(batch, list(hello))
        self.take(outcome)
        return outcome

    def take(self, outcome: Outcome) -> None:
        """Deliver what an outcome holds; without it, the messages of the outcome are lost."""
        self.faults += outcome.faults
        self.chunks += outcome.chunks
        for data, peers in outcome.messages:
            for peer in peers:
                self.delivered += 1
                self.replicas[peer].receive(0, data)

    def settle(self, most_rounds: int = 60) -> int:
        """Run until nobody has anything to say; returns the number of rounds."""
        for round_number in range(most_rounds):
            batch = [item for peer in range(len(self.replicas)) for item in self.say(peer)]
            if not batch:
                return round_number
            self.exchange(batch)
        raise AssertionError(f"still talking after {most_rounds} rounds: {self.faults}")

    def converged(self) -> bool:
        heads = self.document.heads()
        return all(replica.heads() == heads for replica in self.replicas)

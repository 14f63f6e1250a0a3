"""Clients of several generations around the crate's own sync, and what is read of messages.

Old clients are the present crate with flags taken away on both ways: `old` knows one flag, that
it takes v2 messages (JS 2.2.9, 3.0.0); `v1` knows none.
"""

import random
from collections import deque
from collections.abc import Callable

from amsync._automerge import Replica

from .craft import read_unsigned

NEW, OLD, V1 = "new", "old", "v1"
SERVER = 0
NEW_TAIL, OLD_TAIL = bytes([2, 2]), bytes([1, 2])


def parts(message: bytes) -> tuple[bytes, bool, bytes]:
    """Everything before the changes; whether there are any; what comes behind them."""
    at = 1
    for _ in range(2):
        count, at = read_unsigned(message, at)
        at += 32 * count
    count, at = read_unsigned(message, at)
    for _ in range(count):
        hashes, at = read_unsigned(message, at)
        length, at = read_unsigned(message, at + 32 * hashes)
        at += length
    before = message[:at]
    count, at = read_unsigned(message, at)
    has_changes = count > 0
    for _ in range(count):
        length, at = read_unsigned(message, at)
        at += length
    return before, has_changes, message[at:]


def aged(message: bytes, kind: str) -> bytes:
    """A message as it would be without the flags that this kind doesn't know."""
    tail = parts(message)[2]
    if kind == NEW or not tail:
        return message
    return message[: len(message) - len(tail)] + (OLD_TAIL if kind == OLD else b"")


class Client:
    """One peer of the server, with queues between them that a test empties."""

    def __init__(self, peer: int, chance: random.Random, kind: str) -> None:
        self.peer, self.kind, self.chance = peer, kind, chance
        self.replica = Replica(peer.to_bytes(16, "big"))
        self.isolates = chance.random() < 0.5
        self.past: list[bytes] = []
        self.is_read_only = False
        self.to_server: deque[bytes] = deque()
        self.from_server: deque[bytes] = deque()
        self.replica.connect(SERVER)

    def edit(self) -> None:
        draw = self.chance.random()
        if draw < 0.45:
            self.replica.put(self.chance.choice("abc"), self.chance.randrange(100))
        elif draw < 0.8:
            self.replica.splice("text", 0, 0, self.chance.choice(["x", "hello", "żółw"]))
        elif draw < 0.85:
            for _ in range(self.chance.choice([5, 40])):
                self.replica.splice("text", 0, 0, "bulk")
        elif not self.isolates:  # both in one actor is ENGINE T2
            self.replica.empty_change()
        elif self.past:
            self.replica.edit_at(self.past, "at", self.chance.randrange(100))
        else:
            self.past = self.replica.heads()

    def speak(self) -> None:
        message = self.replica.generate(SERVER)
        if message is not None:
            self.to_server.append(aged(message, self.kind))

    def hear(self) -> None:
        self.replica.receive(SERVER, aged(self.from_server.popleft(), self.kind))

    def reconnect(self, *, keep_state: bool) -> None:
        self.to_server.clear()
        self.from_server.clear()
        state = self.replica.disconnect(SERVER)
        self.replica.connect(SERVER, state if keep_state else None)
        self.is_read_only = False

    def turn(self, *, read_only: bool) -> None:
        self.is_read_only = read_only
        self.replica.set_read_only(SERVER, read_only)


Step = Callable[[], None]


def choose(chance: random.Random, steps: list[tuple[float, Step]]) -> Step:
    """One of several steps, by weight."""
    (step,) = chance.choices([step for _, step in steps], [weight for weight, _ in steps])
    return step

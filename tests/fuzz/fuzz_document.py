"""Any sync message: `Document.sync` answers with an `Outcome`; no panic, nothing bad is logged.

Nothing bad means: what it wants persisted loads again without a fault, to the same heads; and an
honest peer that comes later gets everything. Most inputs die at a checksum, so `mutated` mends
those of the chunks that it has changed. Not guided by coverage: the code under test is Rust. Run
it with `python tests/fuzz/fuzz_document.py SECONDS [SEED]`.
"""

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from amsync._automerge import Document, Replica  # noqa: E402
from native import craft  # noqa: E402

HOSTILE, HONEST = 1, 2
SECONDS_PER_INPUT = 10.0


def shared_history() -> Replica:
    """What the document holds before the input comes; always the same."""
    replica = Replica(b"shared-history-0")
    replica.splice("text", 0, 0, "shared text")
    replica.put("n", 1)
    return replica


def one_input(message: bytes) -> None:
    """Check one message."""
    history = shared_history()
    document = Document()
    document.apply(b"".join(history.changes()))
    stored = [document.save()]
    document.add_peer(HOSTILE, track_heads=True)
    document.add_peer(HONEST)
    started = time.monotonic()

    outcome = document.sync([(HOSTILE, message)])
    stored += outcome.chunks
    if not outcome.faults:  # else nobody listens to it any more
        outcome = document.sync([(HOSTILE, message), (HOSTILE, craft.message())], [HONEST])
        stored += outcome.chunks

    elapsed = time.monotonic() - started
    assert elapsed < SECONDS_PER_INPUT, f"{len(message)} bytes took {elapsed:.1f} s"
    assert {fault.peer for fault in outcome.faults} <= {HOSTILE}
    assert outcome.heads == tuple(document.heads())
    again, faults = Document.load(stored)
    assert faults == []
    assert again.heads() == document.heads()
    document.value()

    peer = Replica(b"honest-peer-0000")
    peer.connect(0)
    for _ in range(10):
        said = peer.generate(0)
        if said is None:
            break
        for data, peers in document.sync([(HONEST, said)]).messages:
            if HONEST in peers:
                peer.receive(0, data)
    assert peer.heads() == document.heads()


def chunks_of(blob: bytes) -> list[tuple[int, int, int]]:
    """Where chunks begin, where their data begins and where it ends; as the lengths claim."""
    found = []
    at = blob.find(craft.MAGIC)
    while at >= 0 and at + 10 <= len(blob):
        length, shift, data = 0, 0, at + 9
        while data < len(blob) and shift < 63:
            length |= (blob[data] & 0x7F) << shift
            shift += 7
            data += 1
            if not blob[data - 1] & 0x80:
                break
        if data + length <= len(blob):
            found.append((at, data, data + length))
        at = blob.find(craft.MAGIC, at + 4)
    return found


def mended(message: bytes) -> bytes:
    """Put the right checksum on every change and document chunk."""
    fixed = bytearray(message)
    for start, data, end in chunks_of(message):
        kind = fixed[start + 8]
        if kind != craft.COMPRESSED:
            fixed[start + 4 : start + 8] = craft.chunk_hash(bytes(fixed[data:end]), kind)[:4]
    return bytes(fixed)


def mutated(message: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Change a message in one of the ways of fuzzers; checksums are mostly right afterwards."""
    changed = bytearray(message)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(changed):
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                del changed[at : at + chance.randint(1, 4)]
            case 3:
                changed[at:at] = chance.randbytes(chance.randint(1, 4))
            case 4:
                changed[at:at] = craft.unsigned(1 << chance.randrange(64))
            case 5:
                other = chance.choice(others)
                cut = chance.randrange(len(other) + 1)
                changed[at:] = other[cut:]
            case _:
                count = chance.randint(1, 16)
                changed[at:at] = changed[at : at + count]
    data = bytes(changed)
    return mended(data) if chance.random() < 0.9 else data


def wrapped(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A message around mutated chunks: the lengths outside the chunks are right."""
    chunks = [
        seed[start:end]
        for seed in (chance.choice(seeds) for _ in range(chance.randint(1, 3)))
        for start, _, end in chunks_of(seed)
    ]
    chunks = [craft.chunk(each[8], mutated(_data(each), [_data(each)], chance)) for each in chunks]
    version = chance.choice((0x42, 0x43))
    if chunks and version == 0x43:
        chunks = [b"".join(chunks)]
    return craft.message(chunks, [chance.randbytes(32)], version=version)


def crafted(chance: random.Random) -> bytes:
    """A message of changes that are well-formed outside and wrong somewhere inside."""
    history = shared_history()
    actors = [b"shared-history-0", b"hostile-peer-000", b"", chance.randbytes(16)]
    columns = (
        craft.OBJECT_ACTOR,
        craft.OBJECT_COUNTER,
        craft.KEY_ACTOR,
        craft.KEY_COUNTER,
        craft.KEY_STRING,
        craft.INSERT,
        craft.ACTION,
        craft.VALUE_META,
        craft.VALUE,
        craft.PREDECESSOR_GROUP,
        craft.PREDECESSOR_ACTOR,
        craft.PREDECESSOR_COUNTER,
        chance.choice((craft.ACTION | craft.DEFLATE, chance.randrange(1 << 16))),
    )
    numbers = (0, 1, 2, 3, 12, 13, 14, 200, 1 << 31, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
    changes: list[bytes] = []
    hashes = [*history.heads(), chance.randbytes(32)]
    for _ in range(chance.randint(1, 3)):
        operations = chance.choice((0, 1, 1, 2, 5))
        change = craft.Change(
            actor=chance.choice(actors),
            sequence=chance.choice((1, 1, 2, 3, chance.choice(numbers))),
            start=chance.choice((1, 13, 14, 15, chance.choice(numbers))),
            deps=chance.choices(hashes, k=chance.choice((0, 1, 1, 2))),
            others=chance.choices(actors, k=chance.choice((0, 0, 1, 2))),
            operations=operations,
            columns={
                chance.choice(columns): _column(operations, numbers, chance)
                for _ in range(chance.choice((0, 0, 0, 1, 1, 3)))
            },
            extra=chance.choice((b"", b"", b"extra")),
        )
        changes.append(change.compressed() if chance.random() < 0.2 else change.chunk())
        hashes.append(change.hash())
    version = chance.choice((0x42, 0x43))
    if version == 0x43:
        changes = [b"".join(changes)]
    return craft.message(changes, hashes[-1:], version=version)


def _column(operations: int, numbers: Sequence[int], chance: random.Random) -> bytes:
    value = chance.choice(numbers)
    match chance.randrange(5):
        case 0:
            return craft.run(operations, value)
        case 1:
            return craft.run(chance.choice((-1, 1, operations + 1, 1 << 40)), value)
        case 2:
            return craft.run(operations, chance.choice((b"k", b"n", b"text", b"\xff")))
        case 3:
            return chance.randbytes(chance.randint(1, 8))
        case _:
            return craft.signed(-operations) + craft.unsigned(value) * operations


def _data(chunk: bytes) -> bytes:
    (_, data, end), *_ = chunks_of(chunk)
    return chunk[data:end]


def fuzz(corpus: Sequence[bytes], chance: random.Random) -> bytes:
    """Make and check one input; return it."""
    match chance.randrange(4):
        case 0:
            message = mutated(chance.choice(corpus), corpus, chance)
        case 1:
            message = wrapped(chance, corpus)
        case _:
            message = crafted(chance)
    try:
        one_input(message)
    except BaseException as error:
        error.add_note(f"the message was {message.hex()}")
        raise
    return message


def main(seconds: float, seed: int) -> None:
    """Fuzz for a time; ends with the exception that was found."""
    corpus = [path.read_bytes() for path in sorted((HERE / "corpus" / "document").iterdir())]
    chance = random.Random(seed)
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        fuzz(corpus, chance)
        count += 1
    print(f"{count} messages with seed {seed}: nothing found")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32))

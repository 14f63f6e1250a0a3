"""Sync messages are held against their bytes before the crate sees them."""

import random

import pytest

from amsync._automerge import Document, Replica

from . import craft


def bloom(entries: int, bits: int, probes: int, data: bytes) -> bytes:
    shape = craft.unsigned(entries) + craft.unsigned(bits) + craft.unsigned(probes) + data
    return craft.message(haves=[craft.have(bloom=shape)])


REFUSED = {
    "empty": (b"", "malformed"),
    "unknown type": (b"\x41", "malformed"),
    "torn": (craft.message()[:-8], "malformed"),
    "2^60 heads": (b"\x42" + craft.unsigned(2**60), "malformed"),
    "2^60 needs": (b"\x42\0" + craft.unsigned(2**60), "malformed"),
    "2^60 haves": (b"\x42\0\0" + craft.unsigned(2**60), "malformed"),
    "nine haves": (craft.message(haves=[craft.have()] * 9), "malformed"),
    "2^60 changes": (b"\x42\0\0\0" + craft.unsigned(2**60), "malformed"),
    "65-bit number": (b"\x42" + b"\xff" * 9 + b"\x02", "malformed"),
    "endless number": (b"\x42" + b"\xff" * 30, "malformed"),
    "bloom with 0 bits per entry": (bloom(1, 0, 7, b""), "bloom"),
    "bloom with 2^32 entries": (bloom(2**32 - 1, 10, 7, b"xx"), "bloom"),
    "bloom with 2^40 entries": (bloom(2**40, 10, 7, b"xx"), "bloom"),
    "bloom with 2^31 probes": (bloom(1, 10, 2**31, b"xx"), "bloom"),
    "bloom with 0 probes": (bloom(1, 10, 0, b"xx"), "bloom"),
    "bloom with bytes missing": (bloom(100, 10, 7, b"xx"), "bloom"),
    "bloom with bytes too many": (bloom(1, 10, 7, b"xxx"), "bloom"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_message_is_refused(case: str) -> None:
    data, reason = REFUSED[case]
    document = Document()
    document.add_peer(1)

    outcome = document.sync([(1, data)])

    assert [fault.reason for fault in outcome.faults] == [reason]
    assert outcome.messages == []


def test_other_bloom_parameters_are_legal() -> None:
    document = Document()
    document.add_peer(1)
    assert document.sync([(1, bloom(4, 20, 3, bytes(10)))]).faults == []


def test_change_needed_many_times_is_sent_once() -> None:
    replica, document = Replica(), Document()
    replica.put("text", "x" * 1000)
    document.apply(replica.changes()[0])
    document.add_peer(1)

    outcome = document.sync([(1, craft.message(need=replica.heads() * 500, haves=[]))])

    assert len(outcome.messages[0][0]) < 2000


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_are_refused_or_harmless(seed: int) -> None:
    chance = random.Random(seed)
    replica, document = Replica(), Document()
    for number in range(20):
        replica.put(f"k{number}", "x" * number)
        replica.splice("text", 0, 0, "hello")
    document.apply(b"".join(replica.changes()))
    heads = document.heads()
    document.add_peer(1)
    honest = [
        craft.message(replica.changes(), replica.heads()),
        craft.message([replica.save()], replica.heads(), version=0x43),
        craft.message(haves=[craft.have(replica.heads(), craft.unsigned(5) + b"\x0a\x07abcdefg")]),
    ]

    for _ in range(50):
        data = bytearray(chance.choice(honest))
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        document.sync([(1, bytes(data[: chance.randint(1, len(data))]))])

    assert document.heads() == heads


def test_unknown_peer_raises_before_anything_is_taken() -> None:
    replica, document = Replica(), Document()
    replica.put("n", 1)
    document.add_peer(1)
    message = craft.message(replica.changes(), replica.heads())

    with pytest.raises(KeyError):
        document.sync([(1, message), (2, message)])
    with pytest.raises(KeyError):
        document.sync([(1, message)], hello=[3])

    assert document.heads() == []

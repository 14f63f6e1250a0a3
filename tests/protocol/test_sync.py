"""What is read of sync messages without the engine, against the engine's own messages."""

from hypothesis import given
from hypothesis import strategies as st

from amsync._automerge import Document, Replica
from amsync.protocol.sync import is_answer, names_no_heads


def exchange(replica: Replica, document: Document) -> tuple[list[bytes], list[bytes]]:
    """Sync until quiet; what the replica said, and what the document said."""
    document.add_peer(1)
    replica.connect(0)
    said: list[bytes] = []
    heard: list[bytes] = []
    while (message := replica.generate(0)) is not None:
        said.append(message)
        for data, _ in document.sync([(1, message)]).messages:
            heard.append(data)
            replica.receive(0, data)
    return said, heard


def test_an_acknowledgement_is_an_answer_and_an_edit_is_not() -> None:
    writer, reader, document = Replica(b"w" * 16), Replica(b"r" * 16), Document()
    writer.put("key", 1)
    exchange(writer, document)
    document.add_peer(2)
    reader.connect(0)
    message = reader.generate(0)
    while message is not None:
        for data, peers in document.sync([(2, message)]).messages:
            if 2 in peers:
                reader.receive(0, data)
        message = reader.generate(0)

    writer.put("key", 2)
    edit = writer.generate(0)
    assert edit is not None
    for data, peers in document.sync([(1, edit)]).messages:
        if 2 in peers:
            reader.receive(0, data)
    acknowledgement = reader.generate(0)

    assert acknowledgement is not None
    assert is_answer(acknowledgement)
    assert not is_answer(edit)


def test_who_asks_for_changes_does_not_answer() -> None:
    owner, document = Replica(b"o" * 16), Document()
    for number in range(3):
        owner.put("key", number)
    said, heard = exchange(owner, document)

    assert not is_answer(heard[0])  # it needs what the owner has
    assert any(not is_answer(message) for message in said)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_not(message: bytes) -> None:
    if is_answer(message):
        assert not names_no_heads(message)


@given(
    st.integers(0, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 1)
)
def test_answer_has_heads_and_neither_needs_nor_changes(
    heads: int, needs: int, shared: int, bloom: int, changes: int
) -> None:
    message = b"".join(
        (
            bytes((0x42, heads)) + bytes(32 * heads),
            bytes((needs,)) + bytes(32 * needs),
            bytes((1, shared)) + bytes(32 * shared) + bytes((bloom,)) + bytes(bloom),
            bytes((changes,)) + b"\1\0" * changes,
            b"\x02\x02\x84",
        )
    )

    assert is_answer(message) == (heads > 0 and needs == 0 and changes == 0)


@given(st.binary(max_size=6))
def test_zero_heads_are_seen_in_every_spelling(rest: bytes) -> None:
    for padding in range(4):
        assert names_no_heads(b"\x42" + b"\x80" * padding + b"\0" + rest)
    assert not names_no_heads(b"\x42\x01" + rest)
    assert not names_no_heads(b"\x42\x80\x01" + rest)
    assert not names_no_heads(b"\x42"[: len(rest) % 2])

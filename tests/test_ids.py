import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsync.errors import InvalidDocumentId
from amsync.ids import (
    DocumentId,
    base58check_decode,
    base58check_encode,
    generate_document_id,
    is_safe_peer_text,
    parse_document_id,
    shard_of,
    shard_of_storage,
)

VECTORS = {
    # base58.b58encode_check of the PyPI package base58 2.1.1
    "00": "1Wh4bh",
    "ff": "VrZDWwe",
    "0000": "112edB6q",
    "00000000000000000000000000000000": "11111111111111114Ki9Gx",
    "00000000000000000000000000000001": "1111111111111118k14cG",
    "0102030405060708090a0b0c0d0e0f10": "pEbmSWqJdBuPadRGm8tDZXgWR6",
    "ffffffffffffffffffffffffffffffff": "4ZrjxJnU1LA5xSyrWMNuXTozYEvA",
    "616263": "4h3c6RH52R",
}
EXAMPLE = "3uQLXrx4C7D8TPUoYUsWQYp1tytD"


@pytest.mark.parametrize("raw", VECTORS)
def test_base58check_equals_other_implementations(raw: str) -> None:
    assert base58check_encode(bytes.fromhex(raw)) == VECTORS[raw]
    assert base58check_decode(VECTORS[raw]) == bytes.fromhex(raw)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.binary(max_size=64))
def test_every_id_survives_the_round_trip(raw: bytes) -> None:
    text = base58check_encode(raw)

    assert base58check_decode(text) == raw
    assert len(text) <= 93


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text(max_size=120))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    try:
        canonical = parse_document_id(text)
    except InvalidDocumentId:
        return
    assert parse_document_id(canonical) == canonical


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.binary(min_size=1, max_size=64), st.data())
def test_no_two_texts_name_the_same_bytes(raw: bytes, data: st.DataObject) -> None:
    text = base58check_encode(raw)
    position = data.draw(st.integers(0, len(text)))
    other = text[:position] + data.draw(st.sampled_from("1zA")) + text[position:]

    with pytest.raises(InvalidDocumentId):
        parse_document_id(other)


def test_example_id_is_a_uuid_of_version_4() -> None:
    assert uuid.UUID(bytes=base58check_decode(EXAMPLE)).version == 4
    assert parse_document_id(EXAMPLE) == EXAMPLE


def test_all_forms_of_an_id_become_one() -> None:
    legacy = str(uuid.UUID(bytes=base58check_decode(EXAMPLE)))

    for form in (legacy, legacy.upper(), f"automerge:{EXAMPLE}", f"automerge:{legacy}"):
        assert parse_document_id(form) == EXAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "3QJmnh",
        EXAMPLE[:-1],
        EXAMPLE + "1",
        "1" + EXAMPLE,
        EXAMPLE.replace("3", "4", 1),
        EXAMPLE.swapcase(),
        "0OIl",
        " " + EXAMPLE,
        EXAMPLE + "\n",
        f"automerge:automerge:{EXAMPLE}",
        f"{EXAMPLE}#heads",
        "../../etc/passwd",
        "a\0b",
        "é" * 10,
        "１" * 28,
        "1" * 1_000_000,
        "z" * 101,
        base58check_encode(b""),
        base58check_encode(b"x" * 65),
        "a13ee4f4-19b5-4a8f-9a47-f1f5c5b2a4c",
        "a13ee4f419b54a8f9a47f1f5c5b2a4c1",
    ],
)
def test_bad_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocumentId):
        parse_document_id(text)


def test_error_does_not_repeat_what_the_peer_sent() -> None:
    with pytest.raises(InvalidDocumentId) as raised:
        parse_document_id("secret" * 5)

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("size", [1, 16, 32, 64])
def test_ids_of_other_sizes_are_taken(size: int) -> None:
    text = base58check_encode(bytes(range(size)))

    assert parse_document_id(text) == text


def test_new_ids_differ_and_are_canonical() -> None:
    made = {generate_document_id() for _ in range(100)}

    assert len(made) == 100
    for document_id in made:
        assert parse_document_id(document_id) == document_id
        assert uuid.UUID(bytes=base58check_decode(document_id)).version == 4


@pytest.mark.parametrize(
    ("document_id", "count", "shard"),
    [
        # Frozen: volumes and streams are named by these numbers.
        (EXAMPLE, 64, 36),
        (EXAMPLE, 1, 0),
        (EXAMPLE, 1000, 468),
        (base58check_encode(bytes(16)), 64, 5),
        (base58check_encode(b"abc"), 64, 13),
    ],
)
def test_shard_of_a_document_never_changes(document_id: str, count: int, shard: int) -> None:
    assert shard_of(DocumentId(document_id), count) == shard


@pytest.mark.parametrize(("storage_id", "shard"), [("storage", 10), ("", 3), ("ü\ud800", 48)])
def test_shard_of_a_storage_id_never_changes(storage_id: str, shard: int) -> None:
    assert shard_of_storage(storage_id, 64) == shard


def test_shards_are_used_evenly() -> None:
    ids = [DocumentId(base58check_encode(number.to_bytes(16, "big"))) for number in range(3200)]
    counts = [0] * 64
    for document_id in ids:
        counts[shard_of(document_id, 64)] += 1

    assert min(counts) > 20
    assert max(counts) < 90


@pytest.mark.parametrize("text", ["x", "x" * 256, "ü", "a b", "../..", "😀" * 256])
def test_text_that_a_peer_may_use(text: str) -> None:
    assert is_safe_peer_text(text)


@pytest.mark.parametrize("text", ["", "x" * 257, "a\0", "\n", "\x1f", "\x7f", None, 7, b"x", []])
def test_text_that_a_peer_may_not_use(text: object) -> None:
    assert not is_safe_peer_text(text)

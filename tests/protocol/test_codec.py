"""What the wire decoder takes and refuses (PROTOCOL 1.2), and what we emit, byte for byte."""

import io
import time
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amsync.errors import RemoteProtocolError
from amsync.protocol import codec
from amsync.protocol.codec import UnknownMessageType, decode
from amsync.protocol.messages import (
    DocUnavailable,
    Ephemeral,
    Join,
    Leave,
    PeerError,
    RemoteHeads,
    RemoteHeadsChanged,
    RemoteSubscriptionChange,
    Sync,
)
from support.rawclient import javascript_cbor

DOCUMENT = "3uQLXrx4C7D8TPUoYUsWQYp1tytD"
BASE = {"senderId": "me", "targetId": "you", "documentId": DOCUMENT}

MESSAGES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "join", "senderId": "me"}, Join("me", ("1",), None, False)),
    (
        {
            "type": "join",
            "senderId": "me",
            "peerMetadata": {"storageId": "s", "isEphemeral": False},
            "supportedProtocolVersions": ["1", "2"],
        },
        Join("me", ("1", "2"), "s", False),
    ),
    (
        {
            "type": "join",
            "senderId": "me",
            "peerMetadata": {"storageId": cbor2.undefined, "isEphemeral": True},
            "supportedProtocolVersions": ["1"],
        },
        Join("me", ("1",), None, True),
    ),
    ({"type": "leave", "senderId": "me"}, Leave("me")),
    ({"type": "error", "message": "no"}, PeerError("", "no")),
    ({"type": "error", "senderId": "me", "message": "x" * 999}, PeerError("me", "x" * 200)),
    ({**BASE, "type": "sync", "data": b"\1\2"}, Sync("me", DOCUMENT, b"\1\2", False)),
    ({**BASE, "type": "request", "data": b""}, Sync("me", DOCUMENT, b"", True)),
    (
        {"type": "sync", "senderId": "me", "documentId": b"0" * 16, "data": b"x"},
        Sync("me", b"0" * 16, b"x", False),
    ),
    ({**BASE, "type": "doc-unavailable"}, DocUnavailable("me", DOCUMENT)),
    (
        {**BASE, "type": "ephemeral", "count": 7, "sessionId": "s", "data": b"x"},
        Ephemeral("me", "you", DOCUMENT, "s", 7, b"x"),
    ),
    (
        {"type": "remote-subscription-change", "senderId": "me", "add": ["a", "b"]},
        RemoteSubscriptionChange("me", ("a", "b"), ()),
    ),
    (
        {
            "type": "remote-subscription-change",
            "senderId": "me",
            "add": cbor2.undefined,
            "remove": ["a"],
        },
        RemoteSubscriptionChange("me", (), ("a",)),
    ),
    (
        {
            **BASE,
            "type": "remote-heads-changed",
            "newHeads": {
                "s": {"heads": ["h"], "timestamp": 1_700_000_000_000},
                "t": {"timestamp": 1},
            },
        },
        RemoteHeadsChanged(
            "me",
            DOCUMENT,
            (RemoteHeads("s", ("h",), 1_700_000_000_000), RemoteHeads("t", (), 1)),
        ),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
def test_every_message_is_decoded(fields: dict[str, Any], expected: Any) -> None:
    assert decode(cbor2.dumps(fields)) == expected


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
def test_forms_of_the_javascript_encoder_are_decoded(fields: dict[str, Any], expected: Any) -> None:
    assert decode(javascript_cbor(fields)) == expected


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
def test_indefinite_maps_are_decoded(fields: dict[str, Any], expected: Any) -> None:
    items = b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items())

    assert decode(b"\xbf" + items + b"\xff") == expected


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
def test_unknown_keys_and_their_order_do_not_matter(fields: dict[str, Any], expected: Any) -> None:
    extra = {"later": [{"x": None}], "\0": 1.5, **dict(reversed(fields.items()))}

    assert decode(cbor2.dumps(extra)) == expected


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
def test_self_described_frames_are_decoded(fields: dict[str, Any], expected: Any) -> None:
    assert decode(b"\xd9\xd9\xf7" + cbor2.dumps(fields)) == expected


@pytest.mark.parametrize(("fields", "expected"), MESSAGES)
@pytest.mark.parametrize("absent", [None, cbor2.undefined])
def test_null_and_undefined_are_absent(fields: dict[str, Any], expected: Any, absent: Any) -> None:
    optional = {"peerMetadata", "supportedProtocolVersions", "add", "remove"}
    padded = {**dict.fromkeys(optional, absent), **fields}

    assert decode(cbor2.dumps(padded)) == expected


@pytest.mark.parametrize("tag", [64, 65, 72, 87])
def test_typed_arrays_are_bytes(tag: int) -> None:
    fields = {**BASE, "type": "sync", "data": cbor2.CBORTag(tag, b"\1\2")}

    assert decode(cbor2.dumps(fields)) == Sync("me", DOCUMENT, b"\1\2", False)


@pytest.mark.parametrize("tag", [63, 88, 1000])
def test_other_tags_are_not_bytes(tag: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(cbor2.dumps({**BASE, "type": "sync", "data": cbor2.CBORTag(tag, b"\1\2")}))


@pytest.mark.parametrize(
    ("chunked", "joined"), [(b"\x5f\x41\x01\x41\x02\xff", b"\1\2"), (b"\x5f\xff", b"")]
)
def test_indefinite_byte_strings_are_joined(chunked: bytes, joined: bytes) -> None:
    head = b"\xa4\x64type\x64sync\x68senderId\x62me\x6adocumentId\x61x\x64data"

    message = decode(head + chunked)

    assert isinstance(message, Sync)
    assert message.data == joined


@pytest.mark.parametrize("count", [0, 7, 7.0, 2**32, float(2**41), 2**63 - 1])
def test_integers_may_be_integral_floats(count: float) -> None:
    fields = {**BASE, "type": "ephemeral", "count": count, "sessionId": "s", "data": b""}

    message = decode(cbor2.dumps(fields))

    assert isinstance(message, Ephemeral)
    assert message.count == int(count)
    assert type(message.count) is int


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xf6",
        b"\xf7",
        b"\x00",
        b"\x80",
        b"\x60",
        b"\xff",
        b"\xa1",
        b"\xbf",
        b"{}",
        cbor2.dumps({"type": "leave", "senderId": "x"}) + b"\0",
        cbor2.dumps({"type": "leave", "senderId": "x"}) * 2,
        cbor2.dumps([{"type": "leave", "senderId": "x"}]),
        cbor2.dumps(cbor2.CBORTag(64, b"x")),
        cbor2.dumps(cbor2.CBORTag(1234, {"type": "leave", "senderId": "x"})),
    ],
)
def test_what_is_no_map_is_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(frame)

    assert raised.value.reason in ("undecodable", "not_a_map")


@pytest.mark.parametrize("kind", [None, 1, b"sync", ["sync"], {}, cbor2.undefined])
def test_type_must_be_text(kind: Any) -> None:
    with pytest.raises(RemoteProtocolError) as raised:
        decode(cbor2.dumps({"type": kind, "senderId": "me"}))

    assert (type(raised.value), raised.value.reason) == (RemoteProtocolError, "bad_field")


@pytest.mark.parametrize("kind", ["", "hello", "peer", "Sync", "sync ", "x" * 10_000])
def test_unknown_type_is_its_own_error(kind: str) -> None:
    with pytest.raises(UnknownMessageType):
        decode(cbor2.dumps({"type": kind}))


NESTED = {
    "arrays": lambda depth: b"\x81" * depth + b"\0",
    "indefinite arrays": lambda depth: b"\x9f" * depth + b"\xff" * depth,
    "maps": lambda depth: b"\xa1\x61a" * depth + b"\0",
    "tags": lambda depth: b"\xd8\x63" * depth + b"\0",
}


@pytest.mark.parametrize("kind", NESTED)
@pytest.mark.parametrize("depth", [20, 1000, 60_000])
def test_deep_nesting_is_refused(kind: str, depth: int) -> None:
    frame = b"\xa2\x64type\x65leave\x68senderId"[:1] + b"\x61a" + NESTED[kind](depth)

    with pytest.raises(RemoteProtocolError):
        decode(frame)


BOMBS = {
    "map": b"\xbb\x7f" + b"\xff" * 7,
    "map of 2^31": b"\xba\x7f\xff\xff\xff\x61a\0",
    "array": b"\xa1\x61a\x9b\x7f" + b"\xff" * 7,
    "array of 2^31": b"\xa1\x61a\x9a\x7f\xff\xff\xff\0",
    "bytes": b"\xa1\x61a\x5b\x7f" + b"\xff" * 7,
    "bytes of 2^31": b"\xa1\x61a\x5a\x7f\xff\xff\xff\0",
    "text": b"\xa1\x7b\x7f" + b"\xff" * 7,
    "big integer": b"\xa1\x61a\xc2\x5a\x00\x10\x00\x00" + b"\xff" * (1 << 20),
    "decimal": b"\xa1\x61a\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    "big float": b"\xa1\x61a\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    "million items": b"\xa1\x61a\x9a\x00\x10\x00\x00" + b"\0" * (1 << 20),
    "million items under one key each": b"\xba\x00\x04\x00\x00" + b"\x61a\0" * (1 << 18),
    "million empty maps": b"\xa1\x61a\x9f" + b"\xa0" * (1 << 20),
    "million parts of a string": b"\xa1\x61a\x7f" + b"\x60" * (1 << 20),
    "million tags": b"\xa1\x61a\x9f" + b"\xd8\x40\0" * (1 << 20),
    "strings by reference": b"\xd9\x01\x00\xa1\x61a\x82\x63aaa\xd8\x19\x00",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bomb_is_refused_at_once(kind: str) -> None:
    started = time.process_time()

    with pytest.raises(RemoteProtocolError):
        decode(BOMBS[kind])

    assert time.process_time() - started < 5


@pytest.mark.parametrize("kind", ["arrays", "texts", "floats"])
def test_small_frame_of_tiny_items_costs_no_more_than_its_length(kind: str) -> None:
    item = {"arrays": b"\x80", "texts": b"\x60", "floats": b"\xf9\0\0"}[kind]
    frame = b"\xa1\x61a\x9f" + item * (codec.LARGE_FRAME_BYTES // len(item) - 10) + b"\xff"
    started = time.process_time()

    with pytest.raises(RemoteProtocolError):
        decode(frame)

    assert time.process_time() - started < 2


def test_large_honest_message_is_not_counted_item_by_item() -> None:
    data = bytes(range(256)) * 200_000
    started = time.process_time()

    message = decode(cbor2.dumps({**BASE, "type": "sync", "data": data}))

    assert isinstance(message, Sync)
    assert message.data == data
    assert time.process_time() - started < 5


def test_longest_lists_are_taken_and_longer_ones_are_not() -> None:
    fields: dict[str, Any] = {"type": "remote-subscription-change", "senderId": "me"}

    message = decode(cbor2.dumps({**fields, "add": ["x"] * codec.MAX_LIST}))

    assert isinstance(message, RemoteSubscriptionChange)
    assert len(message.add) == codec.MAX_LIST
    with pytest.raises(RemoteProtocolError):
        decode(cbor2.dumps({**fields, "add": ["x"] * (codec.MAX_LIST + 1)}))


VALUES = st.recursive(
    st.none()
    | st.just(cbor2.undefined)
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.builds(cbor2.CBORTag, st.integers(0, 2**20), st.binary(max_size=4)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)
KEYS = [
    "senderId",
    "targetId",
    "documentId",
    "data",
    "count",
    "sessionId",
    "newHeads",
    "add",
    "remove",
    "peerMetadata",
    "supportedProtocolVersions",
    "message",
]
KINDS = [
    "join",
    "leave",
    "error",
    "sync",
    "request",
    "doc-unavailable",
    "ephemeral",
    "remote-subscription-change",
    "remote-heads-changed",
    "peer",
]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_fields_are_a_message_or_refused(kind: str, fields: dict[str, Any]) -> None:
    with suppress(RemoteProtocolError):
        decode(cbor2.dumps({**fields, "type": kind}))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(frame)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(MESSAGES), st.data())
def test_damaged_messages_are_messages_or_refused(
    case: tuple[dict[str, Any], Any], data: st.DataObject
) -> None:
    frame = bytearray(cbor2.dumps(case[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(RemoteProtocolError):
        decode(bytes(frame[: data.draw(st.integers(1, len(frame)))]))


IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=50)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(IDS, IDS, IDS | st.binary(min_size=1, max_size=64), st.binary(), IDS)
def test_what_we_encode_we_decode(
    sender: str, target: str, document: str | bytes, data: bytes, other: str
) -> None:
    suffix = codec.target_suffix(target)
    heads = RemoteHeads(other, ("h", "i"), 1_700_000_000_123)

    assert decode(codec.encode_sync(sender, document, data) + suffix) == Sync(
        sender, document, data, False
    )
    assert decode(codec.encode_doc_unavailable(sender, document) + suffix) == DocUnavailable(
        sender, document
    )
    assert decode(codec.encode_ephemeral(sender, document, other, 9, data) + suffix) == Ephemeral(
        sender, target, document, other, 9, data
    )
    assert decode(
        codec.encode_remote_heads_changed(sender, document, heads) + suffix
    ) == RemoteHeadsChanged(sender, document, (heads,))
    assert decode(
        codec.encode_remote_subscription_change(sender, (other,), ()) + suffix
    ) == RemoteSubscriptionChange(sender, (other,), ())


def hexed(*parts: bytes) -> str:
    return b"".join(parts).hex()


ME = codec.target_suffix("me")
TARGET = "68 7461726765744964 62 6d65"
SENDER = "68 73656e6465724964 61 73"
DOCUMENT_ID = "6a 646f63756d656e744964 61 64"

EMITTED = {
    "peer": (
        codec.encode_peer("s", "st"),
        f"a5 64 74797065 64 70656572 {SENDER}"
        " 6c 706565724d65746164617461 a2 6b 6973457068656d6572616c f4 69 73746f726167654964 62 7374"
        f" 77 73656c656374656450726f746f636f6c56657273696f6e 61 31 {TARGET}",
    ),
    "peer without storage": (
        codec.encode_peer("s", None),
        f"a5 64 74797065 64 70656572 {SENDER}"
        " 6c 706565724d65746164617461 a1 6b 6973457068656d6572616c f5"
        f" 77 73656c656374656450726f746f636f6c56657273696f6e 61 31 {TARGET}",
    ),
    "error": (
        codec.encode_error("s", "no", has_target=True),
        f"a4 64 74797065 65 6572726f72 {SENDER} 67 6d657373616765 62 6e6f {TARGET}",
    ),
    "sync": (
        codec.encode_sync("s", "d", b"\1\2"),
        f"a5 64 74797065 64 73796e63 {SENDER} {DOCUMENT_ID} 64 64617461 42 0102 {TARGET}",
    ),
    "doc-unavailable": (
        codec.encode_doc_unavailable("s", "d"),
        f"a4 64 74797065 6f 646f632d756e617661696c61626c65 {SENDER} {DOCUMENT_ID} {TARGET}",
    ),
    "ephemeral": (
        codec.encode_ephemeral("s", "d", "x", 300, b"\1"),
        f"a7 64 74797065 69 657068656d6572616c {SENDER} {DOCUMENT_ID}"
        f" 69 73657373696f6e4964 61 78 65 636f756e74 19 012c 64 64617461 41 01 {TARGET}",
    ),
    "remote-subscription-change": (
        codec.encode_remote_subscription_change("s", ("a",), ()),
        "a4 64 74797065 78 1a 72656d6f74652d737562736372697074696f6e2d6368616e6765"
        f" {SENDER} 63 616464 81 61 61 {TARGET}",
    ),
    "remote-heads-changed": (
        codec.encode_remote_heads_changed("s", "d", RemoteHeads("x", ("h",), 1_700_000_000_000)),
        f"a5 64 74797065 74 72656d6f74652d68656164732d6368616e676564 {SENDER} {DOCUMENT_ID}"
        " 68 6e65774865616473 a1 61 78 a2 65 6865616473 81 61 68"
        f" 69 74696d657374616d70 fb 4278bcfe56800000 {TARGET}",
    ),
}


def test_error_to_somebody_without_a_name_has_no_target() -> None:
    frame = codec.encode_error("s", "no", has_target=False)

    assert cbor2.loads(frame) == {"type": "error", "senderId": "s", "message": "no"}
    assert decode(frame) == PeerError("s", "no")


@pytest.mark.parametrize("kind", EMITTED)
def test_what_we_emit_byte_for_byte(kind: str) -> None:
    shared, expected = EMITTED[kind]

    assert hexed(shared, ME) == expected.replace(" ", "")


@pytest.mark.parametrize("kind", EMITTED)
def test_what_we_emit_is_what_strict_decoders_take(kind: str) -> None:
    """samod drops the connection for a null, an indefinite length or a tag."""
    decoder = cbor2.CBORDecoder(io.BytesIO(EMITTED[kind][0] + ME), allow_indefinite=False)

    def check(value: Any) -> None:
        assert value is not None
        assert value is not cbor2.undefined
        assert not isinstance(value, cbor2.CBORTag)
        for inner in [*value, *value.values()] if isinstance(value, dict) else []:
            check(inner)

    message = decoder.decode()
    check(message)
    assert list(message)[-1] == "targetId"


@given(
    st.text(max_size=300),
    st.one_of(st.text(max_size=100), st.binary(max_size=70)),
    st.sampled_from([0, 1, 23, 24, 255, 256, 65_535, 65_536, 70_000]),
    st.text(max_size=300),
)
def test_spliced_sync_message_is_what_cbor2_makes_of_it(
    sender: str, document: str | bytes, length: int, target: str
) -> None:
    data = b"d" * length
    fields = {"type": "sync", "senderId": sender, "documentId": document, "data": data}

    spliced = codec.encode_sync(sender, document, data) + codec.target_suffix(target)

    assert spliced == cbor2.dumps({**fields, "targetId": target})

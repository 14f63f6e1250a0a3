"""CBOR frames of the automerge-repo WebSocket protocol, in and out.

Decoding takes what clients really send (PROTOCOL 1.2: undefined, null, tag 64, float integers,
extra keys) and refuses, with bounded work, whatever could cost more than its own length: deep
nesting, millions of tiny items, big numbers, and every CBOR tag with a meaning of its own
(dates, decimals, regular expressions: cbor2 would build them).

Encoding splits a frame in the part that is equal for all receivers and the receiver's
`targetId`, which comes last: `encode_*` gives the first, `target_suffix` the second, and the
frame's payload is their concatenation. What leaves us has definite lengths, text keys, plain
byte strings, no null or undefined, and timestamps as float64 (a 64-bit integer would reach
JavaScript as a BigInt).
"""

import io
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import cbor2

from amsync.errors import RemoteProtocolError
from amsync.ids import is_safe_peer_text
from amsync.protocol.messages import (
    PROTOCOL_VERSION,
    DocUnavailable,
    Ephemeral,
    Join,
    Leave,
    Message,
    PeerError,
    RemoteHeads,
    RemoteHeadsChanged,
    RemoteSubscriptionChange,
    Spelling,
    Sync,
)

MAX_DEPTH = 16
MAX_ITEMS_OF_LARGE_FRAME = 20_000
LARGE_FRAME_BYTES = 64 * 1024
MAX_LIST = 10_000
"""Entries of an `add`, `remove`, `newHeads` or `heads` list; a client with more is refused."""

_MEANINGFUL_TAGS = frozenset(
    (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 100, 256, 258, 260, 261, 1004, 43000)
)
_SELF_DESCRIBED = b"\xd9\xd9\xf7"  # a tag without meaning that may precede any frame
_FIRST_BYTES_TAG, _LAST_BYTES_TAG = 64, 87  # RFC 8746 typed arrays; 64 is Uint8Array


class UnknownMessageType(RemoteProtocolError):
    """A well-formed message of a type that this version doesn't have; to be ignored."""

    def __init__(self) -> None:
        super().__init__("unknown_type")


def _refuse_tag(_decoder: Any, _immutable: bool) -> NoReturn:
    raise cbor2.CBORDecodeError("tag with a meaning of its own")


_SEMANTIC_DECODERS = dict.fromkeys(_MEANINGFUL_TAGS, _refuse_tag)


def _check_item_count(frame: bytes) -> None:
    """Walk the heads of a large frame without building anything; strings are stepped over."""
    position, items, end = 0, 0, len(frame)
    while position < end:
        items += 1
        if items > MAX_ITEMS_OF_LARGE_FRAME:
            raise RemoteProtocolError("too_many_items")
        head = frame[position]
        major, info = head >> 5, head & 31
        position += 1
        value = info
        if 24 <= info <= 27:
            width = 1 << (info - 24)
            value = int.from_bytes(frame[position : position + width], "big")
            position += width
        if major in (2, 3) and info != 31:
            position += value


def _decode_map(frame: bytes) -> Mapping[str, Any]:
    if len(frame) > LARGE_FRAME_BYTES:
        _check_item_count(frame)
    source = io.BytesIO(frame.removeprefix(_SELF_DESCRIBED))
    try:
        value = cbor2.CBORDecoder(
            source,
            semantic_decoders=_SEMANTIC_DECODERS,
            max_depth=MAX_DEPTH,
            strict_hashable_types=True,
        ).decode()
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise RemoteProtocolError("undecodable") from error
    if source.read(1):
        raise RemoteProtocolError("undecodable", "bytes behind the map")
    if not isinstance(value, dict):
        raise RemoteProtocolError("not_a_map")
    return value


def _absent(value: Any) -> bool:
    return value is None or value is cbor2.undefined


def _text(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not is_safe_peer_text(value):
        raise RemoteProtocolError("bad_field", key)
    return str(value)


def _data(fields: Mapping[str, Any], key: str = "data") -> bytes:
    value = fields.get(key)
    if isinstance(value, cbor2.CBORTag) and _FIRST_BYTES_TAG <= value.tag <= _LAST_BYTES_TAG:
        value = value.value
    if not isinstance(value, bytes):
        raise RemoteProtocolError("bad_field", key)
    return value


def _document_id(fields: Mapping[str, Any]) -> Spelling:
    value = fields.get("documentId")
    if isinstance(value, cbor2.CBORTag) and value.tag == _FIRST_BYTES_TAG:
        value = value.value
    if not isinstance(value, str | bytes):
        raise RemoteProtocolError("bad_field", "documentId")
    return value


def _integer(value: Any, key: str) -> int:
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise RemoteProtocolError("bad_field", key)
    return value


def _texts(value: Any, key: str) -> tuple[str, ...]:
    if _absent(value):
        return ()
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise RemoteProtocolError("bad_field", key)
    if not all(is_safe_peer_text(text) for text in value):
        raise RemoteProtocolError("bad_field", key)
    return tuple(value)


def _join(fields: Mapping[str, Any]) -> Join:
    versions = fields.get("supportedProtocolVersions")
    if _absent(versions):
        versions = [PROTOCOL_VERSION]
    metadata = fields.get("peerMetadata")
    if _absent(metadata):
        metadata = {}
    if not isinstance(metadata, dict):
        raise RemoteProtocolError("bad_field", "peerMetadata")
    storage_id = metadata.get("storageId")
    if not _absent(storage_id) and not is_safe_peer_text(storage_id):
        raise RemoteProtocolError("bad_field", "storageId")
    is_ephemeral = metadata.get("isEphemeral")
    return Join(
        sender_id=_text(fields, "senderId"),
        versions=_texts(versions, "supportedProtocolVersions"),
        storage_id=None if _absent(storage_id) else storage_id,
        is_ephemeral=is_ephemeral is True,
    )


def _sync(fields: Mapping[str, Any]) -> Sync:
    return Sync(_text(fields, "senderId"), _document_id(fields), _data(fields), is_request=False)


def _request(fields: Mapping[str, Any]) -> Sync:
    return Sync(_text(fields, "senderId"), _document_id(fields), _data(fields), is_request=True)


def _ephemeral(fields: Mapping[str, Any]) -> Ephemeral:
    return Ephemeral(
        sender_id=_text(fields, "senderId"),
        target_id=_text(fields, "targetId"),
        document_id=_document_id(fields),
        session_id=_text(fields, "sessionId"),
        count=_integer(fields.get("count"), "count"),
        data=_data(fields),
    )


def _remote_heads_changed(fields: Mapping[str, Any]) -> RemoteHeadsChanged:
    new_heads = fields.get("newHeads")
    if not isinstance(new_heads, dict) or len(new_heads) > MAX_LIST:
        raise RemoteProtocolError("bad_field", "newHeads")
    heads = []
    for storage_id, value in new_heads.items():
        if not is_safe_peer_text(storage_id) or not isinstance(value, dict):
            raise RemoteProtocolError("bad_field", "newHeads")
        texts = _texts(value.get("heads"), "heads")
        heads.append(RemoteHeads(storage_id, texts, _integer(value.get("timestamp"), "timestamp")))
    return RemoteHeadsChanged(_text(fields, "senderId"), _document_id(fields), tuple(heads))


def _error(fields: Mapping[str, Any]) -> PeerError:
    message, sender = fields.get("message"), fields.get("senderId")
    return PeerError(
        sender_id=sender if isinstance(sender, str) else "",
        message=message[:200] if isinstance(message, str) else "",
    )


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Message]] = {
    "join": _join,
    "leave": lambda fields: Leave(_text(fields, "senderId")),
    "error": _error,
    "sync": _sync,
    "request": _request,
    "doc-unavailable": lambda f: DocUnavailable(_text(f, "senderId"), _document_id(f)),
    "ephemeral": _ephemeral,
    "remote-subscription-change": lambda f: RemoteSubscriptionChange(
        _text(f, "senderId"), _texts(f.get("add"), "add"), _texts(f.get("remove"), "remove")
    ),
    "remote-heads-changed": _remote_heads_changed,
}


def decode(frame: bytes) -> Message:
    """Decode one binary frame.

    Raises:
        UnknownMessageType: Ignore the message, keep the socket.
        RemoteProtocolError: The frame is no message; reason is one of undecodable, not_a_map,
            too_many_items, bad_field.
    """
    fields = _decode_map(frame)
    kind = fields.get("type")
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        if isinstance(kind, str):
            raise UnknownMessageType
        raise RemoteProtocolError("bad_field", "type")
    return decoder(fields)


def _shared(fields: Mapping[str, Any], *, suffixed: bool = True) -> bytes:
    """Encode a map; `suffixed`: with room for one more field, the receiver's `targetId`."""
    return b"".join(
        [bytes([0xA0 + len(fields) + suffixed])]
        + [cbor2.dumps(key) + cbor2.dumps(value) for key, value in fields.items()]
    )


def target_suffix(target_id: str) -> bytes:
    """The last field of every frame to one peer."""
    return cbor2.dumps("targetId") + cbor2.dumps(target_id)


def encode_peer(sender_id: str, storage_id: str | None) -> bytes:
    """Answer to a join. Without a storage id we say that nothing should be kept about us."""
    metadata: dict[str, Any] = {"isEphemeral": storage_id is None}
    if storage_id is not None:
        metadata["storageId"] = storage_id
    return _shared(
        {
            "type": "peer",
            "senderId": sender_id,
            "peerMetadata": metadata,
            "selectedProtocolVersion": PROTOCOL_VERSION,
        }
    )


def encode_error(sender_id: str, message: str, *, has_target: bool) -> bytes:
    """The reason of a close that follows at once. Clients log it and come back all the same.

    has_target: False for a peer whose id we never learned; no suffix may follow then.
    """
    fields = {"type": "error", "senderId": sender_id, "message": message}
    return _shared(fields, suffixed=has_target)


def encode_sync(sender_id: str, document_id: Spelling, data: bytes) -> bytes:
    """A sync message; `data` must not be empty (JavaScript's sender would throw)."""
    return b"".join((_before_data(sender_id, document_id), _byte_string_head(len(data)), data))


@lru_cache(1024)
def _before_data(sender_id: str, document_id: Spelling) -> bytes:
    fields = {"type": "sync", "senderId": sender_id, "documentId": document_id, "data": b""}
    return _shared(fields)[:-1]


def _byte_string_head(length: int) -> bytes:
    if length < 24:
        return bytes((0x40 + length,))
    width = 1 if length < 1 << 8 else 2 if length < 1 << 16 else 4 if length < 1 << 32 else 8
    return bytes((0x57 + width.bit_length(),)) + length.to_bytes(width, "big")


def byte_string(data: bytes) -> bytes:
    """A definite, untagged byte string with the shortest head."""
    return _byte_string_head(len(data)) + data


def encode_doc_unavailable(sender_id: str, document_id: Spelling) -> bytes:
    """We have no such document, or it isn't for this peer."""
    return _shared({"type": "doc-unavailable", "senderId": sender_id, "documentId": document_id})


def encode_ephemeral(
    sender_id: str, document_id: Spelling, session_id: str, count: int, data: bytes
) -> bytes:
    """Somebody's broadcast; `sender_id` is the one who made it, not ours."""
    return _shared(
        {
            "type": "ephemeral",
            "senderId": sender_id,
            "documentId": document_id,
            "sessionId": session_id,
            "count": count,
            "data": data,
        }
    )


def encode_remote_subscription_change(
    sender_id: str, add: tuple[str, ...], remove: tuple[str, ...]
) -> bytes:
    """Ask a peer that knows others for the heads of some storage ids."""
    fields: dict[str, Any] = {"type": "remote-subscription-change", "senderId": sender_id}
    if add:
        fields["add"] = list(add)
    if remove:
        fields["remove"] = list(remove)
    return _shared(fields)


def encode_remote_heads_changed(sender_id: str, document_id: Spelling, heads: RemoteHeads) -> bytes:
    """Heads of one storage id; one to a message, as JavaScript sends them."""
    value = {"heads": list(heads.heads), "timestamp": float(heads.timestamp)}
    return _shared(
        {
            "type": "remote-heads-changed",
            "senderId": sender_id,
            "documentId": document_id,
            "newHeads": {heads.storage_id: value},
        }
    )

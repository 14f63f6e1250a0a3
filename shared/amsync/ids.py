"""Document ids, shard numbers and the checks on ids that peers choose.

A document id travels as base58check text (Bitcoin alphabet, 4 bytes of double SHA-256). Inside
amsync a document is named by `DocumentId`, the canonical text; the spelling that a client used
is kept beside it and given back to that client. Only canonical ids may reach a path, a key or
a stream name; ids that peers merely claim (peer, storage, session) never do.

Source: automerge-repo AutomergeUrl.ts; PROTOCOL 7.
"""

import hashlib
import re
import uuid
from typing import NewType

from amsync.errors import InvalidDocumentId

DocumentId = NewType("DocumentId", str)
"""Canonical base58check text of 1 to 64 bytes; safe in a path."""

StorageId = NewType("StorageId", str)

MAX_DOCUMENT_ID_BYTES = 64
MAX_DOCUMENT_ID_TEXT = 100  # 68 bytes in base58 are at most 93 characters
MAX_PEER_ID_TEXT = 256

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {c: i for i, c in enumerate(_ALPHABET)}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _checksum(raw: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(raw).digest()).digest()[:4]


def base58check_encode(raw: bytes) -> str:
    """Encode bytes as base58check text."""
    data = raw + _checksum(raw)
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def is_base58(text: str) -> bool:
    """Tell whether text has characters of the alphabet only, and at least one."""
    return bool(text) and all(char in _VALUES for char in text)


def base58check_decode(text: str) -> bytes:
    """Decode base58check text of at most 93 characters.

    Raises:
        InvalidDocumentId: Wrong length, alphabet or checksum.
    """
    if not 1 <= len(text) <= MAX_DOCUMENT_ID_TEXT:
        raise InvalidDocumentId(
            f"base58check text has {len(text)} characters, allowed are 1 to 100"
        )
    number = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise InvalidDocumentId("text has a character outside the base58 alphabet")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    data = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    raw, check = data[:-4], data[-4:]
    if len(data) < 4 or _checksum(raw) != check:
        raise InvalidDocumentId("base58check checksum does not match")
    return raw


def document_url(document_id: DocumentId) -> str:
    """The URL under which clients know a document."""
    return f"automerge:{document_id}"


def parse_document_id(text: str) -> DocumentId:
    """Check a document id and make it canonical.

    Takes base58check text, the legacy UUID form, or an `automerge:` URL of either.

    Raises:
        InvalidDocumentId: It is none of these, or decodes to 0 or more than 64 bytes.
    """
    text = text.removeprefix("automerge:")
    if _UUID.fullmatch(text):
        return DocumentId(base58check_encode(uuid.UUID(text).bytes))
    raw = base58check_decode(text)
    if not 1 <= len(raw) <= MAX_DOCUMENT_ID_BYTES:
        raise InvalidDocumentId(f"document id has {len(raw)} bytes, allowed are 1 to 64")
    return DocumentId(text)


def generate_document_id() -> DocumentId:
    """Make a new random document id (16 bytes with the bits of a UUID version 4)."""
    return DocumentId(base58check_encode(uuid.uuid4().bytes))


def shard_of(document_id: DocumentId, shard_count: int) -> int:
    """Return the shard, 0 to shard_count - 1, that owns a document.

    First 8 bytes of blake2b over the decoded id, modulo the count. Never change this: the
    shard count is written into the volume and streams are named by the shard.
    """
    digest = hashlib.blake2b(base58check_decode(document_id)).digest()
    return int.from_bytes(digest[:8], "big") % shard_count


def shard_of_storage(storage_id: str, shard_count: int) -> int:
    """Return the shard that passes on subscriptions to a storage id."""
    digest = hashlib.blake2b(storage_id.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % shard_count


def is_safe_peer_text(text: object) -> bool:
    """Tell whether a peer-chosen id is text of 1 to 256 characters without control characters."""
    return (
        isinstance(text, str)
        and 1 <= len(text) <= MAX_PEER_ID_TEXT
        and _CONTROL.search(text) is None
    )

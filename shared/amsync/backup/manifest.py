"""What belongs to a backup, as JSON lines: a head, a line for each document, and an end.

A manifest without its end is that of a backup that was cut off.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from amsync.errors import InvalidDocument, InvalidDocumentId
from amsync.ids import DocumentId, parse_document_id

NAME = "manifest.jsonl"
FORMAT = 1
MOST_DOCUMENT_BYTES = 1024 * 1024 * 1024
"""What is larger is in no backup: a document is read as a whole, and a manifest may lie."""

MOST_LINE_BYTES = 16 * 1024 * 1024


class ManifestDamaged(InvalidDocument):
    """The manifest can't be read, is cut off, or of a newer format."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A document of a backup.

    Attributes:
        document_id: Canonical id.
        size_bytes: Of the saved document.
        sha256: Of its bytes.
        heads: 32 bytes each, sorted.
        change_count: Changes in it.
    """

    document_id: DocumentId
    size_bytes: int
    sha256: bytes
    heads: tuple[bytes, ...]
    change_count: int

    @classmethod
    def of(
        cls, document_id: DocumentId, saved: bytes, heads: Sequence[bytes], change_count: int
    ) -> "Stored":
        """Describe a saved document."""
        digest = hashlib.sha256(saved).digest()
        return cls(document_id, len(saved), digest, tuple(sorted(heads)), change_count)

    def is_of(self, saved: bytes) -> bool:
        """Tell whether these are the bytes that were saved."""
        return hashlib.sha256(saved).digest() == self.sha256


@dataclass(frozen=True, slots=True)
class Unsaved:
    """A document that could not be saved, or not all of it, and why."""

    document_id: DocumentId
    problem: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """All of it.

    Attributes:
        began: When the backup began, ISO 8601 in UTC: what was acknowledged before is in it.
        ended: When its last document was read.
        origin: Where it comes from: version, cluster_id, storage_id and what else was known.
        documents: By id.
        unsaved: What is not in it, or not whole.
    """

    began: str
    ended: str
    origin: Mapping[str, object]
    documents: Mapping[DocumentId, Stored]
    unsaved: Sequence[Unsaved]

    @property
    def size_bytes(self) -> int:
        """Of all saved documents."""
        return sum(each.size_bytes for each in self.documents.values())

    def pack(self) -> Iterator[bytes]:
        """The lines."""
        yield _line({"format": FORMAT, "began": self.began, "origin": dict(self.origin)})
        for each in self.documents.values():
            yield _line(
                {
                    "document_id": each.document_id,
                    "bytes": each.size_bytes,
                    "sha256": each.sha256.hex(),
                    "heads": [head.hex() for head in each.heads],
                    "changes": each.change_count,
                }
            )
        for unsaved in self.unsaved:
            yield _line({"document_id": unsaved.document_id, "problem": unsaved.problem})
        counts = {"documents": len(self.documents), "problems": len(self.unsaved)}
        yield _line({"ended": self.ended, **counts})

    @classmethod
    def unpack(cls, file: IO[bytes]) -> "Manifest":
        """Read it.

        Raises:
            ManifestDamaged
        """
        try:
            return _read(_lines(file))
        except (ValueError, KeyError, TypeError, InvalidDocumentId, RecursionError) as error:
            raise ManifestDamaged(f"{NAME} can't be read: {error}") from None


def _line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            raise ManifestDamaged(f"{NAME} has a line of more than {MOST_LINE_BYTES:,} bytes")
        yield line


def _read(lines: Iterator[bytes]) -> Manifest:
    head = _fields(next(lines, b""))
    if head.get("format") != FORMAT:
        found = head.get("format")
        raise ManifestDamaged(f"{NAME} has format {found!r}; this version knows {FORMAT}")
    documents: dict[DocumentId, Stored] = {}
    unsaved: list[Unsaved] = []
    for line in lines:
        fields = _fields(line)
        if "ended" in fields:
            counts = (len(documents), len(unsaved))
            if counts != (fields["documents"], fields["problems"]) or next(lines, b""):
                raise ManifestDamaged(f"{NAME} lacks lines, or has more than its end says")
            return Manifest(
                str(head["began"]), str(fields["ended"]), dict(head["origin"]), documents, unsaved
            )
        document_id = parse_document_id(str(fields["document_id"]))
        if "problem" in fields:
            unsaved.append(Unsaved(document_id, str(fields["problem"])))
        elif document_id in documents:
            raise ManifestDamaged(f"{NAME} has {document_id} twice")
        else:
            documents[document_id] = _stored(document_id, fields)
    raise ManifestDamaged(f"{NAME} has no end: the backup was cut off")


def _fields(line: bytes) -> dict[str, Any]:
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise ManifestDamaged(f"{NAME} has a line that is no object")
    return fields


def _stored(document_id: DocumentId, fields: Mapping[str, Any]) -> Stored:
    size = int(fields["bytes"])
    if not 0 <= size <= MOST_DOCUMENT_BYTES:
        raise ManifestDamaged(f"{NAME} says that {document_id} has {size:,} bytes")
    return Stored(
        document_id,
        size,
        bytes.fromhex(fields["sha256"]),
        tuple(bytes.fromhex(head) for head in fields["heads"]),
        int(fields["changes"]),
    )

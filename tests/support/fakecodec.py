"""A chunk codec without automerge: chunks are framed bytes, a snapshot is a set of them.

A blob is any number of parts: `C` + length + body (a change) or `S` + length + changes (a
snapshot). A body that starts with `orphan` waits for a dependency; one that starts with `panic`
ends the engine.
"""

import hashlib
import struct
from collections.abc import Sequence

from amsync.errors import InvalidDocument
from amsync.storage.codec import BlobFault, ChunkInfo, Examination, Snapshot


def make_chunk(body: bytes) -> bytes:
    return b"C" + struct.pack(">I", len(body)) + body


def make_snapshot(bodies: Sequence[bytes]) -> bytes:
    inner = b"".join(make_chunk(body) for body in bodies)
    return b"S" + struct.pack(">I", len(inner)) + inner


def bodies_of(blob: bytes) -> list[bytes]:
    """Raises InvalidDocument."""
    bodies: list[bytes] = []
    while blob:
        if len(blob) < 5 or blob[:1] not in (b"C", b"S"):
            raise InvalidDocument("malformed: not a chunk")
        end = 5 + struct.unpack(">I", blob[1:5])[0]
        if end > len(blob):
            raise InvalidDocument("malformed: torn chunk")
        bodies += [blob[5:end]] if blob[:1] == b"C" else bodies_of(blob[5:end])
        blob = blob[end:]
    return bodies


def heads_of(bodies: Sequence[bytes]) -> tuple[bytes, ...]:
    return (hashlib.sha256(b"\0".join(sorted(bodies))).digest(),)


class FakeCodec:
    """Implements `amsync.storage.ChunkCodec`."""

    def is_snapshot(self, blob: bytes) -> bool:
        return blob[:1] == b"S" and len(blob) == 5 + struct.unpack(">I", blob[1:5])[0]

    def inspect(self, blob: bytes) -> ChunkInfo:
        bodies = bodies_of(blob)
        orphans = sum(body.startswith(b"orphan") for body in bodies)
        return ChunkInfo(heads_of(bodies), len(bodies) - orphans, orphans)

    def compact(self, blobs: Sequence[bytes]) -> Snapshot:
        bodies = sorted({body for blob in blobs for body in bodies_of(blob)})
        if any(body.startswith(b"orphan") for body in bodies):
            raise InvalidDocument("orphans: a change waits for a dependency")
        return Snapshot(make_snapshot(bodies), heads_of(bodies))

    def examine(self, blobs: Sequence[bytes]) -> Examination:
        faults: list[BlobFault] = []
        good: set[bytes] = set()
        for index, blob in enumerate(blobs):
            bodies, why = _good_bodies(blob)
            good.update(bodies)
            if why is not None:
                is_chunk = bool(bodies) or blob[:1] in (b"C", b"S")
                faults.append(BlobFault(index, why, len(bodies), is_chunk, False))
        if any(body.startswith(b"panic") for body in good):
            raise InvalidDocument("panic: as asked")
        orphans = sum(body.startswith(b"orphan") for body in good)
        return Examination(heads_of(sorted(good)), len(good) - orphans, orphans, tuple(faults))


def _good_bodies(blob: bytes) -> tuple[list[bytes], str | None]:
    """The bodies of the longest good beginning, and what is wrong after it."""
    for end in range(len(blob), -1, -1):
        try:
            bodies = bodies_of(blob[:end])
        except InvalidDocument:
            continue
        return bodies, None if end == len(blob) else "malformed: torn chunk"
    raise AssertionError("no bytes are always good")

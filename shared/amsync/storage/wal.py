"""The write-ahead log: append-only segments of checksummed records.

Not here: what is in a record (`batch`), when to append (`commit`), when a segment may go
(`store`).

A segment `<wal>/<incarnation>/<number>.wal` is a header (8 bytes magic and version, 8 bytes
salt, 4 bytes CRC-32 of these) and records (4 bytes marker, length and CRC-32 as little-endian
u32, payload). The CRC starts from the salt and covers the length, so that neither a run of
zeros nor bytes that a client chose look like a record.

Invariants: `append` returns only after records and names are fsynced; after a failed write or
fsync a segment is never written or fsynced again, because the kernel may have dropped the
pages and would report success the second time.
"""

import contextlib
import errno
import hashlib
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amsync.errors import StorageError
from amsync.storage.batch import WalBatch, decode_batch, encode_batch
from amsync.storage.durable import DurableFiles
from amsync.storage.files import FileSystem, WritableFile, list_names, storage_errors

SEGMENT_BYTES = 64 * 1024 * 1024
"""A segment is sealed once it is this long; it bounds what one read at start-up holds."""

SEARCH_BYTES = 4 * 1024**3
"""Bytes to checksum (seconds) in search of good records after a bad one, per segment."""

MAGIC = b"AMSYWAL\x01"
MARKER = b"\xa7rec"
_HEADER = struct.Struct("<8s8sI")
_FRAME = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
SEGMENT_SUFFIX = ".wal"


@dataclass(frozen=True, slots=True)
class Segment:
    """What one segment file holds.

    Attributes:
        path: The file.
        batches: Good records, in the order in which they were committed.
        fault: None, or what is wrong beyond a torn end; such a file must not be deleted.
        torn_bytes: Length of a torn end: what a crash left of a record or of the header.
        ends: For each batch the offset at which its record ends.
    """

    path: Path
    batches: tuple[WalBatch, ...]
    fault: str | None
    torn_bytes: int = 0
    ends: tuple[int, ...] = ()


class WalWriter:
    """Appends batches to the segments of one incarnation. Thread-safe.

    Args of the constructor:
        directory: The incarnation's own directory; must not have been used before.
        segment_bytes: See `SEGMENT_BYTES`; a single append may exceed it.
    """

    def __init__(
        self,
        files: FileSystem,
        durable: DurableFiles,
        directory: Path,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._files = files
        self._durable = durable
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._number = 0
        self._path: Path | None = None
        self._file: WritableFile | None = None
        self._size = 0
        self._salt = b""

    def append(self, batches: Sequence[WalBatch]) -> Path:
        """Make batches durable with one write and one fsync; return the segment they are in.

        Raises:
            StorageError, StorageFull: Any part of them may be on disk. The segment is sealed;
                the next append begins another one.
        """
        payloads = [encode_batch(batch) for batch in batches]
        with self._lock:
            if self._size >= self._segment_bytes:
                self._seal()
            fresh = self._file is None
            if fresh:
                self._durable.ensure_directory(self._directory)
                self._number += 1
                self._path = self._directory / f"{self._number:08d}{SEGMENT_SUFFIX}"
            path = self._path
            assert path is not None
            if fresh:
                self._salt = _salt(path)
            salt = self._salt
            data = b"".join(_frame(payload, salt) for payload in payloads)
            if fresh:
                data = _header(salt) + data
            with storage_errors("append to", path):
                try:
                    if self._file is None:
                        self._file = self._files.create(path)
                    self._file.write(data)
                    self._file.fsync()
                    if fresh:
                        self._files.fsync_directory(self._directory)
                except BaseException:
                    self._seal()
                    if fresh:
                        # Nothing in it was acknowledged; on a full disk every retry would
                        # otherwise leave one more file.
                        with contextlib.suppress(OSError):
                            self._files.unlink(path)
                    raise
            self._size += len(data)
            return path

    def rotate(self) -> None:
        """Seal the current segment; the next append begins another one."""
        with self._lock:
            self._seal()

    def _seal(self) -> None:
        file, self._file, self._path, self._size = self._file, None, None, 0
        if file is not None:
            # Everything acknowledged was fsynced already, so an error here loses nothing.
            with contextlib.suppress(OSError):
                file.close()


def new_incarnation(files: FileSystem, wal: Path, owner: str) -> Path:
    """Name the directory of a new incarnation, so that it sorts after all that are there.

    Raises:
        StorageError
    """
    with storage_errors("list", wal):
        heads = [entry.name.partition("-")[0] for entry in list_names(files, wal)]
    number = 1 + max((int(head) for head in heads if head.isdecimal()), default=0)
    return wal / f"{number:06d}-{owner}"


def list_segments(files: FileSystem, wal: Path) -> list[Path]:
    """Find the segments of all incarnations, in the order in which they were written.

    Raises:
        StorageError
    """
    with storage_errors("list", wal):
        return [
            wal / incarnation.name / entry.name
            for incarnation in list_names(files, wal)
            if incarnation.is_directory
            for entry in list_names(files, wal / incarnation.name)
            if entry.name.endswith(SEGMENT_SUFFIX) and not entry.is_directory
        ]


def is_gone(error: StorageError) -> bool:
    """Tell whether a file could not be read because it is not there any more."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOENT, errno.ESTALE)


def read_segment(files: FileSystem, path: Path) -> Segment:
    """Read every good record of a segment.

    A torn end is what a crash leaves and is passed over; a bad record with a good one after it
    is damage, and is named in `fault`. So is a header of another version.

    Raises:
        StorageError: The file could not be read.
    """
    with storage_errors("read", path):
        data = files.read(path)
    return parse_segment(path, data)


def parse_segment(path: Path, data: bytes) -> Segment:
    """Find every good record in the bytes of a segment; see `read_segment`.

    Only the last two parts of the path matter: the records are bound to them.
    """
    salt = _salt(path)
    faults: list[str] = []
    if len(data) < _HEADER.size:
        return Segment(path, (), None, len(data))
    if data[: _HEADER.size] != _header(salt):
        faults.append("header is not ours or damaged")
    batches: list[WalBatch] = []
    ends: list[int] = []
    torn_bytes = 0
    offset = _HEADER.size
    budget = SEARCH_BYTES
    while offset < len(data):
        end = _record_end(data, offset, salt)
        if end is None:
            following, budget = _next_record(data, offset + 1, salt, budget)
            if following is None:
                if budget <= 0:
                    faults.append(f"bytes after {offset} are not a record; gave up searching")
                else:
                    torn_bytes = len(data) - offset
                break
            faults.append(f"bytes {offset} to {following} are not a record")
            offset = following
            continue
        try:
            batches.append(decode_batch(data[offset + _FRAME.size : end]))
            ends.append(end)
        except StorageError as error:
            faults.append(f"record at byte {offset}: {error}")
        offset = end
    fault = "; ".join(faults[:10]) or None
    return Segment(path, tuple(batches), fault, torn_bytes, tuple(ends))


def _salt(path: Path) -> bytes:
    # From the names alone, so that records are found even when the header is damaged. Clients
    # can't forge a record: they don't learn the incarnation.
    name = f"{path.parent.name}/{path.name}".encode()
    return hashlib.blake2b(name, digest_size=8).digest()


def _header(salt: bytes) -> bytes:
    return _HEADER.pack(MAGIC, salt, zlib.crc32(MAGIC + salt))


def _frame(payload: bytes, salt: bytes) -> bytes:
    return _FRAME.pack(MARKER, len(payload), _checksum(payload, salt)) + payload


def _checksum(payload: bytes | memoryview, salt: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(salt + _LENGTH.pack(len(payload))))


def _record_end(data: bytes, offset: int, salt: bytes) -> int | None:
    if offset + _FRAME.size > len(data):
        return None
    marker, length, checksum = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if marker != MARKER or start + length > len(data):
        return None
    if _checksum(memoryview(data)[start : start + length], salt) != checksum:
        return None
    return int(start + length)


def _next_record(data: bytes, offset: int, salt: bytes, budget: int) -> tuple[int | None, int]:
    # Each marker found costs one CRC over what may be the whole rest, and a client can fill
    # its changes with markers.
    while budget > 0:
        offset = data.find(MARKER, offset)
        if offset < 0:
            return None, budget
        if _record_end(data, offset, salt) is not None:
            return offset, budget
        if offset + _FRAME.size <= len(data):
            length = _FRAME.unpack_from(data, offset)[1]
            if offset + length <= len(data):
                budget -= length
        budget -= _FRAME.size
        offset += 1
    return None, 0

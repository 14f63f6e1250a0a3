"""Writes automerge chunks and sync messages byte by byte, also ones that no honest client makes.

The formats are those of the crate's `storage` and `sync` modules (PROTOCOL 5.1).
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby

MAGIC = bytes.fromhex("856f4a83")
DOCUMENT, CHANGE, COMPRESSED, BUNDLE = range(4)

OBJECT_ACTOR, OBJECT_COUNTER = 0x01, 0x02
KEY_ACTOR, KEY_COUNTER, KEY_STRING = 0x11, 0x13, 0x15
INSERT, ACTION = 0x34, 0x42
VALUE_META, VALUE = 0x56, 0x57
PREDECESSOR_GROUP, PREDECESSOR_ACTOR, PREDECESSOR_COUNTER = 0x70, 0x71, 0x73
EXPAND, MARK_NAME = 0x94, 0xA5
ID_ACTOR, ID_COUNTER = 0x21, 0x23
SUCCESSOR_GROUP, SUCCESSOR_ACTOR, SUCCESSOR_COUNTER = 0x80, 0x81, 0x83
DEFLATE = 0x08

MAKE_MAP, SET, MAKE_LIST, DELETE, MAKE_TEXT, INCREMENT, MAKE_TABLE, MARK = range(8)
NULL, FALSE, TRUE, UINT, INT, FLOAT, TEXT, BYTES, COUNTER, TIMESTAMP = range(10)
FLAGS = bytes([2, 2, 0x84])


def unsigned(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def signed(value: int) -> bytes:
    encoded = bytearray()
    while not -64 <= value < 64:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value & 0x7F)
    return bytes(encoded)


def prefixed(data: bytes) -> bytes:
    return unsigned(len(data)) + data


def deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush()


def run(count: int, value: int | bytes) -> bytes:
    """A run of one integer, or of one text given as bytes, as the crate would encode it."""
    encoded = prefixed(value) if isinstance(value, bytes) else unsigned(value)
    return signed(-1 if count == 1 else count) + encoded


def chunk_hash(data: bytes, kind: int = CHANGE) -> bytes:
    return sha256(bytes([kind]) + prefixed(data)).digest()


def chunk(kind: int, data: bytes, checksum: bytes | None = None) -> bytes:
    if checksum is None:
        checksum = chunk_hash(data, kind)[:4]
    return MAGIC + checksum + bytes([kind]) + prefixed(data)


def body(change: bytes) -> bytes:
    """The data of a chunk, without its header."""
    length, at = read_unsigned(change, 9)
    return change[at : at + length]


def compressed(change: bytes) -> bytes:
    """A change chunk as the crate would store it in a file."""
    data = body(change)
    return chunk(COMPRESSED, deflate(data), chunk_hash(data)[:4])


@dataclass
class Change:
    """One change; by default it sets the root key `k` to null, `operations` times."""

    actor: bytes
    sequence: int = 1
    start: int = 1
    deps: Sequence[bytes] = ()
    others: Sequence[bytes] = ()
    operations: int = 1
    columns: dict[int, bytes] = field(default_factory=dict)
    extra: bytes = b""

    def data(self) -> bytes:
        columns: dict[int, bytes] = {}
        if self.operations:
            columns = {
                KEY_STRING: run(self.operations, b"k"),
                INSERT: unsigned(self.operations),
                ACTION: run(self.operations, SET),
                VALUE_META: run(self.operations, 0),
                PREDECESSOR_GROUP: run(self.operations, 0),
            }
        columns = {**columns, **self.columns}
        columns = {spec: columns[spec] for spec in sorted(columns) if columns[spec]}
        return b"".join(
            [
                unsigned(len(self.deps)),
                *sorted(self.deps),
                prefixed(self.actor),
                unsigned(self.sequence),
                unsigned(self.start),
                signed(0),
                prefixed(b""),
                unsigned(len(self.others)),
                *map(prefixed, self.others),
                layout(columns),
                *columns.values(),
                self.extra,
            ]
        )

    def chunk(self) -> bytes:
        return chunk(CHANGE, self.data())

    def compressed(self) -> bytes:
        data = self.data()
        return chunk(COMPRESSED, deflate(data), chunk_hash(data)[:4])

    def hash(self) -> bytes:
        return chunk_hash(self.data())


def layout(columns: dict[int, bytes]) -> bytes:
    specs = [unsigned(spec) + unsigned(len(data)) for spec, data in columns.items()]
    return unsigned(len(columns)) + b"".join(specs)


def document(
    changes: dict[int, bytes],
    operations: dict[int, bytes],
    actors: Sequence[bytes] = (b"a",),
    heads: Sequence[tuple[bytes, int]] = ((b"h" * 32, 0),),
) -> bytes:
    """A saved document, unless told otherwise with one actor and one made-up head.

    A head has the position of its change in the columns.
    """
    data = b"".join(
        [
            unsigned(len(actors)),
            *map(prefixed, actors),
            unsigned(len(heads)),
            *(head for head, _ in heads),
            layout(changes),
            layout(operations),
            *changes.values(),
            *operations.values(),
            *(unsigned(position) for _, position in heads),
        ]
    )
    return chunk(DOCUMENT, data)


def hashes(values: Sequence[bytes]) -> bytes:
    return unsigned(len(values)) + b"".join(sorted(values))


def have(last_sync: Sequence[bytes] = (), bloom: bytes = b"") -> bytes:
    return hashes(last_sync) + prefixed(bloom)


def message(
    changes: Sequence[bytes] = (),
    heads: Sequence[bytes] = (),
    need: Sequence[bytes] = (),
    haves: Sequence[bytes] = (have(),),
    flags: bytes = FLAGS,
    version: int = 0x42,
) -> bytes:
    return b"".join(
        [
            bytes([version]),
            hashes(heads),
            hashes(need),
            unsigned(len(haves)),
            *haves,
            unsigned(len(changes)),
            *map(prefixed, changes),
            flags,
        ]
    )


MAKE_LIST, DELETE, INCREMENT = 2, 3, 5
INTEGER, COUNTER = 4, 8
HEAD = (None, 0)

OpId = tuple[int | None, int]
"""Index of the actor, 0 for the author of the change, and number."""


@dataclass
class Row:
    """One operation; by default it sets its key to null. At the root if it has no object."""

    key: str | OpId
    action: int = SET
    object: OpId | None = None
    before: Sequence[OpId] = ()
    insert: bool = False
    value: int | None = None
    """Of an increment; of a counter, if it is set."""


def rle(values: Sequence[int | bytes | None], *, is_signed: bool = False) -> bytes:
    """As the crate would encode them: runs, literals and nulls, each as long as it can be."""
    encoded, literals = bytearray(), bytearray()
    count = 0

    def end_literals() -> None:
        nonlocal count
        if count:
            encoded.extend(signed(-count) + literals)
            literals.clear()
            count = 0

    if all(value is None for value in values):
        return b""
    for value, group in groupby(values):
        length = len(list(group))
        if value is None:
            end_literals()
            encoded.extend(signed(0) + unsigned(length))
            continue
        one = signed if is_signed else unsigned
        data = prefixed(value) if isinstance(value, bytes) else one(value)
        if length == 1:
            literals.extend(data)
            count += 1
        else:
            end_literals()
            encoded.extend(signed(length) + data)
    end_literals()
    return bytes(encoded)


def deltas(values: Sequence[int | None]) -> bytes:
    differences: list[int | None] = []
    last = 0
    for value in values:
        differences.append(None if value is None else value - last)
        last = last if value is None else value
    return rle(differences, is_signed=True)


def booleans(values: Sequence[bool]) -> bytes:
    encoded, now = bytearray(), False
    for value, group in groupby(values):
        if value != now:
            encoded.extend(unsigned(0))
        encoded.extend(unsigned(len(list(group))))
        now = not value
    return bytes(encoded)


def columns(rows: Sequence[Row]) -> dict[int, bytes]:
    """The columns of these operations, for a `Change` with as many."""
    elements = [row.key if isinstance(row.key, tuple) else (None, None) for row in rows]
    before = [each for row in rows for each in row.before]
    metas = [
        0 if row.value is None else 1 << 4 | (INTEGER if row.action == INCREMENT else COUNTER)
        for row in rows
    ]
    return {
        OBJECT_ACTOR: rle([row.object and row.object[0] for row in rows]),
        OBJECT_COUNTER: rle([row.object and row.object[1] for row in rows]),
        KEY_ACTOR: rle([actor for actor, _ in elements]),
        KEY_COUNTER: deltas([counter for _, counter in elements]),
        KEY_STRING: rle([row.key.encode() if isinstance(row.key, str) else None for row in rows]),
        INSERT: booleans([row.insert for row in rows]),
        ACTION: rle([row.action for row in rows]),
        VALUE_META: rle(metas),
        VALUE: b"".join(signed(row.value) for row in rows if row.value is not None),
        PREDECESSOR_GROUP: rle([len(row.before) for row in rows]),
        PREDECESSOR_ACTOR: rle([actor for actor, _ in before]),
        PREDECESSOR_COUNTER: deltas([counter for _, counter in before]),
    }

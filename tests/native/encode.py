"""Writes changes and saved documents from their operations, in the encoding of the crate."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from . import craft
from .craft import Change

OpId = tuple[int, bytes]
"""Counter and actor."""

HEAD: OpId = (0, b"")
"""The place before the first element of a sequence."""

DEFLATE_FROM = 256


@dataclass(frozen=True)
class Operation:
    """One operation; `key` is the key in a map, or the element in a sequence."""

    action: int
    key: bytes | OpId
    object: OpId | None = None
    insert: bool = False
    value: tuple[int, bytes] = (craft.NULL, b"")
    predecessors: Sequence[OpId] = ()
    expand: bool = False
    mark: bytes | None = None

    def named(self) -> list[OpId]:
        """What it refers to."""
        element = [self.key] if isinstance(self.key, tuple) and self.key != HEAD else []
        return [*([self.object] if self.object else []), *element, *self.predecessors]


def change(
    actor: bytes, sequence: int, start: int, deps: Sequence[bytes], operations: Sequence[Operation]
) -> Change:
    """A change with these operations, and the actors that they name."""
    others = {other for operation in operations for _, other in operation.named()} - {actor}
    actors = [actor, *sorted(others)]
    named = [name for operation in operations for name in operation.predecessors]
    columns = {
        **_columns(actors, operations),
        craft.PREDECESSOR_GROUP: runs([len(operation.predecessors) for operation in operations]),
        craft.PREDECESSOR_ACTOR: runs([actors.index(name) for _, name in named]),
        craft.PREDECESSOR_COUNTER: deltas([counter for counter, _ in named]),
    }
    return Change(actor, sequence, start, deps, actors[1:], operations=0, columns=columns)


def document(
    changes: Sequence[tuple[Change, int]], rows: Sequence[tuple[OpId, Operation]]
) -> bytes:
    """A saved document of a chain of changes, each with its last counter.

    The rows are its operations in the order in which they are to be written; deletions among
    them are not written, but tell what they delete.
    """
    actors = sorted({one.actor for one, _ in changes})
    kept = [row for row in rows if row[1].action != craft.DELETE]
    after = [
        sorted(name for name, later in rows if earlier in later.predecessors) for earlier, _ in kept
    ]
    successors = [name for names in after for name in names]
    count = len(changes)
    graph = {
        0x01: runs([actors.index(one.actor) for one, _ in changes]),
        0x03: deltas([one.sequence for one, _ in changes]),
        0x13: deltas([last for _, last in changes]),
        0x23: deltas([0] * count),
        0x40: runs([min(position, 1) for position in range(count)]),
        0x43: deltas(list(range(count - 1))),
        0x56: runs([craft.BYTES] * count),
    }
    columns = {
        **_columns(actors, [operation for _, operation in kept]),
        craft.ID_ACTOR: runs([actors.index(actor) for (_, actor), _ in kept]),
        craft.ID_COUNTER: deltas([counter for (counter, _), _ in kept]),
        craft.SUCCESSOR_GROUP: runs([len(names) for names in after]),
        craft.SUCCESSOR_ACTOR: runs([actors.index(actor) for _, actor in successors]),
        craft.SUCCESSOR_COUNTER: deltas([counter for counter, _ in successors]),
    }
    head = (changes[-1][0].hash(), count - 1)
    return craft.document(_packed(graph), _packed(columns), actors, [head])


def _columns(actors: Sequence[bytes], operations: Sequence[Operation]) -> dict[int, bytes]:
    """The columns that changes and documents have in common."""
    objects = [operation.object for operation in operations]
    keys = [operation.key for operation in operations]
    elements = [None if isinstance(key, bytes) else key for key in keys]
    values = [operation.value for operation in operations]

    def named(ids: Sequence[OpId | None]) -> tuple[list[int | None], list[int | None]]:
        return (
            [actors.index(one[1]) if one and one != HEAD else None for one in ids],
            [None if one is None else one[0] for one in ids],
        )

    object_actors, object_counters = named(objects)
    key_actors, key_counters = named(elements)
    return {
        craft.OBJECT_ACTOR: runs(object_actors),
        craft.OBJECT_COUNTER: runs(object_counters),
        craft.KEY_ACTOR: runs(key_actors),
        craft.KEY_COUNTER: deltas(key_counters),
        craft.KEY_STRING: runs([key if isinstance(key, bytes) else None for key in keys]),
        craft.INSERT: flags([operation.insert for operation in operations]),
        craft.ACTION: runs([operation.action for operation in operations]),
        craft.VALUE_META: runs([len(data) << 4 | kind for kind, data in values]),
        craft.VALUE: b"".join(data for _, data in values),
        craft.EXPAND: flags([operation.expand for operation in operations], may_be_absent=True),
        craft.MARK_NAME: runs([operation.mark for operation in operations]),
    }


def _packed(columns: dict[int, bytes]) -> dict[int, bytes]:
    """In order, without empty columns, and long ones compressed."""
    packed = dict[int, bytes]()
    for spec, data in sorted(columns.items()):
        if len(data) >= DEFLATE_FROM:
            packed[spec | craft.DEFLATE] = craft.deflate(data)
        elif data:
            packed[spec] = data
    return packed


def _scalar(value: int | bytes) -> bytes:
    return craft.prefixed(value) if isinstance(value, bytes) else craft.unsigned(value)


def runs(
    values: Sequence[int | None] | Sequence[bytes | None],
    encoded: Callable[[int | bytes], bytes] = _scalar,
) -> bytes:
    """A run-length column, exactly as the crate writes it: nothing if all values are missing."""
    if all(value is None for value in values):
        return b""
    column, lone = b"", list[bytes]()

    def literal() -> bytes:
        data = craft.signed(-len(lone)) + b"".join(lone) if lone else b""
        lone.clear()
        return data

    for value, same in groupby(values):
        count = len(list(same))
        if value is None:
            column += literal() + craft.signed(0) + craft.unsigned(count)
        elif count == 1:
            lone.append(encoded(value))
        else:
            column += literal() + craft.signed(count) + encoded(value)
    return column + literal()


def deltas(values: Sequence[int | None]) -> bytes:
    """A column of differences to the value before."""
    before, differences = 0, list[int | None]()
    for value in values:
        differences.append(None if value is None else value - before)
        before = before if value is None else value
    return runs(differences, lambda value: craft.signed(int(value)))


def flags(values: Sequence[bool], *, may_be_absent: bool = False) -> bytes:
    """A column of booleans: lengths of runs in turn, the first one false."""
    if may_be_absent and not any(values):
        return b""
    lengths = [len(list(same)) for _, same in groupby(values)]
    first = [0] if values and values[0] else []
    return b"".join(map(craft.unsigned, first + lengths))

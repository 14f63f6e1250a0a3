"""Any operations in well-formed changes: what the engine takes harms no replica.

A world is a few authors who make changes on branches of one document. In a tame world all do
what honest clients do, and everything must be taken; in a wild one operations are twisted, and
each change must be refused whole or harm nobody (`native.oracles`). A world is made from its seed
alone. Run it with `python tests/fuzz/fuzz_operations.py SECONDS [SEED]`; `0 SEED` is one world.
"""

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from amsync._automerge import Document  # noqa: E402
from native import craft, encode  # noqa: E402
from native.craft import Change  # noqa: E402
from native.encode import HEAD, Operation, OpId  # noqa: E402
from native.oracles import check_nobody_is_harmed  # noqa: E402

ACTORS = (b"A" * 16, b"B" * 16, b"C" * 16)
KEYS = (b"k", b"j", b"")  # which the oracle's honest edits use too
HOSTILE = 1
TWISTED = 0.3
ELEMENT_EDITED = 12
ENOUGH_WORLDS = 60
MAKES = (craft.MAKE_MAP, craft.MAKE_LIST, craft.MAKE_TEXT, craft.MAKE_TABLE)
SEQUENCES = (craft.MAKE_LIST, craft.MAKE_TEXT)

Value = tuple[int, bytes]
STEPS: tuple[Value, ...] = ((craft.INT, b"\1"), (craft.INT, b"\x7f"))
VALUES: tuple[Value, ...] = (
    (craft.NULL, b""),
    (craft.FALSE, b""),
    (craft.TRUE, b""),
    (craft.UINT, b"\5"),
    (craft.INT, b"\5"),
    (craft.FLOAT, b"\0\0\0\0\0\0\xf8\x3f"),
    (craft.TEXT, b""),
    (craft.TEXT, b"hi"),
    (craft.BYTES, b"zz"),
    (craft.COUNTER, b"\1"),
    (craft.COUNTER, b"\x7f"),
    (craft.TIMESTAMP, b"\5"),
)
ODD_VALUES: tuple[Value, ...] = (
    (craft.COUNTER, b"\xff" * 9 + b"\0"),  # the largest: one more is an overflow
    (craft.INT, b"\xff" * 9 + b"\0"),
    (10, b"hi"),
    (15, b"hi"),
    (craft.TEXT, b"\xff"),
    (craft.FLOAT, b"\0"),
    (craft.NULL, b"\0"),
)


@dataclass
class Branch:
    """What an author knows: all operations before the one that comes next."""

    known: dict[OpId, Operation] = field(default_factory=dict)
    overwritten: set[OpId] = field(default_factory=set)

    def add(self, name: OpId, operation: Operation) -> None:
        self.known[name] = operation
        if operation.action != craft.INCREMENT:
            self.overwritten.update(operation.predecessors)

    def values(self, target: OpId | None, place: bytes | OpId) -> list[OpId]:
        """What was ever written at a key or element."""
        return [
            name
            for name, one in self.known.items()
            if one.object == target
            and (name if one.insert else one.key) == place
            and one.action not in (craft.DELETE, craft.INCREMENT)
        ]

    def visible(self, target: OpId | None, place: bytes | OpId) -> list[OpId]:
        return [name for name in self.values(target, place) if name not in self.overwritten]

    def elements(self, target: OpId | None) -> list[OpId]:
        return [name for name, one in self.known.items() if one.object == target and one.insert]

    def objects(self, actions: tuple[int, ...]) -> list[OpId]:
        return [name for name, one in self.known.items() if one.action in actions]


@dataclass(frozen=True)
class Made:
    """A change that was taken; `past` are the positions of those that it knows."""

    change: Change
    operations: dict[OpId, Operation]
    past: frozenset[int]
    last: int


@dataclass
class World:
    """One document, and those who write to it."""

    chance: random.Random
    twists: list[int]
    """Those of this world; just a few, so that one thing happens often, and alone."""
    document: Document = field(default_factory=Document)
    stored: list[bytes] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    refused: int = 0

    def step(self) -> None:
        """Make one change and send it."""
        chance, actor = self.chance, self.chance.choice(ACTORS)
        own = [index for index, made in enumerate(self.made) if made.change.actor == actor]
        tips = set(own[-1:]) | {index for index in range(len(self.made)) if chance.random() < 0.35}
        past = frozenset(tips).union(*(self.made[index].past for index in tips))
        deps = [i for i in past if not any(i in self.made[other].past for other in past)]
        count = chance.choice((0, 1, 1, 2, 3, 5)) if self.made else chance.choice((3, 5))
        gap = chance.randint(1, 3) if count and chance.random() < 0.1 else 0
        start = max((self.made[index].last for index in past), default=0) + 1 + gap

        branch = Branch()
        for index in sorted(past):
            for name, operation in self.made[index].operations.items():
                branch.add(name, operation)
        operations: dict[OpId, Operation] = {}
        for _ in range(count):
            for operation in self.honest((start + len(operations), actor), branch):
                name = (start + len(operations), actor)
                if self.twists and chance.random() < TWISTED:
                    operation = self.twisted(operation, name, branch)  # noqa: PLW2901
                branch.add(name, operation)
                operations[name] = operation
        change = encode.change(
            actor,
            len(own) + 1,
            start,
            [self.made[index].change.hash() for index in deps],
            list(operations.values()),
        )
        if self.send(change):
            last = start + len(operations) - 1
            self.made.append(Made(change, operations, past, last))

    def send(self, change: Change) -> bool:
        self.document.add_peer(HOSTILE)
        heads, batch = self.document.heads(), [(HOSTILE, craft.message([change.chunk()]))]
        outcome = self.document.sync(batch, only_light=True)
        if not outcome.taken:
            outcome = self.document.sync(batch)
        self.stored += outcome.chunks
        if outcome.faults:
            assert self.twists, f"what is honest was refused: {outcome.faults[0].detail}"
            assert self.document.heads() == heads
            assert outcome.chunks == []
            self.refused += 1
        return not outcome.faults

    def honest(self, name: OpId, branch: Branch) -> list[Operation]:
        """What a client would do next, in one or a few operations."""
        chance = self.chance
        target = chance.choice([None, *branch.objects(MAKES[:3]) * 2])
        kind = branch.known[target].action if target else craft.MAKE_MAP
        if kind not in SEQUENCES:
            return [self.written(target, chance.choice(KEYS), branch)]
        elements = [
            each for each in branch.elements(target) if branch.known[each].action != craft.MARK
        ]
        alive = [each for each in elements if branch.visible(target, each)]
        if alive and chance.random() < 0.4:
            element = chance.choice(alive)
            if kind == craft.MAKE_LIST:
                return [self.written(target, element, branch)]
            gone = branch.visible(target, element)
            return [Operation(craft.DELETE, element, target, predecessors=gone)]
        before = chance.choice(elements) if elements and chance.random() < 0.85 else HEAD
        if kind == craft.MAKE_LIST:
            action, value = self.content()
            return [Operation(action, before, target, insert=True, value=value)]
        letter = Operation(craft.SET, before, target, insert=True, value=(craft.TEXT, b"x"))
        if chance.random() < 0.8:
            return [letter]
        expand, mark = chance.random() < 0.5, chance.choice((b"bold", b"link"))
        begin = Operation(
            craft.MARK, before, target, True, (craft.TRUE, b""), expand=expand, mark=mark
        )
        return [letter, begin, Operation(craft.MARK, name, target, insert=True, expand=expand)]

    def written(self, target: OpId | None, place: bytes | OpId, branch: Branch) -> Operation:
        """A new value at a key or element, its deletion, or a counter's step."""
        visible = branch.visible(target, place)
        counters = [each for each in visible if branch.known[each].value[0] == craft.COUNTER]
        if counters and self.chance.random() < 0.5:
            value = self.chance.choice(STEPS)
            return Operation(
                craft.INCREMENT, place, target, value=value, predecessors=sorted(counters)
            )
        if visible and self.chance.random() < 0.25:
            return Operation(craft.DELETE, place, target, predecessors=sorted(visible))
        action, value = self.content()
        return Operation(action, place, target, value=value, predecessors=sorted(visible))

    def content(self) -> tuple[int, Value]:
        if self.chance.random() < 0.35:
            return self.chance.choice(MAKES[:3]), (craft.NULL, b"")
        return craft.SET, self.chance.choice(VALUES)

    def twisted(self, operation: Operation, name: OpId, branch: Branch) -> Operation:
        """The same, but for something that no honest client does."""
        chance = self.chance
        anything = [*branch.known, name, *(each for made in self.made for each in made.operations)]
        place = name if operation.insert else operation.key
        match chance.choice(self.twists):
            case 0:
                return replace(operation, insert=not operation.insert)
            case 1:
                return replace(operation, predecessors=())
            case 2:
                return replace(operation, predecessors=[chance.choice(anything)])
            case 3:
                twice = [*operation.predecessors, *operation.predecessors]
                return replace(operation, predecessors=chance.choice((twice, twice[::-1])))
            case 4:
                return replace(operation, action=chance.randrange(9))
            case 5:
                key = chance.choice((b"k", HEAD, chance.choice(anything)))
                return replace(operation, key=key, predecessors=())
            case 6:
                return replace(operation, object=chance.choice((None, chance.choice(anything))))
            case 7:
                return replace(operation, value=chance.choice(ODD_VALUES))
            case 8:
                mark, kind = chance.choice(((b"bold", craft.TRUE), (None, craft.NULL)))
                return replace(operation, action=craft.MARK, mark=mark, value=(kind, b""))
            case 9:
                return Operation(craft.MAKE_TABLE, chance.choice(KEYS))
            case 10 if tables := branch.objects(MAKES[3:]):
                return replace(operation, object=chance.choice(tables), key=b"k")
            case 11:
                before = branch.values(operation.object, place)  # also what is overwritten
                return replace(operation, predecessors=self.some(before))
            case _ if sequences := branch.objects(SEQUENCES):
                target = chance.choice(sequences[:2])  # often the same ones
                elements = branch.elements(target) or [HEAD]
                element = chance.choice((elements[0], elements[-1], chance.choice(elements)))
                action, content = self.content()
                if chance.random() < 0.4:
                    action, content = chance.choice((craft.DELETE, craft.INCREMENT)), STEPS[0]
                before = branch.values(target, element)
                return Operation(
                    action, element, target, value=content, predecessors=self.some(before)
                )
            case _:
                return operation

    def some(self, names: list[OpId]) -> list[OpId]:
        count = min(len(names), self.chance.choice((0, 1, 1, 1, 2, 3)))
        return sorted(self.chance.sample(names, count))


def one_world(seed: int) -> Counter[str]:
    """Make and check one world; returns how many changes, and operations of each kind, it took."""
    chance = random.Random(seed)
    twists = chance.sample(range(ELEMENT_EDITED), chance.choice((0, 1, 2)))
    twists += [ELEMENT_EDITED] * chance.choice((1, 4) if not twists else (0, 1, 4))
    world = World(chance, twists if seed % 4 else [])
    try:
        for _ in range(chance.randint(2, 10)):
            world.step()
        if world.made:
            changes = [made.change for made in world.made]
            check_nobody_is_harmed(world.document, world.stored, changes, chance)
    except BaseException as error:
        for made in world.made:
            error.add_note(f"  {made.change.actor[:1]!r} {sorted(made.past)} {made.operations}")
        error.add_note(f"seed {seed}: python tests/fuzz/fuzz_operations.py 0 {seed}")
        raise
    tally = Counter({"worlds": 1, "refused": world.refused, "taken": len(world.made)})
    tally["wild taken"] = len(world.made) if world.twists else 0
    for made in world.made:
        tally.update(f"action {operation.action}" for operation in made.operations.values())
    return tally


def check_enough_was_taken(tally: Counter[str]) -> None:
    """Whoever refuses everything harms nobody, and whoever twists nothing finds nothing."""
    assert tally["taken"] >= 2 * tally["worlds"], tally
    assert tally["wild taken"] >= tally["refused"] / 2, tally
    assert tally["refused"] >= tally["worlds"] / 20, tally
    for action in (*MAKES[:3], craft.SET, craft.DELETE, craft.INCREMENT, craft.MARK):
        assert tally[f"action {action}"] >= tally["worlds"] / 20, (action, tally)


def main(seconds: float, seed: int) -> None:
    """Make worlds for a time, the first with this seed; ends with the exception that was found."""
    tally = one_world(seed)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tally += one_world(seed + tally["worlds"])
    print(f"seed {seed} and on, nothing found: {dict(tally)}")
    if tally["worlds"] >= ENOUGH_WORLDS:
        check_enough_was_taken(tally)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32))

"""Checkpoint marks: what of each shard is in the document folders.

Not here: positions that are still in the WAL; these are newer and win.

    <root>/.amsync/shards/017/mark

Invariant: what a mark calls covered is in the folders, whoever wrote the mark and when.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from amsync.errors import ReadBackDiffers
from amsync.storage.batch import Position
from amsync.storage.files import list_names, storage_errors
from amsync.storage.volume import Volume

TRIES = 5
"""As often a mark is written while others write it too."""

Place = tuple[int, int]
"""Number of a segment of an incarnation, and an offset in it."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of one shard.

    Attributes:
        position: How far its inbound stream is, if that is known.
        covered: Incarnation -> place up to which the shard's records in its WAL need not be read.
    """

    position: Position | None = None
    covered: Mapping[str, Place] = field(default_factory=dict)


class ShardMarks:
    """The marks of one volume.

    An owner and those before it may write a shard's mark at the same time. One may then lose
    what the other has written: more is read than must be, and nothing is missing.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._shards = volume.control / "shards"

    def read(self) -> dict[int, Position]:
        """Read the positions of all marks.

        Raises:
            StorageError
        """
        with storage_errors("list", self._shards):
            names = [entry.name for entry in list_names(self._volume.files, self._shards)]
        marks = {int(name): self.read_shard(int(name)) for name in names if name.isdecimal()}
        return {shard: mark.position for shard, mark in marks.items() if mark.position is not None}

    def read_shard(self, shard: int) -> Mark:
        """Read a shard's mark; a damaged one is reported and counts as none (replay is harmless).

        Raises:
            StorageError
        """
        path = self._shards / f"{shard:03d}" / "mark"
        with storage_errors("read", path):
            try:
                return _parse(self._volume.files.read(path))
            except FileNotFoundError:
                return Mark()
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                self._volume.findings.add("bad_mark", path, type(error).__name__)
                return Mark()

    def write(
        self, positions: Mapping[int, Position], covered: Mapping[int, Mapping[str, Place]]
    ) -> None:
        """Write the marks of the shards given, durably.

        What is not given, and a position that is further, stay as they are.

        Raises:
            StorageError, StorageFull
        """
        for shard in sorted(positions.keys() | covered.keys()):
            for is_last in (*[False] * (TRIES - 1), True):
                try:
                    self._write(shard, positions.get(shard), covered.get(shard))
                    break
                except ReadBackDiffers:  # of a worker that ends in the same moment, for one
                    if is_last:
                        raise

    def _write(
        self, shard: int, position: Position | None, covered: Mapping[str, Place] | None
    ) -> None:
        before = self.read_shard(shard)
        known = before.position
        if position is None or (known is not None and position.is_behind(known)):
            position = known
        after = Mark(position, before.covered if covered is None else covered)
        self._volume.durable.write(self._shards / f"{shard:03d}" / "mark", _text(after))


def _text(mark: Mark) -> bytes:
    position = mark.position or Position("", "")
    fields = {
        "cluster_epoch": position.cluster_epoch,
        "entry": position.entry,
        "sequences": dict(position.sequences),
        "epoch": position.epoch,
        "covered": mark.covered,
    }
    return json.dumps(fields).encode()


def _parse(text: bytes) -> Mark:
    fields = json.loads(text)
    position = Position(
        str(fields["cluster_epoch"]),
        str(fields["entry"]),
        {str(name): int(number) for name, number in fields["sequences"].items()},
        int(fields.get("epoch", 0)),
    )
    covered = {
        str(name): (int(number), int(offset))
        for name, (number, offset) in fields.get("covered", {}).items()
    }
    return Mark(position if position.entry else None, covered)

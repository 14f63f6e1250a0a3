"""Marks that two workers write at the same time."""

from pathlib import Path

import pytest

from amsync.errors import StorageError
from amsync.storage.batch import Position
from amsync.storage.marks import Mark, ShardMarks
from amsync.storage.volume import Volume
from support.memfs import MemoryFileSystem

ROOT = Path("/volume/data")
SHARD = 17
NEAR = Position("bus", "5-0", {"gateway": 5}, 1)
FAR = Position("bus", "9-0", {"gateway": 9}, 2)
COVERED = {"incarnation": (1, 100)}


class Interrupted(MemoryFileSystem):
    """Somebody else writes a mark in the moment in which we have renamed ours."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0
        self.other: ShardMarks | None = None

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        if target.name == "mark" and self.times > 0:
            left, self.times = self.times, 0
            assert self.other is not None
            self.other.write(
                {SHARD: Position("bus", f"9-{left}", {}, 2)}, {SHARD: {"other": (left, 0)}}
            )
            self.times = left - 1


@pytest.fixture
def files() -> Interrupted:
    files = Interrupted()
    files.put(ROOT.parent / "other", b"")
    return files


@pytest.fixture
def marks(files: Interrupted) -> ShardMarks:
    marks = files.other = ShardMarks(Volume.open(ROOT, files=files))
    return marks


def test_mark_that_another_wrote_meanwhile_keeps_the_further_position(
    files: Interrupted, marks: ShardMarks
) -> None:
    files.times = 1

    marks.write({SHARD: NEAR}, {SHARD: COVERED})

    assert marks.read_shard(SHARD) == Mark(Position("bus", "9-1", {}, 2), COVERED)


def test_mark_that_never_reads_back_is_an_error(files: Interrupted, marks: ShardMarks) -> None:
    files.times = 100

    with pytest.raises(StorageError, match="reads back other bytes"):
        marks.write({SHARD: NEAR}, {SHARD: COVERED})


def test_position_of_a_mark_never_goes_back(marks: ShardMarks) -> None:
    marks.write({SHARD: FAR}, {})
    marks.write({SHARD: NEAR}, {SHARD: COVERED})
    marks.write({}, {SHARD: {}})

    assert marks.read_shard(SHARD) == Mark(FAR, {})

"""Checkpoint marks: how far each shard's inbound stream is in the document folders.

Not here: positions that are still in the WAL; these are newer and win.

    <root>/.amsync/shards/017/mark
"""

import json
from collections.abc import Mapping

from amsync.storage.batch import Position
from amsync.storage.files import list_names, storage_errors
from amsync.storage.volume import Volume


class ShardMarks:
    """The marks of one volume; one writer at a time."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._shards = volume.control / "shards"

    def read(self) -> dict[int, Position]:
        """Read all marks; a damaged one is reported and counts as none (replay is harmless).

        Raises:
            StorageError
        """
        files = self._volume.files
        positions: dict[int, Position] = {}
        with storage_errors("list", self._shards):
            for entry in list_names(files, self._shards):
                path = self._shards / entry.name / "mark"
                try:
                    fields = json.loads(files.read(path))
                    sequences = {str(name): int(n) for name, n in fields["sequences"].items()}
                    positions[int(entry.name)] = Position(
                        str(fields["cluster_epoch"]), str(fields["entry"]), sequences
                    )
                except FileNotFoundError:
                    continue
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    self._volume.findings.add("bad_mark", path, type(error).__name__)
        return positions

    def write(self, positions: Mapping[int, Position]) -> None:
        """Write the marks of the shards given, durably.

        Raises:
            StorageError, StorageFull
        """
        for shard, position in positions.items():
            text = json.dumps(
                {
                    "cluster_epoch": position.cluster_epoch,
                    "entry": position.entry,
                    "sequences": dict(position.sequences),
                }
            )
            self._volume.durable.write(self._shards / f"{shard:03d}" / "mark", text.encode())

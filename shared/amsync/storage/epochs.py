"""Epoch files: the last word on how often each shard has changed hands.

Not here: leases. The holder of a shard's lease, and nobody else, makes the file of its epoch,
before it reads anything of the shard; since the file is made exclusively and stays, epochs grow
also when the bus has forgotten everything.

    <root>/.amsync/shards/017/<epoch>    decimal; the highest one counts

The last `KEPT` files stay, so that a machine that goes on seeing an old listing runs into them.
"""

import contextlib
from pathlib import Path

from amsync.errors import StaleEpoch
from amsync.storage.files import list_names, storage_errors
from amsync.storage.volume import Volume

KEPT = 16


class ShardEpochs:
    """The epoch files of one volume. Thread-safe for different shards."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume

    def highest(self, shard: int) -> int:
        """Find the highest epoch under which a shard was opened; 0 if it never was.

        Raises:
            StorageError
        """
        return max(self._epochs(shard), default=0)

    def claim(self, shard: int, epoch: int) -> None:
        """Open a shard under an epoch, durably.

        Raises:
            StaleEpoch: This epoch or a higher one has opened it already.
            StorageError, StorageFull: It may be claimed or not; claim a higher one.
        """
        known = self._epochs(shard)
        path = self._directory(shard) / str(epoch)
        if any(other >= epoch for other in known):
            raise StaleEpoch(f"shard {shard} was opened under epoch {max(known)}, not {epoch}")
        self._volume.durable.ensure_directory(path.parent)
        with storage_errors("make", path):
            try:
                self._volume.files.create(path).close()
            except FileExistsError:
                # Not in the listing yet: another machine has made it a moment ago.
                raise StaleEpoch(f"epoch {epoch} of shard {shard} belongs to another") from None
            self._volume.files.fsync_directory(path.parent)
        # Making a name has renewed this machine's listing, which may have been an old one.
        if max(self._epochs(shard), default=0) > epoch:
            raise StaleEpoch(f"epoch {epoch} of shard {shard} was passed by another")
        for other in [other for other in known if other <= epoch - KEPT]:
            with contextlib.suppress(OSError):
                self._volume.files.unlink(path.parent / str(other))

    def _directory(self, shard: int) -> Path:
        return self._volume.control / "shards" / f"{shard:03d}"

    def _epochs(self, shard: int) -> list[int]:
        directory = self._directory(shard)
        with storage_errors("list", directory):
            names = [entry.name for entry in list_names(self._volume.files, directory)]
        return [int(name) for name in names if name.isdecimal() and name.isascii()]

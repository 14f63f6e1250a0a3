"""A data directory made by hand for a check, and what the check finds in it."""

import json
from pathlib import Path

from amsync.ids import DocumentId
from amsync.storage import WalBatch
from amsync.storage.check import Check, Problem
from amsync.storage.durable import DurableFiles
from amsync.storage.files import RealFileSystem
from amsync.storage.wal import WalWriter
from support.fakecodec import FakeCodec, make_chunk

CLUSTER = {
    "layout_version": 1,
    "cluster_id": "0" * 32,
    "storage_id": "the-storage-id",
    "storage_id_advertised": True,
    "shard_count": 64,
}


class Directory:
    """A data directory on the real file system, with a control folder.

    Attributes:
        root: Where it is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.put(".amsync/cluster.json", json.dumps(CLUSTER).encode())
        self.put("st/orage-adapter-id", b"the-storage-id")

    def put(self, name: str, content: bytes = b"") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def store(
        self,
        document_id: DocumentId,
        *bodies: bytes,
        name: str = "some",
        kind: str = "incremental",
        cut: int = 0,
    ) -> Path:
        """A file in a document's folder; without its last `cut` bytes."""
        blob = b"".join(make_chunk(body) for body in bodies)
        return self.put(f"{folder(document_id)}/{kind}/{name}", blob[: len(blob) - cut])

    def log(self, *batches: WalBatch) -> Path:
        """A log segment, each batch as a record of its own."""
        directory = self.root / ".amsync" / "wal" / "000001-owner"
        files = RealFileSystem()
        durable = DurableFiles(files, self.root, self.root / ".amsync" / "tmp", "owner")
        writer = WalWriter(files, durable, directory)
        for batch in batches:
            path = writer.append([batch])
        writer.rotate()
        return path

    def check(self, **limits: int) -> tuple[Check, list[Problem]]:
        check = Check(self.root, FakeCodec(), **limits)  # type: ignore[arg-type]
        return check, list(check.run())

    def problems(self, **limits: int) -> list[tuple[str, str]]:
        """(kind, path) of all that is found."""
        return [(each.kind, each.path) for each in self.check(**limits)[1]]


def folder(document_id: DocumentId) -> str:
    return f"{document_id[:2]}/{document_id[2:]}"

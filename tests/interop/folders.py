"""Document folders as other servers, file managers and accidents leave them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import amsync
from amsync._automerge import Replica
from simulation.oracle import hashes_of


@dataclass
class Folder:
    """One document's folder as it is found.

    Attributes:
        files: Content by path in the folder.
        served: What clients must get of it.
        bad: Paths of files that belong into quarantine.
        kept: Paths of files that are none of ours, and stay as they are.
    """

    files: dict[str, bytes]
    served: Replica
    bad: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    document_id: str = field(default_factory=amsync.generate_document_id)

    def write(self, data_dir: Path) -> None:
        for name, content in self.files.items():
            path = self.path(data_dir) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def path(self, data_dir: Path) -> Path:
        return data_dir / self.document_id[:2] / self.document_id[2:]


class Written:
    """A document of six changes that depend on one another."""

    def __init__(self) -> None:
        replica = Replica()
        for number in range(6):
            replica.put(f"key-{number}", 1000 + number)
        self.changes = replica.changes()

    def upto(self, count: int) -> Replica:
        return Replica.load(b"".join(self.changes[:count]))

    def saved(self, count: int = 6) -> bytes:
        return self.upto(count).save()


def folders_of_others() -> dict[str, Folder]:
    w = Written()
    c = w.changes
    other = Replica.load(w.saved(3))
    other.put("branch", 1)
    merged = w.upto(6)
    merged.merge(other)
    return {
        "samod's names": Folder(
            {
                f"snapshot/{_sha256(b''.join(w.upto(3).heads()))}": w.saved(3),
                **{f"incremental/{_hash(change)}": change for change in c[3:]},
            },
            w.upto(6),
        ),
        "several changes in one file": Folder(
            {"snapshot/a": w.saved(3), "incremental/b": b"".join(c[3:])}, w.upto(6)
        ),
        "changes behind a snapshot": Folder(
            {"snapshot/a": w.saved(3) + b"".join(c[3:])}, w.upto(6)
        ),
        "two snapshots in one file": Folder({"snapshot/a": w.saved() + other.save()}, merged),
        "two snapshots in two files": Folder(
            {"snapshot/a": w.saved(), "snapshot/b": other.save()}, merged
        ),
        "changes in the wrong order": Folder(
            {f"incremental/{number}": change for number, change in enumerate(reversed(c))},
            w.upto(6),
        ),
        "everything twice": Folder(
            {
                "snapshot/a": w.saved(),
                "snapshot/b": w.saved(3) * 2,
                "incremental/c": c[1] + c[1] + c[0],
                "incremental/d": b"".join(c),
            },
            w.upto(6),
        ),
        "empty snapshot": Folder({"snapshot/a": b"", "incremental/b": b"".join(c)}, w.upto(6)),
        "empty increment": Folder({"snapshot/a": w.saved(), "incremental/b": b""}, w.upto(6)),
        "torn snapshot": Folder(
            {"snapshot/a": w.saved()[:-20], "snapshot/b": w.saved(4), "incremental/c": c[4]},
            w.upto(5),
            bad=("snapshot/a",),
        ),
        "torn last increment": Folder(
            {"snapshot/a": w.saved(4), "incremental/b": c[4], "incremental/c": c[5][:-5]},
            w.upto(5),
            bad=("incremental/c",),
        ),
        "torn increment that others need": Folder(
            {"snapshot/a": w.saved(3), "incremental/b": c[3][:-5], "incremental/c": c[4] + c[5]},
            w.upto(3),
            bad=("incremental/b",),
        ),
        "increment torn in its second change": Folder(
            {"snapshot/a": w.saved(3), "incremental/b": c[3] + c[4][:-5]},
            w.upto(4),
            bad=("incremental/b",),
        ),
        "zeros and garbage": Folder(
            {"snapshot/a": w.saved(), "incremental/b": bytes(64) + b"garbage"},
            w.upto(6),
            bad=("incremental/b",),
        ),
        "zeros between changes that are elsewhere too": Folder(
            {
                "snapshot/a": w.saved(3),
                "incremental/b": c[3] + bytes(20) + c[4],
                "incremental/c": c[4] + c[5],
            },
            w.upto(6),
            bad=("incremental/b",),
        ),
        "zeros behind a change": Folder(
            {"snapshot/a": w.saved(5), "incremental/b": c[5] + bytes(20)},
            w.upto(6),
            bad=("incremental/b",),
        ),
        "litter of file managers": Folder(
            {
                "snapshot/a": w.saved(),
                "snapshot/Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(500),
                "incremental/.DS_Store": b"\0\0\0\1Bud1" + bytes(500),
                ".DS_Store": b"\0\0\0\1Bud1",
                "Thumbs.db": b"\xd0\xcf\x11\xe0",
                "backup/snapshot/a": w.saved(2),
                "backup/notes.txt": b"hello",
            },
            w.upto(6),
            bad=("snapshot/Thumbs.db", "incremental/.DS_Store"),
            kept=(".DS_Store", "Thumbs.db", "backup/snapshot/a", "backup/notes.txt"),
        ),
        "file that NFS keeps for a reader": Folder(
            {"snapshot/a": w.saved(5), "incremental/.nfs000000000012d68700000001": c[5]},
            w.upto(6),
        ),
        "sync states": Folder(
            {
                "snapshot/a": w.saved(),
                "sync-state/3f0a2d5e-6f3e-4a3b-8c59-2f6d2c1a0b9c": b"\x43\x00",
                "sync-state/torn": b"",
            },
            w.upto(6),
            kept=("sync-state/3f0a2d5e-6f3e-4a3b-8c59-2f6d2c1a0b9c", "sync-state/torn"),
        ),
        "odd names": Folder(
            {"snapshot/ä b\nc": w.saved(3), f"incremental/{'x' * 200}": b"".join(c[3:])},
            w.upto(6),
        ),
    }


def _hash(change: bytes) -> str:
    return next(iter(hashes_of(change))).hex()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

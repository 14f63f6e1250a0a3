"""What a data directory holds, read from its bytes alone: no server, no store, no load.

Only for a directory that nobody writes to at the moment, as after a kill.
"""

from collections import defaultdict
from pathlib import Path

from amsync.storage.files import RealFileSystem
from amsync.storage.wal import read_segment
from simulation.oracle import hashes_of

CONTROL = ".amsync"
KINDS = ("snapshot", "incremental")
MAGIC = b"\x85\x6f\x4a\x83"


def readable_changes(content: bytes) -> set[bytes]:
    """Hashes of all changes from the start of a file up to where it is no automerge any more."""
    found: set[bytes] = set()
    while content.startswith(MAGIC) and len(content) > 10:
        length, at = 0, 9
        for shift in range(0, 63, 7):
            byte, at = content[at], at + 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        if at + length > len(content):
            break
        found |= hashes_of(content[: at + length])
        content = content[at + length :]
    return found


class RawVolume:
    """One data directory; what was read once is remembered, as files keep their content."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[tuple[Path, int], set[bytes]] = {}
        self._segments: dict[tuple[Path, int], dict[str, set[bytes]]] = {}

    def changes(self) -> dict[str, set[bytes]]:
        """Hashes of all changes of each document, in its folder or in any WAL segment."""
        found: dict[str, set[bytes]] = defaultdict(set)
        for path in self.document_files():
            first, rest = path.relative_to(self._root).parts[:2]
            found[first + rest] |= self._in_file(path)
        for path in self.segments():
            for document_id, hashes in self._in_segment(path).items():
                found[document_id] |= hashes
        return found

    def document_files(self) -> list[Path]:
        """Every file in a folder of chunks."""
        found = [path for kind in KINDS for path in self._root.glob(f"??/*/{kind}/*")]
        return sorted(path for path in found if path.is_file())

    def segments(self) -> list[Path]:
        return sorted((self._root / CONTROL / "wal").glob("*/*.wal"))

    def quarantine(self) -> dict[str, bytes]:
        """Name and content of every file in quarantine, without the notes beside them."""
        files = (self._root / CONTROL / "quarantine").glob("*")
        return {path.name: path.read_bytes() for path in files if path.suffix != ".json"}

    def tombstones(self) -> set[str]:
        return {path.name for path in (self._root / CONTROL / "tombstones").glob("*")}

    def tree(self, *, control: bool = False) -> dict[str, bytes]:
        """Every file with its content, by relative path; `.amsync` only if asked for."""
        return {
            str(name): path.read_bytes()
            for path in self._root.rglob("*")
            if path.is_file()
            for name in [path.relative_to(self._root)]
            if control or name.parts[0] != CONTROL
        }

    def _in_file(self, path: Path) -> set[bytes]:
        key = (path, path.stat().st_size)
        if key not in self._folders:
            self._folders[key] = readable_changes(path.read_bytes())
        return self._folders[key]

    def _in_segment(self, path: Path) -> dict[str, set[bytes]]:
        key = (path, path.stat().st_size)
        if key not in self._segments:
            found: dict[str, set[bytes]] = defaultdict(set)
            for batch in read_segment(RealFileSystem(), path).batches:
                for item in batch.changes:
                    for chunk in item.chunks:
                        found[item.document_id] |= hashes_of(chunk)
            self._segments[key] = found
        return self._segments[key]

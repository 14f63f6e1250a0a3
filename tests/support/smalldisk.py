"""A real file system of a few megabytes, which a test can fill and free, for one server.

A tmpfs in a mount namespace of its own, so that it needs no rights and goes with its process.
"""

import contextlib
import errno
import os
import queue
from pathlib import Path

from .closing import Closing
from .program import Program

START_SECONDS = 20.0
_MOUNT = 'mount -t tmpfs -o size="$2",mode=700 amsync-test "$1" && echo ready && exec cat'


class SmallDisk(Closing):
    """See the module. Programs see it at `mount_point` if they are started with `prefix`.

    Attributes:
        prefix: What comes before a command so that it runs with this disk.
        root: Where the test itself finds what is at `mount_point`.
    """

    def __init__(self, mount_point: Path, log: Path, size_bytes: int) -> None:
        mount_point.mkdir(exist_ok=True)
        lines: queue.Queue[str] = queue.Queue()
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
        with log.open("ab") as stderr:
            self._holder = Program(
                [*namespace, "sh", "-c", _MOUNT, "mount", str(mount_point), str(size_bytes)],
                lines.put,
                stderr=stderr,
                has_input=True,
            )
        said = lines.get(timeout=START_SECONDS)
        assert said == "ready\n", f"no tmpfs in a user namespace: {log.read_text()[-1000:]}"
        pid = self._holder.process.pid
        self.prefix = (
            *("nsenter", "--preserve-credentials", "--user", "--mount"),
            *("--target", str(pid), "--"),
        )
        self.root = Path(f"/proc/{pid}/root") / mount_point.relative_to("/")
        self._ballast = self.root / "ballast"

    def fill(self) -> None:
        """Leave no room, to the last page."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (65_536, 4_096, 1):
                with contextlib.suppress(_Full):
                    while True:
                        _write(file.fileno(), size)

    def free(self) -> None:
        """Give all room back."""
        self._ballast.unlink()

    def close(self) -> None:
        self._holder.kill9()


class _Full(Exception):
    pass


def _write(descriptor: int, size: int) -> None:
    try:
        written = os.write(descriptor, bytes(size))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        written = 0
    if written < size:
        raise _Full

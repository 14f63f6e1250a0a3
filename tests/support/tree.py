"""All that can be seen of a directory from outside, to show that nothing was changed in it."""

import os
from pathlib import Path


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Path -> (mode, size, time of change of content and of inode, target or content)."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = Path(parent) / name
            state = path.lstat()
            content: object = None
            if path.is_symlink():
                content = path.readlink()
            elif path.is_file() and state.st_size < 1_000_000:
                content = path.read_bytes()
            key = str(path.relative_to(root))
            times = (state.st_mtime_ns, state.st_ctime_ns)
            found[key] = (state.st_mode, state.st_size, *times, content)
    return found

"""`amsync` whose server checkpoints every 10 s: the kill loops would wait a minute each time."""

from dataclasses import replace
from typing import Any

from amsync import node
from amsync.cli import main

Worker: Any = node.Worker


def hasty(bus: Any, store: Any, metrics: Any, options: Any, **settings: Any) -> Any:
    return Worker(bus, store, metrics, replace(options, checkpoint_seconds=10.0), **settings)


if __name__ == "__main__":
    module: Any = node
    module.Worker = hasty
    main()

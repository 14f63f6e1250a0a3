"""The streams of a cluster as somebody sees them who meddles with Redis."""

import time
from pathlib import Path
from typing import Any

import redis

from amsync.bus import gateway_stream, shard_stream
from amsync.bus.memory import STREAM_BYTES
from amsync.bus.redis.keys import members_key, size_key
from amsync.bus.redis.scripts import APPEND
from amsync.protocol.envelope import unpack_outbound
from support.closing import Closing

from .processes import ClusterProcesses, Process

PREFIX = "amsync"
WAIT_SECONDS = 60.0


class RedisView(Closing):
    """A connection over Redis's own socket, past every proxy."""

    def __init__(self, socket: Path) -> None:
        self.redis: Any = redis.Redis(unix_socket_path=str(socket))

    def ids(self, stream: str) -> set[bytes]:
        """Ids of the entries that are in a stream."""
        return {entry_id for entry_id, _ in self.redis.xrange(stream)}

    def lose(self, stream: str, but: set[bytes]) -> int:
        """Remove all entries of a stream but these; how many they were."""
        lost = self.ids(stream) - but
        return int(self.redis.xdel(stream, *lost)) if lost else 0

    def add(self, stream: str, data: bytes) -> None:
        """Append an entry as the bus does."""
        self.redis.eval(
            APPEND.text, 2, stream, size_key(stream), data, STREAM_BYTES, 0, f"{stream}@0"
        )

    def wait_items(self, stream: str, kind: type[Any]) -> list[Any]:
        """Read a gateway's stream until something of a kind is in it; all of that kind."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            entries = [unpack_outbound(fields[b"d"]) for _, fields in self.redis.xrange(stream)]
            items = [stamped.item for entry in entries for stamped in entry.items]
            if found := [item for item in items if isinstance(item, kind)]:
                return found
            assert time.monotonic() < deadline, f"no {kind.__name__} among {items}"
            time.sleep(0.05)

    def beat(self, kind: str, incarnation: str, info: bytes) -> None:
        """Say that a process lives, as the processes do, whatever its kind."""
        seconds, micros = self.redis.time()
        text = b"%d %s" % (seconds * 1000 + micros // 1000, info)
        self.redis.hset(members_key(PREFIX), f"{kind}:{incarnation}", text)

    def is_in_sync(self) -> bool:
        """Of a replica: it has what its master had a moment ago."""
        found = self.redis.info("replication")
        return bool(found.get("master_link_status") == "up")

    def close(self) -> None:
        self.redis.close()


def stream_of(cluster: ClusterProcesses, gateway: Process) -> str:
    """The stream from which a gateway reads."""
    found = cluster.status()["gateways"]
    incarnation = next(g["gateway_id"] for g in found if g["address"] == gateway.url)
    return gateway_stream(PREFIX, incarnation)


def inbound(shard: int) -> str:
    """The stream from which the owner of a shard reads."""
    return shard_stream(PREFIX, shard)

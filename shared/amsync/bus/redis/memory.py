"""What Redis says about its memory, which an operator has to see: entries may not be evicted."""

from dataclasses import dataclass

from amsync.bus.redis.client import RedisClient


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """As INFO tells it.

    Attributes:
        max_bytes: Its `maxmemory`; 0 for none.
        keeps_entries: Its `maxmemory-policy` is noeviction.
    """

    used_bytes: int
    max_bytes: int
    keeps_entries: bool


async def read_memory(client: RedisClient) -> ServerMemory | None:
    """Ask; None if the answer lacks some of it. Raises BusError, also where INFO is not allowed."""
    text = (await client.call("INFO", "memory")).decode(errors="replace")
    found = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    try:
        return ServerMemory(
            int(found["used_memory"]),
            int(found["maxmemory"]),
            found["maxmemory_policy"] == "noeviction",
        )
    except (KeyError, ValueError):
        return None

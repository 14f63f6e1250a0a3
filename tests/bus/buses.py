"""Redis buses and clients that are opened and closed for a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from amsync.bus import Reader
from amsync.bus.redis import RedisBus, RedisClient

EVERYTHING = 1 << 30
SECONDS = 60.0

T = TypeVar("T")


@asynccontextmanager
async def opened(url: str, prefix: str, **options: Any) -> AsyncIterator[RedisBus]:
    async with asyncio.timeout(SECONDS):
        bus = RedisBus(url, prefix=prefix, **options)
        await bus.open()
        try:
            yield bus
        finally:
            await bus.close()


async def read(reader: Reader, count: int) -> list[bytes]:
    """Read until there are so many entries."""
    found: list[bytes] = []
    while len(found) < count:
        for entry in await reader.read(EVERYTHING):
            assert isinstance(entry.data, bytes)
            found.append(entry.data)
    return found


def run_with_two(
    url: str,
    prefix: str,
    make: Callable[[RedisClient, str], T],
    scenario: Callable[[T, T, RedisClient, str], Awaitable[None]],
) -> None:
    """Run a scenario with two clients' views of the same thing."""

    async def main() -> None:
        clients = [RedisClient(url) for _ in range(2)]
        async with asyncio.timeout(SECONDS):
            for client in clients:
                client.start()
                await client.wait_connected()
            first, second = (make(client, prefix) for client in clients)
            await scenario(first, second, clients[0], prefix)
            for client in clients:
                await client.close()

    asyncio.run(main())

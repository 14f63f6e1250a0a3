from collections.abc import Iterator

import pytest

from support.redisserver import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests that do it no harm: each uses a prefix or database of its own."""
    with RedisServer("--databases", "64") as server:
        yield server

"""An authenticator for the length of a test, and what became of a token."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from amsync.auth import AuthConfig, Authenticator, AuthRefused, Identity


class Clock:
    """One that a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Trial:
    """What a test's coroutine gets.

    Attributes:
        monotonic: The authenticator's; its other clock is the real one, as tokens are.
        counts: What it has counted, by (event, label).
    """

    def __init__(self, config: AuthConfig, **options: Any) -> None:
        self.monotonic = Clock(1000.0)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.authenticator = Authenticator(
            config,
            monotonic=self.monotonic,
            count=lambda event, label: self.counts.update([(event, label)]),
            **options,
        )

    async def verify(self, token: str) -> Identity:
        return await self.authenticator.verify(token)

    async def refused(self, token: Any) -> tuple[int, str]:
        """Status and reason with which a token is refused."""
        with pytest.raises(AuthRefused) as caught:
            await self.authenticator.verify(token)
        return caught.value.status, caught.value.reason

    def refused_now(self, token: Any) -> tuple[int, str]:
        with pytest.raises(AuthRefused) as caught:
            self.authenticator.verify_now(token)
        return caught.value.status, caught.value.reason

    async def until(self, event: str, label: str, count: int = 1) -> None:
        """Return when something was counted so often."""
        async with asyncio.timeout(10):
            while self.counts[event, label] < count:
                await asyncio.sleep(0.005)


def trying(
    config: AuthConfig, scenario: Callable[[Trial], Coroutine[Any, Any, Any]], **options: Any
) -> Any:
    """Run a coroutine with a started authenticator."""

    async def main() -> Any:
        trial = Trial(config, **options)
        await trial.authenticator.start()
        try:
            return await scenario(trial)
        finally:
            await trial.authenticator.close()

    return asyncio.run(main(), debug=True)

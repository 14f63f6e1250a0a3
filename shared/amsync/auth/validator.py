"""The operator's own yes or no to somebody whose token is good.

Whatever goes wrong refuses: an exception, a time-out, an answer that is not exactly True.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from amsync.errors import AuthRefused
from amsync.seldom import Seldom
from amsync.threads import OutsideCall

log = logging.getLogger("amsync.auth")

TIMEOUT_SECONDS = 10.0
MAX_AT_ONCE = 16


class CustomValidator:
    """Asks a callable (claims), a few at a time; for the loop's thread."""

    def __init__(
        self,
        ask: Callable[[Mapping[str, Any]], Any],
        clock: Callable[[], float],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._ask, self._timeout = OutsideCall(ask, MAX_AT_ONCE, "amsync-auth"), timeout_seconds
        self._may_warn = Seldom(60.0, clock)

    async def check(self, claims: Mapping[str, Any]) -> None:
        """Refuse unless the answer is True. Raises AuthRefused."""
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._ask(claims)
        except TimeoutError:
            raise self._failed(f"no answer within {self._timeout:g} s") from None
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task and task.cancelling():
                raise  # it is we who are cancelled, not something that the callable awaits
            raise self._failed(f"{type(error).__name__}: {error}"[:200]) from None
        if answer is not True:
            raise AuthRefused(403, "validator_refused")

    def close(self) -> None:
        """Let go of the threads; one whose callable hangs ends with the process."""
        self._ask.close()

    def _failed(self, what: str) -> AuthRefused:
        if self._may_warn():
            log.warning("custom_validator failed; the client is refused", extra={"error": what})
        return AuthRefused(403, "validator_failed")

"""The operator's callables: `share`, and `check` of an `AccessConfig`.

Plain ones are called in threads, a few at a time, so that one which waits holds up nobody.
"""

from collections.abc import Callable
from typing import Any

from amsync.errors import ConfigError
from amsync.gateway.access.config import Decision, takes_third
from amsync.gateway.access.source import SourceFailed
from amsync.gateway.caller import Caller
from amsync.ids import DocumentId
from amsync.protocol.access import Access, Share
from amsync.threads import OutsideCall

SHARE_TIMEOUT_SECONDS = 10.0
MAX_AT_ONCE = 16

ShareCallable = Callable[..., Any]
"""(client_id, document_id) or (client_id, document_id, identity) -> Share, plain or async."""

_CONSTANTS = {None: Share.ALLOW, True: Share.ANNOUNCE, False: Share.DENY}
_DECISIONS = {
    Share.ALLOW: Decision(Access.WRITE),
    Share.ANNOUNCE: Decision(Access.WRITE, announce=True),
    Share.DENY: Decision(Access.NONE),
}


def parse_share(share: Share | bool | ShareCallable | None) -> Share | ShareCallable:
    """Check what was given as `share`.

    Raises:
        ConfigError: It is neither a Share, None, True, False nor a callable.
    """
    if isinstance(share, Share):
        return share
    if share is None or isinstance(share, bool):
        return _CONSTANTS[share]
    if callable(share):
        takes_third(share, "share", "(client_id, document_id[, identity])")
        return share
    raise ConfigError(
        f"share={share!r} is not allowed; give Share.ALLOW, Share.ANNOUNCE, Share.DENY"
        " or a callable (client_id, document_id)"
    )


class _Callable:
    """Asks one callable; a `Source` but for what is asked."""

    name: str

    def __init__(self, function: Callable[..., Any], timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self._takes_third = takes_third(function, "callable", "two or three arguments")
        self._call = OutsideCall(function, MAX_AT_ONCE, f"amsync-{self.name}")

    async def _answer(self, *arguments: Any) -> Any:
        if not self._takes_third:
            arguments = arguments[:2]
        return await self._call(*arguments)

    async def close(self) -> None:
        """Let go of the threads; one whose callable hangs ends with the process."""
        self._call.close()


class ShareSource(_Callable):
    """`share`, a callable."""

    name = "share"

    async def ask(self, caller: Caller, document_id: DocumentId) -> Decision:
        """Ask it; it answers a Share, True, None or False."""
        answer = await self._answer(caller.peer_id, document_id, caller.identity)
        if answer is None or isinstance(answer, bool):
            answer = _CONSTANTS[answer]
        if isinstance(answer, Share):
            return _DECISIONS[answer]
        raise SourceFailed("bad_answer", f"it answered a {type(answer).__name__}")


class CheckSource(_Callable):
    """`check` of an `AccessConfig`."""

    name = "access_check"

    async def ask(self, caller: Caller, document_id: DocumentId) -> Decision:
        """Ask it; see `AccessConfig.check` for what it answers."""
        answer = await self._answer(caller.identity, document_id, caller.peer_id)
        if isinstance(answer, Decision):
            return answer
        if answer is None or isinstance(answer, bool):
            answer = _CONSTANTS[answer]
        if isinstance(answer, Share):
            return _DECISIONS[answer]
        try:
            return Decision(answer)
        except ConfigError:
            shown = f"a {type(answer).__name__}"
            raise SourceFailed("bad_answer", f"it answered {shown}") from None

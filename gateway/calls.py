"""What is asked of shards on behalf of the application or an operator, and not answered yet.

The bus may lose a question or its answer, or its shard may change hands while it is under way:
then it is asked again, with the hand-over of its shard. So an owner may do it twice; of the
answers the first counts.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from amsync import errors
from amsync.errors import AmsyncError, NoAnswer
from amsync.ids import DocumentId
from amsync.protocol.envelope import Call, Query, Reply

CALL_SECONDS = 30.0
"""Of an operator's call, for which somebody waits."""


@dataclass(slots=True)
class _Pending:
    shard: int
    item: Call | Query
    answer: asyncio.Future[Reply]


class Calls:
    """See the module's text.

    Args:
        forward: Sends an item of a size to a shard.
    """

    def __init__(self, forward: Callable[[int, Call | Query, int], None]) -> None:
        self._forward = forward
        self._pending: dict[int, _Pending] = {}
        self._next = 1

    async def of_document(
        self,
        shard: int,
        operation: str,
        document_id: DocumentId,
        payload: bytes = b"",
        seconds: float | None = CALL_SECONDS,
    ) -> Reply:
        """Ask for something of a document; the operations are in `worker.calls`.

        Raises:
            NoAnswer: None came within `seconds`.
            AmsyncError: What the owner says against it.
        """
        return await self._ask(shard, Call(self._next, operation, document_id, payload), seconds)

    async def of_owner(
        self, shard: int, operation: str, payload: bytes, seconds: float = CALL_SECONDS
    ) -> Reply:
        """Ask a shard's owner; the operations are in `worker.queries`. Raises as `of_document`."""
        return await self._ask(shard, Query(self._next, operation, payload), seconds)

    async def _ask(self, shard: int, item: Call | Query, seconds: float | None) -> Reply:
        self._next += 1
        pending = _Pending(shard, item, asyncio.get_running_loop().create_future())
        self._pending[item.call] = pending
        try:
            self._forward(shard, item, len(item.payload))
            async with asyncio.timeout(seconds):
                reply = await pending.answer
        except TimeoutError:
            raise NoAnswer(
                f"the owner of shard {shard} has not answered within {seconds:.0f} s; what was"
                " asked may be done, or be done later"
            ) from None
        finally:
            del self._pending[item.call]
        if reply.error is not None:
            kind = getattr(errors, reply.error, AmsyncError)
            raise kind(reply.message)
        return reply

    def answered(self, reply: Reply) -> None:
        """An answer has come."""
        pending = self._pending.get(reply.call)
        if pending is not None and not pending.answer.done():
            pending.answer.set_result(reply)

    def of_shard(self, shard: int) -> list[Call | Query]:
        """What is to be asked again when the shard is handed over."""
        return [each.item for each in self._pending.values() if each.shard == shard]

    def give_up(self) -> None:
        """Nothing will be answered any more."""
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(NoAnswer("the gateway ends"))

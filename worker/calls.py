"""What the application asks of a document: create, apply, get, delete; and how it is answered."""

from collections.abc import Callable, Sequence
from functools import partial

import msgpack

from amsync.errors import DocumentDeleted, DocumentExists, DocumentNotFound, InvalidDocument
from amsync.ids import DocumentId
from amsync.protocol.envelope import Call, Reply
from amsync.worker.peers import Waiting
from amsync.worker.ports import Effects, EngineDocument, EngineFactory, EngineRefused


def refusal(
    call: Call, document_id: DocumentId, heads: Sequence[bytes], *, deleted: bool
) -> Exception | None:
    """Why a call can't be done on a document in this state, or None."""
    if deleted and call.operation in ("create", "apply"):
        return DocumentDeleted(f"document {document_id} was deleted and stays deleted")
    if call.operation == "create" and heads:
        return DocumentExists(f"document {document_id} exists already")
    if call.operation in ("apply", "delete") and not heads:
        return DocumentNotFound(f"document {document_id} is not stored here")
    return None


def work(call: Call, engine: EngineDocument, factory: EngineFactory) -> Callable[[], object]:
    """The engine's part of a call; a `get` returns bytes, the others an outcome."""
    if call.operation == "get":
        return engine.save
    empty = call.operation == "create" and not call.payload
    return partial(engine.apply, factory.initial_change() if empty else call.payload)


def failure(result: object, document_id: DocumentId) -> Exception | None:
    """What the caller is told if the engine's part raised."""
    if isinstance(result, EngineRefused):
        return InvalidDocument(f"document {document_id} can't take these bytes: {result}")
    if isinstance(result, BaseException):
        return InvalidDocument(f"document {document_id} broke the engine on these bytes")
    return None


def content(heads: Sequence[bytes], saved: bytes) -> bytes:
    """The payload that answers a `get`."""
    packed: bytes = msgpack.packb([list(heads), saved])
    return packed


def reply(
    waiting: Waiting, call: Call, error: BaseException | None, payload: bytes, effects: Effects
) -> None:
    """Answer the gateway that the call came through, after the commit of this step."""
    name = None if error is None else type(error).__name__
    if call.operation != "delete":
        effects.replied[call.document_id].add((waiting.address[0], call.call))
    effects.send(waiting.address[0], Reply(call.call, name, str(error or ""), payload))

"""What is asked of one document, and how it is answered.

Operations, with what their payloads hold and what answers them; maps are msgpack:

    create   a saved document, or nothing for an empty one    {heads}
    build    JSON of the new document's value                 {heads}
    apply    changes, or a saved document                     nothing
    take     the same; also for a document that isn't there   {is_new, new_changes, heads}
    get      nothing                                          [heads, saved]; nothing if absent
    info     nothing                                          see `described`
    value    nothing                                          {heads, value}, which is JSON
    delete   nothing                                          nothing
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import msgpack

from amsync.errors import (
    DocumentDeleted,
    DocumentExists,
    DocumentNotFound,
    InvalidDocument,
    UnreadableDocument,
)
from amsync.ids import DocumentId
from amsync.jsonvalue import to_json
from amsync.protocol.access import Access
from amsync.protocol.envelope import Call, Reply
from amsync.worker.peers import Peer, Waiting
from amsync.worker.ports import (
    Effects,
    EngineDocument,
    EngineFactory,
    EngineOutcome,
    EngineRefused,
)

MAKE = ("create", "build")
WRITE = (*MAKE, "apply", "take")
READ = ("get", "info", "value")

MAX_SHOWN_PEERS = 1_000
MAX_VALUE_BYTES = 256 * 1024 * 1024
"""Of a value in memory, and as JSON; a few kilobytes on disk can hold gigabytes of it."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the engine's part of a call has come to.

    Attributes:
        outcome: Of calls that change the document.
        new_changes: So many more than before.
        content: Of calls that read it: it saved, or its value as JSON.
    """

    outcome: EngineOutcome | None = None
    new_changes: int = 0
    content: bytes = b""


def refusal(
    call: Call, document_id: DocumentId, heads: Sequence[bytes], *, deleted: bool
) -> Exception | None:
    """Why a call can't be done on a document in this state, or None."""
    operation = call.operation
    if operation not in (*WRITE, *READ, "delete"):
        return InvalidDocument(f"this worker knows no {operation!r} of documents")
    if deleted and operation != "get":
        return DocumentDeleted(f"document {document_id} was deleted and stays deleted")
    if operation in MAKE and heads:
        return DocumentExists(f"document {document_id} exists already")
    if operation == "take" and not call.payload:
        return InvalidDocument("nothing was given that could be taken in")
    if operation in ("apply", "delete", "info", "value") and not heads:
        return DocumentNotFound(f"document {document_id} is not stored here")
    return None


def work(call: Call, engine: EngineDocument, factory: EngineFactory) -> Callable[[], Done]:
    """The engine's part of a call, to be run in a thread."""
    if call.operation == "get":
        return lambda: Done(content=engine.save())
    if call.operation == "value":
        return partial(_value, engine)
    if call.operation == "build":
        return lambda: _apply(engine, factory.build(json.loads(call.payload)))
    empty = call.operation == "create" and not call.payload
    return partial(_apply, engine, factory.initial_change() if empty else call.payload)


def _value(engine: EngineDocument) -> Done:
    try:
        return Done(content=to_json(engine.value(MAX_VALUE_BYTES), MAX_VALUE_BYTES))
    except ValueError as error:
        raise EngineRefused(str(error)) from error


def _apply(engine: EngineDocument, data: bytes) -> Done:
    before = engine.change_count()
    outcome = engine.apply(data)
    after = engine.change_count()
    if not after:
        raise EngineRefused("it holds no change")
    return Done(outcome, new_changes=after - before)


def failure(call: Call, result: object) -> Exception | None:
    """What the caller is told if the engine's part raised."""
    if not isinstance(result, BaseException):
        return None
    document_id = call.document_id
    if call.operation in READ:
        why = f": {result}" if isinstance(result, EngineRefused) else ""
        return UnreadableDocument(f"document {document_id} can't be opened{why}")
    if isinstance(result, EngineRefused):
        return InvalidDocument(f"document {document_id} can't take this in: {result}")
    return InvalidDocument(f"document {document_id} broke the engine on these bytes")


def answer(call: Call, done: Done, heads: Sequence[bytes], *, was_there: bool) -> bytes:
    """The payload that answers a call that was done; `heads` are those after it."""
    if call.operation == "get":
        return _packed([list(heads), done.content])
    if call.operation == "value":
        return _packed({"heads": list(heads), "value": done.content})
    if call.operation == "apply":
        return b""
    said: dict[str, object] = {"heads": list(heads)}
    if call.operation == "take":
        said |= {"is_new": not was_there, "new_changes": done.new_changes}
    return _packed(said)


def described(
    engine: EngineDocument, peers: Iterable[Peer], heads: Sequence[bytes], *, was_open: bool
) -> bytes:
    """The payload that answers `info`; `was_open`: the call alone has not brought it to memory."""
    everybody = list(peers)
    return _packed(
        {
            "heads": list(heads),
            "changes": engine.change_count(),
            "stored_bytes": engine.stored_bytes(),
            "is_open": was_open,
            "memory_bytes": engine.size_bytes() if was_open else None,
            "peer_count": len(everybody),
            "peers": [
                {
                    "gateway": peer.address[0],
                    "connection": peer.address[1],
                    "peer_id": peer.peer_id,
                    "storage_id": peer.storage_id,
                    "access": Access(peer.access).name.lower(),
                    "syncs": peer.syncs,
                }
                for peer in everybody[:MAX_SHOWN_PEERS]
            ],
        }
    )


def _packed(said: object) -> bytes:
    packed: bytes = msgpack.packb(said, unicode_errors="replace")
    return packed


def reply(
    waiting: Waiting, call: Call, error: BaseException | None, payload: bytes, effects: Effects
) -> None:
    """Answer the gateway that the call came through, after the commit of this step."""
    name = None if error is None else type(error).__name__
    if call.operation != "delete":
        effects.replied[call.document_id].add((waiting.address[0], call.call))
    effects.send(waiting.address[0], Reply(call.call, name, str(error or ""), payload))

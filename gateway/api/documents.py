"""The calls about documents: which there are, what is in them, taking in, making, deleting."""

import asyncio
import json
from http import HTTPStatus
from typing import Any

import msgpack

from amsync.adminapi import (
    MAX_BODY_BYTES,
    Asked,
    Call,
    JsonText,
    Octets,
    Parameter,
    Problem,
    bad,
)
from amsync.adminapi.schema import ANYTHING, COUNT, FLAG, TEXT, array, maybe, options, record
from amsync.errors import DocumentExists, InvalidDocumentId
from amsync.gateway.api.pages import read_page
from amsync.gateway.api.place import AFTER_TEXT, DOCUMENT, LIMIT, Place, problems
from amsync.ids import DocumentId, document_url, generate_document_id, parse_document_id, shard_of
from amsync.jsonvalue import to_json
from amsync.protocol.envelope import Reply

MOST_TEXT_BYTES = 10 * MAX_BODY_BYTES
"""Of a value that was a body: no number or sign becomes longer than that."""

_HEADS = array(TEXT)
_NAMED = {"document_id": TEXT, "url": TEXT}
_PEER = record(
    gateway=TEXT,
    connection=COUNT,
    peer_id=TEXT,
    storage_id=maybe(TEXT),
    access={"enum": ["none", "read", "write"]},
    syncs=FLAG,
)
_PREFIX = Parameter(
    "prefix",
    "Only ids that begin with this text.",
    TEXT,
    lambda text: text.removeprefix("automerge:"),
    "",
)
_ABSENT = (404, 410)
_OF_SHARD = (504,)
_WRITING = (507,)


class DocumentsApi(Place):
    """The calls."""

    def calls(self) -> list[Call]:
        """What the admin port offers."""
        one = (DOCUMENT,)
        return [
            Call(
                "list_documents",
                "GET",
                "/documents",
                self._list,
                "Stored documents, sorted by id; deleted ones are not among them.",
                record(
                    documents=array(
                        record(**_NAMED, shard=COUNT, owner=TEXT, is_open=FLAG, peers=COUNT)
                    ),
                    next=maybe(TEXT),
                ),
                parameters=(_PREFIX, AFTER_TEXT, LIMIT),
                problems=_OF_SHARD,
            ),
            Call(
                "create_document",
                "POST",
                "/documents",
                self._create,
                "Make a document: with a value, empty, or as a copy of a saved one.",
                record(**_NAMED, heads=_HEADS),
                status=201,
                takes=options(document_id=maybe(TEXT), value={"type": "object"}),
                takes_bytes=True,
                is_large=True,
                problems=(409, 410, *_OF_SHARD, *_WRITING),
            ),
            Call(
                "get_document",
                "GET",
                "/documents/{document_id}",
                self._get,
                "Size, heads and peers of a document; it is not opened for that.",
                record(
                    **_NAMED,
                    shard=COUNT,
                    owner=TEXT,
                    is_open=FLAG,
                    heads=_HEADS,
                    changes=COUNT,
                    stored_bytes=COUNT,
                    memory_bytes=maybe(COUNT),
                    peer_count=COUNT,
                    peers=array(_PEER),
                ),
                parameters=one,
                problems=(*_ABSENT, *_OF_SHARD),
            ),
            Call(
                "delete_document",
                "DELETE",
                "/documents/{document_id}",
                self._delete,
                "Delete a document for good; its clients are told that it is unavailable.",
                status=204,
                parameters=one,
                problems=(*_ABSENT, *_OF_SHARD, *_WRITING),
            ),
            Call(
                "download_document",
                "GET",
                "/documents/{document_id}/automerge",
                self._download,
                "The whole document, as automerge saves it.",
                parameters=one,
                is_large=True,
                problems=(*_ABSENT, 422, *_OF_SHARD),
            ),
            Call(
                "import_document",
                "PUT",
                "/documents/{document_id}/automerge",
                self._import,
                "Merge a saved document, or changes, into a document, or store it.",
                record(document_id=TEXT, is_new=FLAG, new_changes=COUNT, heads=_HEADS),
                parameters=one,
                takes_bytes=True,
                is_large=True,
                problems=(410, *_OF_SHARD, *_WRITING),
            ),
            Call(
                "show_document",
                "GET",
                "/documents/{document_id}/value",
                self._value,
                "The document's value as JSON; bytes as base64, times in ISO 8601.",
                record(document_id=TEXT, heads=_HEADS, value=ANYTHING),
                parameters=one,
                is_large=True,
                problems=(*_ABSENT, 422, *_OF_SHARD),
            ),
        ]

    async def _ask(self, operation: str, document_id: DocumentId, payload: bytes = b"") -> Reply:
        with problems():
            return await self._gateway().call(operation, document_id, payload)

    async def _list(self, asked: Asked) -> object:
        values = asked.values
        with problems():
            rows, following = await read_page(
                self._gateway(), values["prefix"], values["after"], values["limit"]
            )
        return {
            "documents": [
                {
                    **_named(each.document_id),
                    "shard": each.shard,
                    "owner": each.owner,
                    "is_open": each.is_open,
                    "peers": each.peers,
                }
                for each in rows
            ],
            "next": following,
        }

    async def _create(self, asked: Asked) -> object:
        if isinstance(asked.body, bytes):
            if not asked.body:
                raise bad("an empty body is no saved document")
            return await self._make("create", None, asked.body)
        chosen = asked.body.get("document_id")
        if chosen is not None:
            try:
                chosen = parse_document_id(chosen if isinstance(chosen, str) else "")
            except InvalidDocumentId as error:
                raise bad(f"document_id: {error}") from None
        if "value" not in asked.body:
            return await self._make("create", chosen, b"")
        value = asked.body["value"]
        if not isinstance(value, dict):
            raise bad("value must be an object")
        text = await asyncio.to_thread(to_json, value, MOST_TEXT_BYTES)
        return await self._make("build", chosen, text)

    async def _make(self, operation: str, chosen: DocumentId | None, payload: bytes) -> object:
        document_id = chosen or generate_document_id()
        with problems():
            try:
                reply = await self._gateway().call(operation, document_id, payload)
            except DocumentExists:
                if chosen is not None:
                    raise
                # Nobody else knows the id: it was done twice, and the first answer is lost.
                reply = await self._gateway().call("info", document_id)
        return {**_named(document_id), "heads": _heads(_unpacked(reply))}

    async def _get(self, asked: Asked) -> object:
        document_id = asked.values["document_id"]
        said = _unpacked(await self._ask("info", document_id))
        shard = shard_of(document_id, self._gateway().shard_count)
        return {
            **_named(document_id),
            "shard": shard,
            "owner": self._gateway().owner(shard),
            **said,
            "heads": _heads(said),
        }

    async def _download(self, asked: Asked) -> object:
        document_id = asked.values["document_id"]
        reply = await self._ask("get", document_id)
        if not reply.payload:
            await self._ask("info", document_id)  # says why
            raise Problem(HTTPStatus.NOT_FOUND, f"document {document_id} is not stored here")
        _, saved = msgpack.unpackb(reply.payload, max_bin_len=len(reply.payload))
        return Octets(saved, f"{document_id}.automerge")

    async def _value(self, asked: Asked) -> object:
        document_id = asked.values["document_id"]
        said = _unpacked(await self._ask("value", document_id))
        head = json.dumps({"document_id": document_id, "heads": _heads(said)})
        return JsonText(b"".join((head[:-1].encode(), b', "value": ', said["value"], b"}")))

    async def _import(self, asked: Asked) -> object:
        document_id = asked.values["document_id"]
        assert isinstance(asked.body, bytes)
        said = _unpacked(await self._ask("take", document_id, asked.body))
        return {"document_id": document_id, **said, "heads": _heads(said)}

    async def _delete(self, asked: Asked) -> None:
        await self._ask("delete", asked.values["document_id"])


def _named(document_id: DocumentId) -> dict[str, str]:
    return {"document_id": document_id, "url": document_url(document_id)}


def _unpacked(reply: Reply) -> dict[str, Any]:
    said: dict[str, Any] = msgpack.unpackb(reply.payload, max_bin_len=len(reply.payload))
    return said


def _heads(said: dict[str, Any]) -> list[str]:
    return [head.hex() for head in said["heads"]]

"""What is read of a request: parameters as described, and bodies within bounds.

Whatever is not known is refused: what is misspelt must not mean something else.
"""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NoReturn

from aiohttp import web

from amsync.adminapi.call import Asked, Call
from amsync.adminapi.problem import Problem, bad

MAX_JSON_BYTES = 64 * 1024
"""Of a body that takes no bytes and no value."""

MAX_VALUE_BYTES = 8 * 1024 * 1024
"""Of a value as JSON: reading that holds the interpreter, and nobody is served meanwhile."""

BODY_SECONDS = 60.0
"""A body that takes longer to come is refused."""

PIECE_BYTES = 64 * 1024
BYTES = "application/octet-stream"


def read_parameters(request: web.Request, call: Call) -> Mapping[str, Any]:
    """All parameters of a call. Raises Problem."""
    known = {each.name for each in call.parameters if f"{{{each.name}}}" not in call.path}
    for name in request.query:
        if name not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise bad(f"the parameter {name[:100]!r} is not known; allowed are {allowed}")
        if len(request.query.getall(name)) > 1:
            raise bad(f"the parameter {name!r} is given more than once")
    values = {}
    for each in call.parameters:
        text = request.match_info.get(each.name, request.query.get(each.name, each.default))
        assert text is not None
        values[each.name] = each.read(text)
    return values


async def read(request: web.Request, call: Call, most_bytes: int) -> Asked:
    """What is asked, with its body.

    Args:
        request: Its body was not touched yet.
        call: What the route belongs to.
        most_bytes: Of a body, if the call takes bytes.

    Raises:
        Problem
    """
    values = read_parameters(request, call)
    if call.takes is None and not call.takes_bytes:
        return Asked(values, {})
    # aiohttp takes a body of no kind for bytes.
    has_bytes = "Content-Type" in request.headers and request.content_type == BYTES
    is_bytes = call.takes is None or (call.takes_bytes and has_bytes)
    if not is_bytes:
        most_bytes = MAX_VALUE_BYTES if call.takes_bytes else MAX_JSON_BYTES
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await _read(request, most_bytes)
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"the body has not come within {BODY_SECONDS:.0f} s"
        ) from None
    if call.takes is None or is_bytes:
        return Asked(values, data)
    if len(data) > PIECE_BYTES:
        return Asked(values, await asyncio.to_thread(_object, data, call.takes))
    return Asked(values, _object(data, call.takes))


async def _read(request: web.Request, most_bytes: int) -> bytes:
    length = request.content_length
    if length is not None and length > most_bytes:
        raise _too_large(most_bytes)
    data = bytearray()
    try:
        async for part in request.content.iter_chunked(PIECE_BYTES):
            data += part
            if len(data) > most_bytes:
                raise _too_large(most_bytes)
    except (Problem, web.HTTPException):
        raise
    except Exception:  # it was cut off, or is no body of its encoding
        raise bad("the body can't be read") from None
    return bytes(data)


def _object(data: bytes, schema: Mapping[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(data, parse_constant=_refuse) if data.strip() else {}
    except (ValueError, RecursionError):
        raise bad("the body is no JSON") from None
    if not isinstance(value, dict):
        raise bad("the body is no JSON object")
    known = schema["properties"]
    if unknown := sorted(value.keys() - set(known)):
        allowed = ", ".join(sorted(known)) or "none"
        raise bad(f"{unknown[0][:100]!r} is not known; allowed are {allowed}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _too_large(most_bytes: int) -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {most_bytes:,} bytes")

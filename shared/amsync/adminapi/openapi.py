"""The OpenAPI 3.1 document of calls, made of their descriptions."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from amsync.adminapi.call import Call, Parameter
from amsync.adminapi.reading import BYTES
from amsync.adminapi.schema import COUNT, TEXT, record
from amsync.version import API_PATH, __version__

EVERY = (400, 401, 500, 503)
"""Problems that every call may have."""

BODIES = (408, 413)
"""Problems of calls that take a body."""

PROBLEM = record(type=TEXT, title=TEXT, status=COUNT, detail=TEXT)
_PROBLEMS = {"$ref": "#/components/schemas/Problem"}
_BYTES = {BYTES: {"schema": {"type": "string", "contentMediaType": BYTES}}}


def describe(calls: Iterable[Call]) -> Mapping[str, Any]:
    """The document, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for each in calls:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "amsync", "version": __version__, "license": {"name": "MIT"}},
        "servers": [{"url": API_PATH}],
        "security": [{"admin_token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"admin_token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": PROBLEM},
        },
    }


def _operation(call: Call) -> Mapping[str, Any]:
    said: dict[str, Any] = {"operationId": call.name, "summary": call.summary}
    if call.parameters:
        said["parameters"] = [_parameter(each, call) for each in call.parameters]
    content: dict[str, Any] = {}
    if call.takes is not None:
        content["application/json"] = {"schema": call.takes}
    if call.takes_bytes:
        content |= _BYTES
    if content:
        said["requestBody"] = {"content": content, "required": call.takes is None}
    bodies = BODIES if content else ()
    problems = sorted({*EVERY, *bodies, *call.problems})
    said["responses"] = {
        str(call.status): _success(call),
        **{
            str(status): {
                "description": HTTPStatus(status).phrase,
                "content": {"application/problem+json": {"schema": _PROBLEMS}},
            }
            for status in problems
        },
    }
    return said


def _parameter(each: Parameter, call: Call) -> Mapping[str, Any]:
    is_in_path = f"{{{each.name}}}" in call.path
    schema = each.schema if not each.default else {**each.schema, "default": _default(each)}
    return {
        "name": each.name,
        "in": "path" if is_in_path else "query",
        "required": is_in_path,
        "description": each.text,
        "schema": schema,
    }


def _default(each: Parameter) -> Any:
    assert each.default is not None
    return each.read(each.default)


def _success(call: Call) -> Mapping[str, Any]:
    description = HTTPStatus(call.status).phrase
    if call.status == HTTPStatus.NO_CONTENT:
        return {"description": description}
    content = _BYTES if call.answer is None else {"application/json": {"schema": call.answer}}
    return {"description": description, "content": content}

"""What every call of the admin port needs that is more than looking: a token, bounds, JSON, errors.

Calls are given as plain handlers that take a request and return what is said as JSON, or raise a
`Problem`, which is said as RFC 9457 has it. Without a token there are no calls at all. Not here:
what the calls do.
"""

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from aiohttp import web

from amsync.version import API_PATH

log = logging.getLogger("amsync.admin")

MAX_BODY_BYTES = 64 * 1024
MAX_PAGE = 1_000
PAGE = 100


class Problem(Exception):
    """A call can't be done as it was asked for.

    Attributes:
        status: HTTP status.
        more: Further members of the problem.
    """

    def __init__(self, status: HTTPStatus, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.more = status, more

    def response(self) -> web.Response:
        """As it is said."""
        body = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": str(self),
            **self.more,
        }
        headers = {"Cache-Control": "no-store"}
        if self.status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return web.json_response(
            body,
            status=self.status.value,
            content_type="application/problem+json",
            headers=headers,
        )


Handler = Callable[[web.Request], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call: what it returns is said as JSON with 200, or with 204 if it is None.

    `path` is what stands behind `API_PATH`.
    """

    method: str
    path: str
    handler: Handler


def routes(calls: Iterable[Call], token: str | None) -> list[web.RouteDef]:
    """Routes for the calls, which this token opens; without one there are none."""
    if token is None:
        return []
    secret = token.encode()
    return [
        web.route(each.method, API_PATH + each.path, _guarded(each.handler, secret))
        for each in calls
    ]


def _guarded(handler: Handler, secret: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        try:
            _check_token(request, secret)
            said = await handler(request)
        except Problem as problem:
            return problem.response()
        except web.HTTPException:
            raise
        except Exception:
            log.exception("an admin call failed", extra={"path": request.path})
            detail = "the call failed; the log says more"
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).response()
        headers = {"Cache-Control": "no-store"}
        if said is None:
            return web.Response(status=204, headers=headers)
        return web.json_response(said, headers=headers)

    return handle


def _check_token(request: web.Request, secret: bytes) -> None:
    headers = request.headers.getall("Authorization", [])
    scheme, _, given = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    given_bytes = given.strip().encode(errors="surrogateescape")
    if not hmac.compare_digest(given_bytes, secret) or scheme.lower() != "bearer":
        raise Problem(HTTPStatus.UNAUTHORIZED, "give the admin token as `Authorization: Bearer`")


async def read_object(request: web.Request, known: Collection[str]) -> dict[str, Any]:
    """The JSON object of a body, with these keys only; an empty body is an empty object.

    Raises:
        Problem: It is something else, or too large.
    """
    try:
        length = request.content_length
        if length is not None and length > MAX_BODY_BYTES:
            raise _too_large()
        body = bytearray()
        async for part in request.content.iter_chunked(16 * 1024):
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise _too_large()
        value = json.loads(bytes(body)) if body.strip() else {}
    except (ValueError, RecursionError):
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is no JSON") from None
    if not isinstance(value, dict):
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
    if unknown := sorted(value.keys() - set(known)):
        allowed = ", ".join(sorted(known)) or "none"
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"{unknown[0][:100]!r} is not known; allowed are {allowed}"
        )
    return value


def _too_large() -> Problem:
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES:,} bytes")


def page_size(query: Mapping[str, str]) -> int:
    """`limit` of a list, 1 to 1000. Raises Problem."""
    text = query.get("limit", str(PAGE))
    size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= size <= MAX_PAGE:
        raise Problem(HTTPStatus.BAD_REQUEST, f"limit={text[:20]!r} must be 1 to {MAX_PAGE}")
    return size

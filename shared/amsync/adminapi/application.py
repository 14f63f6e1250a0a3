"""The calls as an application of aiohttp: token, bounds, metrics, problems."""

import asyncio
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

from aiohttp import web

from amsync.adminapi.call import Call, JsonText, Octets
from amsync.adminapi.problem import Problem
from amsync.adminapi.reading import read
from amsync.metrics import Metrics

log = logging.getLogger("amsync.admin")

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of what is taken in with one call."""

MAX_CALLS = 64
"""Under way at the same time; those beyond are refused with 503."""

MAX_LARGE_CALLS = 8
"""Of these so many may take or give a document; the others wait."""

_Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_application(
    calls: Iterable[Call],
    token: str,
    metrics: Metrics,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_calls: int = MAX_CALLS,
) -> web.Application:
    """The calls, which this token opens; to be mounted at `API_PATH`."""
    application = web.Application(middlewares=[_problems(metrics)])
    desk = _Desk(token.encode(), metrics, max_body_bytes, max_calls)
    for each in calls:
        application.router.add_route(each.method, each.path, desk.handle(each))
    return application


def _problems(metrics: Metrics) -> Callable[..., Awaitable[web.StreamResponse]]:
    """What the router says, as a problem, too."""

    @web.middleware
    async def say(request: web.Request, handler: _Handle) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPNotFound:
            problem = Problem(HTTPStatus.NOT_FOUND, "there is no such call")
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{error.method} is not possible here; allowed are {allowed}"
            problem = Problem(HTTPStatus.METHOD_NOT_ALLOWED, detail, {"Allow": allowed})
        metrics.count("bad_admin_requests")
        return problem.response()

    return say


class _Desk:
    """Takes requests, in front of the handlers."""

    def __init__(
        self, secret: bytes, metrics: Metrics, max_body_bytes: int, max_calls: int
    ) -> None:
        self._secret, self._metrics = secret, metrics
        self._max_body_bytes, self._max_calls = max_body_bytes, max_calls
        self._under_way = 0
        self._large = asyncio.Semaphore(MAX_LARGE_CALLS)

    def handle(self, call: Call) -> _Handle:
        """The handler of a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            started = time.monotonic()
            try:
                response = await self._answer(request, call)
            except Problem as problem:
                response = problem.response()
            except web.HTTPException:
                raise
            except Exception:
                log.exception("an admin call failed", extra={"operation": call.name})
                detail = "the call failed; the log says more"
                response = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail).response()
            self._metrics.admin_calls.inc(call.name, str(response.status))
            self._metrics.admin_call_seconds.observe(time.monotonic() - started)
            return response

        return handle

    async def _answer(self, request: web.Request, call: Call) -> web.Response:
        self._check_token(request)
        if self._under_way >= self._max_calls:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, f"{self._max_calls} calls are under way; try again"
            )
        self._under_way += 1
        try:
            if not call.is_large:
                return await self._do(request, call)
            async with self._large:
                return await self._do(request, call)
        finally:
            self._under_way -= 1

    async def _do(self, request: web.Request, call: Call) -> web.Response:
        asked = await read(request, call, self._max_body_bytes)
        return _said(await call.handler(asked), call)

    def _check_token(self, request: web.Request) -> None:
        headers = request.headers.getall("Authorization", [])
        scheme, _, given = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
        given_bytes = given.strip().encode(errors="surrogateescape")
        if not hmac.compare_digest(given_bytes, self._secret) or scheme.lower() != "bearer":
            raise Problem(
                HTTPStatus.UNAUTHORIZED, "give the admin token as `Authorization: Bearer`"
            )


def _said(said: object, call: Call) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    match said:
        case None:
            return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)
        case Octets(data, name):
            headers |= {
                "Content-Disposition": f'attachment; filename="{name}"',
                "X-Content-Type-Options": "nosniff",
            }
            return web.Response(body=data, content_type="application/octet-stream", headers=headers)
        case JsonText(text):
            return web.Response(
                body=text, status=call.status, content_type="application/json", headers=headers
            )
    return web.json_response(said, status=call.status, headers=headers)

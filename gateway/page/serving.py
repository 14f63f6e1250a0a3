"""Routes for the page's files: what a browser may do with them, and how long it may keep them.

A browser asks each time whether a file has changed, so that an upgrade is seen at the next
reload, and never half of it.
"""

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from aiohttp import ETag, web

FILES = Path(__file__).parent / "files"
KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Serve = Callable[[web.Request], Awaitable[web.Response]]


def routes() -> list[web.RouteDef]:
    """`/` is the page, `/page/...` what it loads."""
    index = web.get("/", _serving(FILES / "index.html"))
    return [index, *(web.get(f"/page/{name}", _serving(FILES / name)) for name in names())]


@cache
def names() -> tuple[str, ...]:
    """The files that the page loads, by their paths."""
    found = (path for path in FILES.rglob("*") if path.suffix in KINDS)
    return tuple(sorted(str(path.relative_to(FILES)) for path in found if path.suffix != ".html"))


def _serving(path: Path) -> Serve:
    body = path.read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:32]

    async def serve(request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        if any(each.value in (tag, "*") for each in known):
            return web.Response(status=304, headers={**HEADERS, "ETag": f'"{tag}"'})
        response = web.Response(
            body=body, content_type=KINDS[path.suffix], charset="utf-8", headers=HEADERS
        )
        response.etag = ETag(tag)
        return response

    return serve

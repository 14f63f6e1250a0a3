"""Reading an issuer's discovery document and its keys over HTTP, within bounds.

Nothing is followed: a redirect is a failure, and `jwks_uri` must be as safe as the issuer's own
URL.
"""

import asyncio
import json
import ssl
from dataclasses import dataclass

import aiohttp

from amsync.auth.freshness import max_age_of
from amsync.auth.issuers import Issuer, tenants_of
from amsync.auth.keys import KeySet, UnusableKey, from_jwk_set
from amsync.hosts import is_safe_url

MAX_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 10.0
"""For the two answers together."""
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


class FetchFailed(Exception):
    """Keys could not be had.

    Attributes:
        label: A short fixed text, for metrics.
    """

    def __init__(self, label: str, detail: str) -> None:
        super().__init__(detail)
        self.label = label


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an issuer gave.

    Attributes:
        keys: Those that can be used.
        unusable_count: The others.
        max_age: Seconds, if the issuer said how long they are good.
        tenants: The issuer's own name if it speaks for many tenants, with `{tenantid}` in it.
    """

    keys: KeySet
    unusable_count: int
    max_age: float | None
    tenants: str | None


async def fetch_keys(issuer: Issuer, context: ssl.SSLContext) -> Fetched:
    """Get the keys of an issuer.

    Raises:
        FetchFailed: And nothing else.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=_HEADERS,
    ) as session:
        asking = asyncio.ensure_future(_ask(session, issuer))
        try:
            done, _ = await asyncio.wait([asking], timeout=TIMEOUT_SECONDS)
            if not done:
                raise FetchFailed("timeout", f"no answer within {TIMEOUT_SECONDS:g} s")
            return asking.result()
        finally:
            # First the connections, which that aborts: a request that is only cancelled begins a
            # farewell of TLS, which a server that hangs never ends.
            await session.close()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)


async def _ask(session: aiohttp.ClientSession, issuer: Issuer) -> Fetched:
    try:
        tenants, url = None, issuer.jwks_url
        if url is None:
            tenants, url = await _discover(session, issuer)
        document, max_age = await _get(session, url)
        keys, unusable_count = from_jwk_set(document)
    except UnusableKey as error:
        raise FetchFailed("malformed", str(error)) from None
    except aiohttp.ClientSSLError as error:
        raise FetchFailed("tls", str(error)) from None
    except (aiohttp.ClientError, OSError) as error:
        raise FetchFailed("connection", f"{type(error).__name__}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise FetchFailed("malformed", f"{type(error).__name__} in an answer") from None
    return Fetched(keys, unusable_count, max_age, tenants)


async def _discover(session: aiohttp.ClientSession, issuer: Issuer) -> tuple[str | None, str]:
    """What the issuer calls its tenants, and where its keys are.

    OpenID Connect Discovery 1.0, section 4.
    """
    url = issuer.url.rstrip("/") + "/.well-known/openid-configuration"
    document, _ = await _get(session, url)
    if not isinstance(document, dict):
        raise FetchFailed("malformed", f"{url} is no JSON object")
    name, keys_url = document.get("issuer"), document.get("jwks_uri")
    tenants = tenants_of(issuer.url)
    if name != issuer.url and (tenants is None or name != tenants):
        shown = name[:200] if isinstance(name, str) else type(name).__name__
        raise FetchFailed(
            "issuer_differs", f"{url} calls its issuer {shown!r}; configured is {issuer.url!r}"
        )
    is_local = issuer.url.startswith("http://")
    if (
        not isinstance(keys_url, str)
        or not is_safe_url(keys_url, with_query=True)
        or (keys_url.startswith("http://") and not is_local)
    ):
        raise FetchFailed("malformed", f"{url} names no jwks_uri with https")
    return tenants if name == tenants else None, keys_url


async def _get(session: aiohttp.ClientSession, url: str) -> tuple[object, float | None]:
    """A JSON document, and for how many seconds it is said to be good."""
    async with session.get(url, allow_redirects=False) as answer:
        try:
            if answer.status != 200:
                raise FetchFailed("status", f"{url} answered {answer.status}")
            body = bytearray()
            async for part in answer.content.iter_chunked(64 * 1024):
                body += part
                if len(body) > MAX_BYTES:
                    raise FetchFailed("too_large", f"{url} answered over {MAX_BYTES:,} bytes")
        finally:
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()  # not all of the answer was read
        return json.loads(bytes(body)), max_age_of(answer.headers.get("Cache-Control", ""))

"""Asks a URL of the operator's about every (identity, document), within bounds.

POST of {"issuer", "subject", "email", "client_id", "document_id"}; the answer is an object with
`access`, and maybe `announce`, `create`, `lifetime_seconds`. Nothing is followed or unpacked;
whatever is not exactly an answer refuses.
"""

import json
from typing import Any

import aiohttp

from amsync.errors import ConfigError
from amsync.gateway.access.config import WEBHOOK_LIFETIME_SECONDS, Decision, Webhook
from amsync.gateway.access.source import SourceFailed
from amsync.gateway.caller import Caller
from amsync.ids import DocumentId

MAX_ANSWER_BYTES = 64 * 1024
MAX_CONNECTIONS = 16


class WebhookSource:
    """A `Source`; `close` it on the loop on which it was used."""

    name = "access_webhook"

    def __init__(self, webhook: Webhook) -> None:
        """Raises ConfigError: its `ca` can't be used."""
        self.timeout_seconds = webhook.timeout_seconds
        self._url, self._token = webhook.url, webhook.token
        self._context = webhook.tls_context()
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, caller: Caller, document_id: DocumentId) -> Decision:
        """Ask it. Raises SourceFailed."""
        identity = caller.identity
        question = {
            "issuer": None if identity is None else identity.issuer,
            "subject": None if identity is None else identity.subject,
            "email": None if identity is None else identity.email,
            "client_id": caller.peer_id,
            "document_id": document_id,
        }
        try:
            return _decision(await self._post(question))
        except aiohttp.ClientSSLError as error:
            raise SourceFailed("tls", type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise SourceFailed("connection", type(error).__name__) from None

    async def _post(self, question: dict[str, Any]) -> bytes:
        if self._session is None:
            self._session = self._open()
        async with self._session.post(self._url, json=question, allow_redirects=False) as answer:
            if answer.status != 200:
                raise SourceFailed("status", f"it answered {answer.status}")
            body = bytearray()
            async for part in answer.content.iter_chunked(16 * 1024):
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise SourceFailed(
                        "too_large", f"it answered more than {MAX_ANSWER_BYTES:,} bytes"
                    )
            return bytes(body)

    def _open(self) -> aiohttp.ClientSession:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._context, limit=MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=None),  # the policy's
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers=headers,
        )

    async def close(self) -> None:
        """Close its connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _decision(body: bytes) -> Decision:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise SourceFailed("malformed", "its answer is no JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
        raise SourceFailed("malformed", "its answer is no object with an `access`")
    try:
        return Decision(
            answer["access"],
            answer.get("announce", False),
            answer.get("create", True),
            answer.get("lifetime_seconds", WEBHOOK_LIFETIME_SECONDS),
        )
    except ConfigError as error:
        raise SourceFailed("malformed", f"its answer: {error}"[:200]) from None

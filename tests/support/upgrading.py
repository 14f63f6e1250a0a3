"""A request for an upgrade and what is answered, without a WebSocket client.

`websockets.sync` reads and writes a TLS socket in two threads, which OpenSSL forbids: of refusals
over wss one in three hundred is lost to that, and a test that counts them would fail.
"""

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


@dataclass(frozen=True)
class Answer:
    """What the server has answered to a request for an upgrade; 101 if it lets in."""

    status: int
    headers: Mapping[str, str]
    body: str


def ask(url: str, headers: Mapping[str, str], context: ssl.SSLContext | None = None) -> Answer:
    """Ask for an upgrade at a ws:// or wss:// URL, and hang up."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "wss":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, context=context, timeout=30
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request("GET", path, headers={**UPGRADE, **headers})
        response = connection.getresponse()
        body = "" if response.status == 101 else response.read().decode()
        return Answer(response.status, response.headers, body)
    finally:
        connection.close()

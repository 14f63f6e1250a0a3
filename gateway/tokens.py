"""Where a client's token may come from in the request for the upgrade.

`Authorization: Bearer TOKEN`; in browsers, which can't send that, an entry of
`Sec-WebSocket-Protocol`: `amsync, amsync.token.TOKEN`, answered with `amsync`; and, only where
the operator allows it, the query parameter `access_token` (RFC 6750, 2.3), which proxies may log.
The first that is there counts.
"""

from collections.abc import Sequence
from urllib.parse import parse_qs

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_subprotocol
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

SUBPROTOCOL = Subprotocol("amsync")
TOKEN_PREFIX = "amsync.token."  # noqa: S105 - it stands before one
QUERY_PARAMETER = "access_token"
MAX_FIELDS = 20


class BadRequest(Exception):
    """The request is not one that can be read; its text is for the client, and fixed."""


def find_token(request: Request, *, allow_query: bool) -> str | None:
    """The token that a request carries, unverified; None if it has none.

    Raises:
        BadRequest: A header can't be read, or there are several tokens in one place.
    """
    values = request.headers.get_all("Authorization")
    if len(values) > 1:
        raise BadRequest("several Authorization headers")
    if values:
        scheme, _, token = values[0].strip().partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    offered = offered_subprotocols(request)
    tokens = [each[len(TOKEN_PREFIX) :] for each in offered if each.startswith(TOKEN_PREFIX)]
    if len(tokens) > 1:
        raise BadRequest("several tokens in Sec-WebSocket-Protocol")
    if tokens:
        if SUBPROTOCOL not in offered:  # we could not answer: the entry must not come back
            raise BadRequest(f"offer the subprotocol {SUBPROTOCOL} beside the token")
        return tokens[0]
    if allow_query:
        try:
            query = parse_qs(request.path.partition("?")[2], max_num_fields=MAX_FIELDS)
        except ValueError as error:
            raise BadRequest("too many parameters") from error
        found = query.get(QUERY_PARAMETER, [])
        if len(found) > 1:
            raise BadRequest(f"several parameters {QUERY_PARAMETER}")
        if found:
            return found[0]
    return None


def offered_subprotocols(request: Request) -> list[Subprotocol]:
    """What the client offers in Sec-WebSocket-Protocol. Raises BadRequest."""
    try:
        return [
            each
            for value in request.headers.get_all("Sec-WebSocket-Protocol")
            for each in parse_subprotocol(value)
        ]
    except InvalidHeader as error:
        raise BadRequest("bad Sec-WebSocket-Protocol header") from error


def select_subprotocol(
    _protocol: ServerProtocol, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """For websockets: ours if it is offered, else none, whatever else there is."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None

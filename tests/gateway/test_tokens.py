"""Where a token may come from."""

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from amsync.gateway.tokens import BadRequest, find_token


def request(*headers: tuple[str, str], path: str = "/") -> Request:
    return Request(path, Headers(headers))


def protocols(value: str) -> tuple[str, str]:
    return ("Sec-WebSocket-Protocol", value)


@pytest.mark.parametrize(
    ("asked", "token"),
    [
        (request(("Authorization", "Bearer a.b.c")), "a.b.c"),
        (request(("Authorization", "bearer  a.b.c ")), "a.b.c"),
        (request(protocols("amsync, amsync.token.a.b.c")), "a.b.c"),
        (request(protocols("amsync.token.a.b.c"), protocols("amsync")), "a.b.c"),
        (request(("Authorization", "Bearer one"), protocols("amsync, amsync.token.two")), "one"),
        (request(("Authorization", "Basic abc")), None),
        (request(("Authorization", "Bearer ")), None),
        (request(("Authorization", "")), None),
        (request(protocols("amsync, other")), None),
        (request(path="/?access_token=a.b.c"), None),
        (request(), None),
    ],
)
def test_token_is_found_in_headers(asked: Request, token: str | None) -> None:
    assert find_token(asked, allow_query=False) == token


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/?access_token=a.b.c", "a.b.c"),
        ("/doc?x=1&access_token=a.b.c", "a.b.c"),
        ("/?access_token=", None),
        ("/?token=a.b.c", None),
        ("/", None),
    ],
)
def test_query_counts_only_where_it_is_allowed(path: str, token: str | None) -> None:
    assert find_token(request(path=path), allow_query=True) == token
    assert find_token(request(path=path), allow_query=False) is None


@pytest.mark.parametrize(
    "asked",
    [
        request(("Authorization", "Bearer a"), ("Authorization", "Bearer b")),
        request(protocols("amsync, amsync.token.a, amsync.token.b")),
        request(protocols("amsync.token.a")),
        request(protocols("a b c,,;")),
        request(path="/?access_token=a&access_token=b"),
        request(path="/?" + "&".join(f"a{n}=1" for n in range(100))),
    ],
)
def test_ambiguous_requests_are_refused_without_repeating_them(asked: Request) -> None:
    with pytest.raises(BadRequest) as refused:
        find_token(asked, allow_query=True)

    assert "amsync.token." not in str(refused.value)
    assert "a=" not in str(refused.value)

"""An OIDC issuer of a test's own: discovery, keys and tokens over HTTPS on loopback.

It runs in a thread with a loop of its own, so that servers in other processes can ask it too.
Everything about it may be changed while it runs: its keys, and how it fails.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import jwt
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from amsync.tls import TLSConfig, write_cert

from .closing import Closing

CLIENT_ID = "amsync-tests"
_ALGORITHMS = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_CLASSES: dict[str, Any] = {
    "RSA": jwt.algorithms.RSAAlgorithm,
    "EC": jwt.algorithms.ECAlgorithm,
    "OKP": jwt.algorithms.OKPAlgorithm,
}
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SigningKey:
    """A private key with its id."""

    def __init__(self, key_id: str | None, algorithm: str = "RS256", *, bits: int = 2048) -> None:
        self.key_id, self.algorithm = key_id, algorithm
        self.kind = _ALGORITHMS[algorithm]
        self.private: Any
        match self.kind:
            case "RSA":
                self.private = rsa.generate_private_key(65537, bits)
            case "EC":
                self.private = ec.generate_private_key(ec.SECP256R1())
            case _:
                self.private = ed25519.Ed25519PrivateKey.generate()

    def jwk(self, **more: Any) -> dict[str, Any]:
        """Its public half."""
        found: dict[str, Any] = _CLASSES[self.kind].to_jwk(self.private.public_key(), as_dict=True)
        if self.key_id is not None:
            found["kid"] = self.key_id
        return {**found, "use": "sig", "alg": self.algorithm, **more}

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token; a header that is None is left out."""
        headers = {"kid": self.key_id, **header}
        headers = {name: value for name, value in headers.items() if value is not None}
        return jwt.encode(claims, self.private, self.algorithm, headers=headers)


class IssuerServer(Closing):
    """A running issuer.

    Attributes:
        url: Its name, and where it is.
        ca: The certificate that clients have to trust.
        keys: What it publishes; the first one signs.
        cache_control: Of the keys; None: no such header.
        asked: How often each path was asked for and answered.
        answers: Path -> what is done instead of answering properly.
        discovery: What its discovery document says instead.
    """

    def __init__(self, folder: Path, *, path: str = "", key: SigningKey | None = None) -> None:
        """Start it; issuers of one folder have one certificate."""
        tls = TLSConfig(folder / "amsync-cert.pem", folder / "amsync-key.pem")
        if not Path(tls.cert).exists():
            write_cert(folder)
        self.ca = Path(tls.cert)
        self._tls = tls.server_context()
        self.keys: list[SigningKey] = [key or SigningKey("first")]
        self.published: list[dict[str, Any]] | None = None
        self.cache_control: str | None = "public, max-age=3600"
        self.asked: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self.answers: dict[str, Answer] = {}
        self.discovery: dict[str, Any] = {}
        self._path = path
        self._news = threading.Condition()
        self._loop = uvloop.new_event_loop()  # closes what others leave open
        self._thread = threading.Thread(target=self._loop.run_forever, name="issuer", daemon=True)
        self._thread.start()
        self._runner: web.AppRunner | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}{self._path}"

    @property
    def jwks_path(self) -> str:
        return f"{self._path}/keys"

    def claims(self, **more: Any) -> dict[str, Any]:
        """Claims of a good token; one that is None is left out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "somebody",
            "iat": now,
            "exp": now + 600,
            **more,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, **more: Any) -> str:
        """A good token but for what is given."""
        return self.keys[0].sign(self.claims(**more))

    def rotate(self, key: SigningKey, *, keep: bool = True) -> None:
        """Sign with another key from now on; publish the old ones still, or not."""
        self.keys = [key, *(self.keys if keep else [])]

    def start(self) -> None:
        """Listen; on the same port when it has been stopped."""

        async def begin() -> None:
            application = web.Application()
            application.router.add_route("*", "/{path:.*}", self._answer)
            self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await self._runner.setup()
            site = web.TCPSite(
                self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True
            )
            await site.start()
            assert self._runner.addresses
            self.port = self._runner.addresses[0][1]

        self._do(begin())

    def stop(self) -> None:
        """Be down: connections are refused."""
        runner, self._runner = self._runner, None

        if runner is not None:
            self._do(runner.cleanup())

    def fail(self, answer: Answer) -> None:
        """Answer in this way to everything, until `recover`."""
        self.answers = {"*": answer}

    def recover(self) -> None:
        self.answers = {}

    def wait_begun(self, path: str, count: int, seconds: float = 10.0) -> None:
        """Return when a path was asked for so often, answered or not."""
        with self._news:
            came = self._news.wait_for(lambda: self._begun[path] >= count, seconds)
        assert came, f"{path} was asked for {self._begun[path]} times, not {count}"

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        with self._news:
            self._begun[path] += 1
            self._news.notify_all()
        try:
            instead = self.answers.get(path) or self.answers.get("*")
            if instead is not None:
                return await instead(request)
            if path == f"{self._path}/.well-known/openid-configuration":
                keys_url = f"https://127.0.0.1:{self.port}{self.jwks_path}"
                found = {"issuer": self.url, "jwks_uri": keys_url}
                return web.json_response({**found, **self.discovery})
            if path == self.jwks_path:
                keys = self.published
                if keys is None:
                    keys = [each.jwk() for each in self.keys]
                headers = {}
                if self.cache_control is not None:
                    headers["Cache-Control"] = self.cache_control
                return web.json_response({"keys": keys}, headers=headers)
            return web.Response(status=404)
        finally:
            self.asked[path] += 1


def answering(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """An answer of this kind."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


def saying(document: object) -> Answer:
    """An answer of JSON."""
    return answering(body=json.dumps(document).encode())


def hanging(released: threading.Event) -> Answer:
    """No answer before that is set."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        with contextlib.suppress(asyncio.CancelledError):
            while not released.is_set():
                await asyncio.sleep(0.01)
        return web.Response(status=503)

    return answer

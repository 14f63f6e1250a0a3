"""A real browser: commands tests/js/browser.mjs, and serves the page that it shows."""

import base64
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from interop.commanded import Commanded
from interop.repos import DEFAULT_SECONDS, Json
from support.issuer import IssuerServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "tests" / "js" / "page" / "index.html"
UNPACKED = ROOT / ".build" / "chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> tuple[str, dict[str, str]]:
    """Chromium's program, and the environment that it needs; see tools/get-chromium.sh."""
    environment = dict(os.environ)
    for name in NAMES:
        if found := shutil.which(name):
            return found, environment
    program = UNPACKED / "usr/lib/chromium/chromium"
    assert program.exists(), "Chromium is missing: run tools/get-chromium.sh"
    libraries = sorted({str(path.parent) for path in UNPACKED.rglob("*.so*")})
    environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    if not Path("/etc/fonts").exists():
        environment["FONTCONFIG_PATH"] = str(UNPACKED / "etc/fonts")
    return str(program), environment


def key_of(certificate: str | os.PathLike[str]) -> str:
    """The public key of a certificate in a file, as Chromium names it."""
    public = x509.load_pem_x509_certificate(Path(certificate).read_bytes()).public_key()
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(encoded).digest()).decode()


class Browser(Commanded):
    """The browser, with one page at a time. Use it as a context manager."""

    def __init__(self, log: Path, trusted: Iterable[str | os.PathLike[str]] = ()) -> None:
        program, environment = find_browser()
        keys = ",".join(key_of(each) for each in trusted)
        script = ROOT / "tests" / "js" / "browser.mjs"
        super().__init__(["node", str(script), program, keys], log, environment)

    def open(self, url: str) -> None:
        """Show a page, instead of the one before."""
        self.call("open", {"url": url})

    def evaluate(self, expression: str) -> Json:
        """What an expression in the page gives."""
        return self.call("evaluate", {"expression": expression})

    def wait(self, expression: str, timeout: float = DEFAULT_SECONDS) -> Json:
        """What an expression in the page gives, once that is true."""
        return self.call("wait", {"expression": expression}, timeout=timeout)

    def complaints(self) -> list[str]:
        """What the page threw where nobody caught it."""
        found: list[str] = self.call("complaints", {})
        return found

    def logged(self) -> list[str]:
        """What is in the page's console."""
        found: list[str] = self.call("logged", {})
        return found

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Take a picture of what is seen, or of the whole page."""
        self.call("screenshot", {"path": str(path), "fullPage": whole})


class AppBrowser(Browser):
    """The browser with the application of tests/js/page.

    Attributes:
        program: The page's program, bundled.
    """

    def __init__(self, log: Path, trusted: Iterable[str | os.PathLike[str]]) -> None:
        super().__init__(log, trusted)
        self.program: str = self.call("bundle", {})

    def app(self, call: str) -> Json:
        """What a call of the page's `app` returns, as "list()"."""
        return self.evaluate(f"app.{call}")

    def wait_list(self, items: list[str]) -> None:
        """Wait until the page's document has these items."""
        wanted = json.dumps(json.dumps(items, separators=(",", ":")))
        self.wait(f"JSON.stringify(app.list()) === {wanted}")

    def wait_status(self, state: str, *, count: int = 1) -> Json:
        """The newest status of a state, once it was shown so many times."""
        found = f"app.statuses.filter(each => each.state === '{state}')"
        return self.wait(f"{found}.length >= {count} && {found}.pop()")

    def sockets(self) -> list[Json]:
        """All WebSockets so far: frames sent and received, whether it is closed."""
        found: list[Json] = self.call("sockets", {})
        return found

    def wait_sockets(self, *closed: bool) -> None:
        """Wait until there were so many WebSockets, and these are closed."""
        deadline = time.monotonic() + DEFAULT_SECONDS
        while [each["closed"] for each in self.sockets()] != list(closed):
            assert time.monotonic() < deadline, self.sockets()
            time.sleep(0.02)

    def frames(self) -> int:
        """How many frames went over all sockets, in both directions."""
        return sum(each["sent"] + each["received"] for each in self.sockets())


class Site:
    """Serves the page, and its tokens: what `token` gives for the reason that the page names."""

    def __init__(self, server: IssuerServer, program: str, sync_url: str) -> None:
        self.token: Callable[[str], str | None] = lambda reason: None
        html = PAGE.read_text().replace("{{sync}}", sync_url)
        server.answers = {
            "/": self._file(html, "text/html"),
            "/page.js": self._file(program, "text/javascript"),
            "/token": self._give,
        }
        self.url = server.url

    @staticmethod
    def _file(text: str, kind: str) -> Callable[[web.Request], Any]:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(text=text, content_type=kind)

        return answer

    async def _give(self, request: web.Request) -> web.StreamResponse:
        token = self.token(request.query["reason"])
        return web.Response(status=204) if token is None else web.Response(text=token)

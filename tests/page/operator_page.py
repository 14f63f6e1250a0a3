"""The operator's page in a browser: what somebody does there, and reads there."""

import json
import time
from pathlib import Path

from interop.repos import DEFAULT_SECONDS, Json
from jsclient.browser import Browser

TOKEN = "the-operators-token"
VIEWS = ("overview", "shards", "shards?as=table", "documents", "connections", "quarantine")

HOSTILE = {
    "<img src=x onerror=alert(1)>": "<script>alert(2)</script>",
    "turned": "abc\u202edef",
    "controls": "bell\u0007 and\nline",
    "\u202eyek": 1,
    "__proto__": {"constructor": "mine"},
    "": "no name",
    "digits": 9_007_199_254_740_993,
}
"""A document whose text would do something if it were more than text."""

_ASKED = "Failed to load resource"
"""What Chromium writes by itself for a status of 400 or more."""


class OperatorPage(Browser):
    """The browser, at the page of one server at a time."""

    def see(self, width: int = 1280, height: int = 900, *, scheme: str = "light") -> None:
        """From now on, look through a window of this size; the next is `visit`."""
        seen = {"width": width, "height": height, "colorScheme": scheme}
        self.call("see", {**seen, "reducedMotion": "reduce"})

    def visit(self, admin_url: str, token: str | None = TOKEN) -> None:
        """Open the page; with a token, it is in the address."""
        self.open(f"{admin_url}/" if token is None else f"{admin_url}/#token={token}")
        if token is not None:
            self.wait_heading("All is well.")

    def go(self, view: str) -> None:
        """Follow an address of the page, as "shards"; returns when its heading is there."""
        self.evaluate(f"void (location.hash = '#/{view}')")
        self.wait(f"document.activeElement.matches('h1') && location.hash === '#/{view}'")

    def click(self, role: str, name: str) -> None:
        self.call("click", {"role": role, "name": name})

    def fill(self, label: str, text: str) -> None:
        self.call("fill", {"label": label, "text": text})

    def upload(self, label: str, path: Path) -> None:
        self.call("upload", {"label": label, "path": str(path)})

    def download(self, name: str, path: Path) -> str:
        """Press a button that saves a file; returns the name that the page gave it."""
        found: str = self.call("download", {"role": "button", "name": name, "path": str(path)})
        return found

    def press(self, *keys: str) -> None:
        for key in keys:
            self.call("press", {"key": key})

    def type(self, text: str) -> None:
        self.call("type", {"text": text})

    def back(self) -> None:
        self.call("back", {})

    def focused(self) -> str:
        """Text of what has the focus, or its id if it has none."""
        found: str = self.evaluate(
            "document.activeElement.innerText || document.activeElement.id || ''"
        )
        return found

    def tab_to(self, name: str) -> None:
        """Press the tabulator until something of this text or id has the focus."""
        met = []
        while self.focused().strip() != name:
            assert len(met) < 60, f"{name!r} is not among {met}"
            self.press("Tab")
            met.append(self.focused())

    def wait_heading(self, text: str) -> None:
        self.wait(f"document.querySelector('h1')?.innerText === {json.dumps(text)}")

    def wait_text(self, text: str, timeout: float = DEFAULT_SECONDS) -> None:
        """Wait until the page shows this somewhere."""
        self.wait(f"document.body.innerText.includes({json.dumps(text)})", timeout)

    def wait_gone(self, text: str, timeout: float = DEFAULT_SECONDS) -> None:
        self.wait(f"!document.body.innerText.includes({json.dumps(text)})", timeout)

    def wait_idle(self) -> None:
        """Wait until a view has got what it shows."""
        self.wait("!/Asking…|Reading…/.test(document.body.innerText)")

    def rows(self, caption: str) -> list[list[str]]:
        """Texts of a table's cells."""
        selector = json.dumps(f'table[aria-label="{caption}"] tbody tr')
        cells = "row => [...row.cells].map(cell => cell.innerText.trim())"
        found: list[list[str]] = self.evaluate(
            f"[...document.querySelectorAll({selector})].map({cells})"
        )
        return found

    def wait_row(self, caption: str, start: str) -> list[str]:
        """The first row of a table whose first cell begins with this, once there is one."""
        deadline = time.monotonic() + DEFAULT_SECONDS
        while True:
            rows = self.rows(caption)
            for row in rows:
                if row[0].startswith(start):
                    return row
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)

    def fact(self, name: str) -> str:
        """What is said for one of the names above a view, as "Connections"."""
        entry = f"[...document.querySelectorAll('.facts > div')].find({_NAMED % json.dumps(name)})"
        found: str = self.evaluate(f"{entry}.querySelector('dd').innerText")
        return found

    def is_wide(self) -> bool:
        """The page has to be scrolled sideways."""
        found: bool = self.evaluate("document.documentElement.scrollWidth > innerWidth")
        return found

    def contrasts(self) -> Json:
        """Texts that stand out too little."""
        return self.call("contrasts", {})

    def errors(self) -> list[str]:
        """What the browser complains of: exceptions, policies, and what is not found."""
        return [*self.complaints(), *(each for each in self.logged() if _ASKED not in each)]


_NAMED = "each => each.querySelector('dt').innerText === %s"

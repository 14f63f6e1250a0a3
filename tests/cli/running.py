"""`python -m amsync serve` in a process of its own."""

import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

URL = re.compile(r"\bwss?://\S+?:\d+")
ADMIN_URL = re.compile(r"http://\S+/metrics")
START_SECONDS = 20.0

COMMAND = [sys.executable, "-m", "amsync", "serve"]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("AMSYNC_")}
    return {**own, **extra}


class Serving:
    """A running command; the greeting was read when the block is entered.

    Attributes:
        greeting: What was printed up to and with the snippet.
        url: Where it listens.
    """

    def __init__(
        self, directory: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        if "--admin-port" not in arguments:
            arguments = (*arguments, "--admin-port", "off")
        if "--port" not in arguments:
            arguments = (*arguments, "--port", "0")
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=directory,
            env=environment(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self.errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_output, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.greeting = ""
        while not self.greeting.rstrip().endswith('console.log("created", handle.url)'):
            try:
                line = self._lines.get(timeout=START_SECONDS)
            except queue.Empty:
                line = ""
            if not line:
                self.kill9()
                raise AssertionError(f"no greeting: {self.greeting}{''.join(self.errors)}")
            self.greeting += line
        found = URL.search(self.greeting)
        assert found is not None, self.greeting
        self.url = found[0]

    @property
    def admin_url(self) -> str:
        found = ADMIN_URL.search(self.greeting)
        assert found is not None, self.greeting
        return found[0].removesuffix("/metrics")

    @property
    def snippet(self) -> str:
        """The JavaScript of the greeting."""
        return self.greeting.partition("From JavaScript:\n")[2].strip() + "\n"

    def signal(self, number: int, timeout: float = 15.0) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        self._join()
        return status

    def kill9(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self._join()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(5)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.kill9()


def run_to_end(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that should end by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=directory,
        env=environment(env or {}),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )

"""`python -m amsync serve` in a process of its own, and other subcommands in this one."""

import os
import queue
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from click.testing import CliRunner, Result

from amsync.cli import cli
from support.program import Program, run_to_end

URL = re.compile(r"\bwss?://\S+?:\d+")
ADMIN_URL = re.compile(r"http://\S+/metrics")
START_SECONDS = 60.0

COMMAND = [sys.executable, "-m", "amsync", "serve"]


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("AMSYNC_")}
    return {**own, **extra}


class Serving(Program):
    """A running command; the greeting was read when it is made.

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
        self._exit = ExitStack()
        self._stderr = self._exit.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        lines: queue.Queue[str] = queue.Queue()
        super().__init__(
            [*COMMAND, *arguments],
            lines.put,
            stderr=self._stderr,
            directory=directory,
            environment=environment(env or {}),
        )
        self.greeting = ""
        while not self.greeting.rstrip().endswith('console.log("created", handle.url)'):
            try:
                line = lines.get(timeout=START_SECONDS)
            except queue.Empty:
                line = ""
            if not line:
                said = "".join(self.errors)
                self.close()
                raise AssertionError(f"no greeting: {self.greeting}{said}")
            self.greeting += line
        found = URL.search(self.greeting)
        assert found is not None, self.greeting
        self.url = found[0]

    @property
    def errors(self) -> list[str]:
        """The lines of its standard error so far."""
        size = os.fstat(self._stderr.fileno()).st_size
        # Read at a place: the process goes on where the shared file offset is.
        return os.pread(self._stderr.fileno(), size, 0).decode().splitlines(keepends=True)

    @property
    def admin_url(self) -> str:
        found = ADMIN_URL.search(self.greeting)
        assert found is not None, self.greeting
        return found[0].removesuffix("/metrics")

    @property
    def snippet(self) -> str:
        """The JavaScript of the greeting."""
        return self.greeting.partition("From JavaScript:\n")[2].strip() + "\n"

    def close(self) -> None:
        super().close()
        self._exit.close()


def invoke(*arguments: object) -> Result:
    """Run a subcommand in this process."""
    return CliRunner().invoke(cli, [str(each) for each in arguments], prog_name="amsync")


def run_command(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that should end by itself."""
    return run_to_end(
        [*COMMAND, *arguments], directory=directory, environment=environment(env or {})
    )

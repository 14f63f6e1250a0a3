"""A program in a process of its own: its output taken line by line, its end in every case."""

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from .closing import Closing

END_SECONDS = 20.0
"""After a kill only a machine that hangs takes as long."""


class Program(Closing):
    """A running program.

    Attributes:
        process: For its pid, and its standard input if it has one.
    """

    def __init__(
        self,
        command: Sequence[str],
        take_line: Callable[[str], None],
        *,
        stderr: IO[bytes],
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        has_input: bool = False,
    ) -> None:
        """Start it.

        Args:
            take_line: Called, in a thread of its own, with each line of standard output, and
                with "" after the last one.
            stderr: An open file for what it says there; stays the caller's.
            environment: Instead of ours.
            has_input: Whether standard input is a pipe (`process.stdin`); else it is empty.
        """
        self.process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
        )
        # Tests look for threads that a server in this process has left; this is none of them.
        self._reader = threading.Thread(
            target=self._read, args=(take_line,), name="output of a program", daemon=True
        )
        self._reader.start()

    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self, timeout: float = END_SECONDS) -> int:
        """Wait until it has ended and its output is read; returns its status.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.process.stdin is not None:
            self.process.stdin.close()
        status = self.process.wait(timeout)
        self._reader.join(END_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def signal(self, number: int, timeout: float = END_SECONDS) -> int:
        """Send a signal that should end it; returns its status."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def kill9(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.wait()

    def close(self) -> None:
        """Kill it if it still runs."""
        self.kill9()

    def _read(self, take_line: Callable[[str], None]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            take_line(line)
        take_line("")


def run_to_end(
    command: Sequence[str | Path],
    *,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program that should end by itself, whatever its status; it reads no input."""
    return subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

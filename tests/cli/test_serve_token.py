"""The admin token that `amsync serve` makes up: on a terminal alone, and never in its stead."""

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.admin import AdminCalls

from .running import COMMAND, START_SECONDS, Serving, environment

LINE = re.compile(r"^(http://127\.0\.0\.1:\d+)/#token=([\w-]{20,})\r?$", re.MULTILINE)
TOKEN = "an-admin-token-for-tests"


@contextmanager
def on_terminal(directory: Path, *arguments: str) -> Iterator[tuple[str, str]]:
    """Start it with a terminal as its standard error; what it says there, and its greeting."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *arguments],
        cwd=directory,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    try:
        assert process.stdout is not None
        greeting = ""
        while "console.log" not in greeting:
            line = process.stdout.readline()
            assert line
            greeting += line
        said, deadline = b"", time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and select.select([ours], [], [], 0.2)[0]:
            said += os.read(ours, 65536)
        yield said.decode(), greeting
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.close(ours)


def test_token_on_a_terminal_opens_the_calls(tmp_path: Path) -> None:
    with on_terminal(tmp_path, "--admin-port", "0") as (said, greeting):
        (found,) = LINE.findall(said)
        url, token = found
        assert AdminCalls(url, token).call("GET", "/cluster")[0] == 200
        assert AdminCalls(url, "wrong").call("GET", "/cluster")[0] == 401
        assert token not in greeting


@pytest.mark.parametrize(
    "options",
    [
        ("--admin-port", "0", "--admin-token", TOKEN),
        ("--admin-port", "0", "--admin-host", "0.0.0.0"),
        ("--admin-port", "off"),
    ],
)
def test_nothing_is_made_up_where_it_is_not_wanted(tmp_path: Path, options: tuple[str]) -> None:
    with on_terminal(tmp_path, *options) as (said, greeting):
        assert "token=" not in said + greeting


def test_nothing_is_made_up_without_a_terminal(tmp_path: Path) -> None:
    with Serving(tmp_path, "--admin-port", "0") as serving:
        assert AdminCalls(serving.admin_url, TOKEN).call("GET", "/cluster")[0] == 404
        assert "token=" not in serving.greeting + "".join(serving.errors)

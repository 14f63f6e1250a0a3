"""Fixtures: a server with an operator's token, the browser at its page, clients of the server."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amsync import Server
from interop.driver import Driver
from page.operator_page import TOKEN, OperatorPage

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Server:
            options = {"data_dir": tmp_path / "data", "admin_port": 0, **options}
            return stack.enter_context(Server(admin_token=options.pop("token", TOKEN), **options))

        yield start


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorPage]:
    with OperatorPage(tmp_path_factory.mktemp("browser") / "browser.log") as browser:
        yield browser


@pytest.fixture
def page(browser: OperatorPage) -> Iterator[OperatorPage]:
    """A window of common size; no test may leave anything in the console."""
    browser.see()
    yield browser
    assert browser.errors() == []


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    with Driver(tmp_path_factory.mktemp("js") / "node.log") as driver:
        yield driver


@pytest.fixture
def clients(driver: Driver) -> Iterator[Driver]:
    """JavaScript clients; nothing that they do may throw where nobody can catch it."""
    driver.errors()
    yield driver
    driver.close_repos()
    assert driver.errors() == []

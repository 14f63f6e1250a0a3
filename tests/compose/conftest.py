"""Fixtures: one compose project for all tests, and real JavaScript clients.

Not part of `make test`: these need Docker, and minutes. Without Docker they fail.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compose.project import Project, eventually
from interop.driver import Driver
from interop.repos import Repo

IMAGE = "amsync:compose-test"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.docker)
            # The first test also waits for the image.
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    directory = tmp_path_factory.mktemp("compose")
    with Project(IMAGE, directory) as project:
        print(f"logs of all containers, afterwards: {project.log}")
        project.build()
        project.up()
        yield project


@pytest.fixture
def js(tmp_path: Path) -> Iterator[Driver]:
    with Driver(tmp_path / "node.log") as driver:
        yield driver


@pytest.fixture
def two_clients(project: Project, js: Driver) -> tuple[Repo, ...]:
    """Two clients of the load balancer, at different gateways."""
    return spread(project, lambda: js.connect(project.url), 2)


def spread(project: Project, connect: Callable[[], Repo], count: int) -> tuple[Repo, ...]:
    """Connect so many clients, one to each gateway.

    The load balancer gives each new socket to a gateway with the fewest, so nothing but the
    sockets of an earlier test, on their way out, could come in between.
    """
    eventually(lambda: not any(project.connections().values()), 30, "sockets of an earlier test")
    clients = tuple(connect() for _ in range(count))
    held = project.connections()
    assert sorted(held.values()) == [0] * (len(held) - count) + [1] * count, held
    return clients

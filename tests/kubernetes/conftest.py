"""Fixtures: releases of the chart, and real JavaScript clients.

Not part of `make test`: these need a Kubernetes with a node, and minutes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.driver import Driver
from kubernetes.release import IMAGE, WAIT_SECONDS, Release


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(4 * WAIT_SECONDS))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """What a plain `helm install` makes."""
    assert IMAGE, "AMSYNC_CHART_IMAGE has to name an image that the nodes have"
    with Release("plain", tmp_path_factory.mktemp("plain")) as release:
        print(f"helm install: {release.helm('install'):.0f} s; logs afterwards: {release.log}")
        yield release


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Two gateways, two workers on one volume."""
    assert IMAGE, "AMSYNC_CHART_IMAGE has to name an image that the nodes have"
    directory = tmp_path_factory.mktemp("several")
    with Release("several", directory, "ReadWriteMany") as release:
        values = ("worker.replicas=2", "worker.persistence.accessMode=ReadWriteMany")
        print(f"helm install: {release.helm('install', *values):.0f} s; logs: {release.log}")
        yield release


@pytest.fixture
def js(tmp_path: Path) -> Iterator[Driver]:
    with Driver(tmp_path / "node.log") as driver:
        yield driver

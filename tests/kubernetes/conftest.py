"""Fixtures: releases of the chart, and real JavaScript clients.

Not part of `make test`: these need a Kubernetes with a node, and minutes.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import amsync
from interop.driver import Driver
from kubernetes.release import GUARDED, IMAGE, ISSUER, WAIT_SECONDS, Release
from support.issuer import CLIENT_ID, SigningKey


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


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """With a certificate, tokens of an issuer whose keys are a file, and a password for Valkey."""
    assert IMAGE, "AMSYNC_CHART_IMAGE has to name an image that the nodes have"
    directory = tmp_path_factory.mktemp("guarded")
    pair = amsync.write_cert(directory / "tls", hosts=["sync.example.org"])
    key = SigningKey("first")
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": CLIENT_ID, "sub": "helm-test", "iat": now, "exp": now + 3600}
    with Release("guarded", directory) as release:
        release.secret(
            "sync-tls", tls_crt=Path(pair.cert).read_text(), tls_key=Path(pair.key).read_text()
        )
        release.secret("oidc", keys_json=json.dumps({"keys": [key.jwk()]}), id=CLIENT_ID)
        release.secret("valkey", password="sEcret4valkey")
        release.secret("sync-token", token=key.sign(claims))
        release.helm("install", *GUARDED, "test.existingSecret=sync-token")
        yield release


@pytest.fixture
def js(tmp_path: Path) -> Iterator[Driver]:
    with Driver(tmp_path / "node.log") as driver:
        yield driver

from collections.abc import Iterator
from pathlib import Path

import pytest

from amsync import TLSConfig, write_cert
from support.issuer import IssuerServer


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IssuerServer]:
    with IssuerServer(tmp_path_factory.mktemp("issuer")) as issuer:
        yield issuer


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> TLSConfig:
    return write_cert(Path(tmp_path_factory.mktemp("tls")))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OIDC_CLIENT_ID", "OIDC_ISSUER"):
        monkeypatch.delenv(name, raising=False)

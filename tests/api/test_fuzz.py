"""Requests made from the OpenAPI document, of a server and of a gateway: schemathesis."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amsync import Server
from cluster.processes import ClusterProcesses

from .conftest import TOKEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLES = os.environ.get("AMSYNC_FUZZ_EXAMPLES", "30")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
    "unsupported_method",
)


@pytest.fixture(params=["embedded", "gateway"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "embedded":
        with Server(data_dir=tmp_path / "data", admin_port=0, admin_token=TOKEN) as server:
            yield server.admin_url or ""
        return
    options = ("--admin-token", TOKEN)
    with ClusterProcesses(tmp_path, workers=2, gateway_options=options) as cluster:
        yield cluster.gateways[0].admin


def test_every_answer_is_as_described(url: str, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--header", f"Authorization: Bearer {TOKEN}"),
        *("--checks", ",".join(CHECKS)),
        *("--max-examples", EXAMPLES, "--seed", "1", "--generation-database", "none"),
        *("--workers", "2", "--request-timeout", "60", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr

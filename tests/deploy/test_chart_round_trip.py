"""What `helm test` runs, against real servers: it passes where all is well, and only there."""

import subprocess
import sys
from pathlib import Path

import pytest

import amsync
from amsync import AuthConfig
from amsync.tls import write_cert
from support.issuer import CLIENT_ID, IssuerServer

from .chart import CHART

SCRIPT = CHART / "files/round_trip.py"


def round_trip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_passes_when_both_clients_have_both_edits(tmp_path: Path) -> None:
    with amsync.Server(data_dir=tmp_path) as server:
        done = round_trip(server.url)

        assert (done.returncode, done.stderr) == (0, "")
        assert "both ways and saved" in done.stdout
        assert len(server.list_documents()) == 1


def test_it_fails_when_nobody_listens() -> None:
    done = round_trip("ws://127.0.0.1:1", "--seconds=0")

    assert done.returncode == 1
    assert "Refused" in done.stderr


def test_it_fails_when_nobody_may_read(tmp_path: Path) -> None:
    with amsync.Server(data_dir=tmp_path, share=amsync.Share.DENY) as server:
        done = round_trip(server.url, "--seconds=0", "--step-seconds=0.5")

    assert done.returncode == 1
    assert "does not acknowledge" in done.stderr


@pytest.fixture
def guarded(tmp_path: Path) -> "amsync.Server":
    issuer = IssuerServer(tmp_path)
    tls = write_cert(tmp_path / "server")
    auth = AuthConfig(client_id=CLIENT_ID, issuer=issuer.url, issuer_ca=str(issuer.ca))
    with issuer, amsync.Server(data_dir=tmp_path / "data", tls=tls, auth=auth) as server:
        (tmp_path / "token").write_text(issuer.token() + "\n")
        yield server


def test_with_tls_and_a_token_it_passes(guarded: amsync.Server, tmp_path: Path) -> None:
    done = round_trip(
        guarded.url,
        f"--certificate={tmp_path}/server/amsync-cert.pem",
        "--wants-token",
        f"--token-file={tmp_path}/token",
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "both ways and saved" in done.stdout


def test_without_a_token_it_sees_the_refusal_and_says_so(
    guarded: amsync.Server, tmp_path: Path
) -> None:
    done = round_trip(
        guarded.url, f"--certificate={tmp_path}/server/amsync-cert.pem", "--wants-token"
    )

    assert done.returncode == 0
    assert "refused with 401: no round trip made" in done.stdout


def test_a_server_that_asks_nobody_for_a_token_fails_where_one_is_wanted(tmp_path: Path) -> None:
    with amsync.Server(data_dir=tmp_path) as server:
        done = round_trip(server.url, "--wants-token", "--seconds=0")

    assert done.returncode == 1
    assert "takes clients without a token" in done.stderr


def test_another_certificate_is_not_trusted(guarded: amsync.Server, tmp_path: Path) -> None:
    write_cert(tmp_path / "other")

    done = round_trip(guarded.url, f"--certificate={tmp_path}/other/amsync-cert.pem", "--seconds=0")

    assert done.returncode == 1
    assert "certificate" in done.stderr.lower()

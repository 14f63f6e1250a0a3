"""`amsync access` against a server of this process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from amsync import Server, generate_document_id
from amsync.cli import cli
from support.rawclient import RawClient

TOKEN = "an-admin-token-for-tests"
BOB = ("--issuer", "https://issuer", "--subject", "bob")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(data_dir=tmp_path / "data", admin_port=0, admin_token=TOKEN) as server:
        yield server


def run(server: Server, *arguments: str, token: str = TOKEN) -> Result:
    env = {"AMSYNC_ADMIN_URL": server.admin_url or "", "AMSYNC_ADMIN_TOKEN": token}
    return CliRunner().invoke(cli, ["access", *arguments], env=env, prog_name="amsync")


def said(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_orders_are_given_listed_and_lifted(server: Server) -> None:
    document_id = generate_document_id()
    kick = said(run(server, "kick", *BOB, "--ban", "--seconds", "60"))
    one = said(
        run(server, "restrict", "--everybody", "--document-id", document_id, "--access=read")
    )
    two = said(run(server, "restrict", *BOB, "--all-documents", "--access=none"))

    assert kick["ban"] is True
    assert (one["access"], one["document_id"]) == ("read", document_id)
    assert {each["id"] for each in said(run(server, "list"))} == {
        each["id"] for each in (kick, one, two)
    }
    for each in (kick, one, two):
        assert run(server, "lift", each["id"]).exit_code == 0
    assert said(run(server, "list")) == []


def test_connection_is_shown_and_kicked(server: Server) -> None:
    with RawClient(server.url, peer_id="somebody") as client:
        client.join()
        (shown,) = said(run(server, "list", "--connections"))
        assert shown["peer_id"] == "somebody"
        number = str(shown["connection"])
        # Which gateway that is stands in the whole answer; there is none of this name.
        assert said(run(server, "kick", "--gateway", "x", "--connection", number)) == {
            "closed_here": 0
        }
        assert said(run(server, "refresh")) == {"connections_here": 1}


def test_refusal_is_a_failure_with_its_reason(server: Server) -> None:
    for arguments, why in [
        (("lift", "nothing"), "no such restriction"),
        (("kick",), "issuer and subject"),
        (("restrict", *BOB, "--access=none"), "document_id"),
    ]:
        result = run(server, *arguments)
        assert result.exit_code == 1
        assert why in result.output
    result = run(server, "list", token="another-token-altogether")
    assert result.exit_code == 1
    assert "401" in result.output
    assert TOKEN not in result.output


def test_token_may_be_in_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    env = {
        "AMSYNC_ADMIN_URL": server.admin_url or "",
        "AMSYNC_ADMIN_TOKEN_FILE": str(tmp_path / "token"),
        "AMSYNC_ADMIN_TOKEN": "",
    }
    assert said(CliRunner().invoke(cli, ["access", "list"], env=env)) == []


@pytest.mark.parametrize(
    ("env", "said_of_it"),
    [
        ({"AMSYNC_ADMIN_TOKEN": ""}, "admin-token"),
        ({"AMSYNC_ADMIN_URL": "ftp://x", "AMSYNC_ADMIN_TOKEN": TOKEN}, "admin_url"),
        ({"AMSYNC_ADMIN_URL": "http://x:port", "AMSYNC_ADMIN_TOKEN": TOKEN}, "ort"),
        ({"AMSYNC_ADMIN_TOKEN_FILE": "/missing", "AMSYNC_ADMIN_TOKEN": ""}, "missing"),
    ],
)
def test_what_can_not_be_is_refused(env: dict[str, str], said_of_it: str) -> None:
    result = CliRunner().invoke(cli, ["access", "list"], env=env)
    assert result.exit_code == 2
    assert said_of_it in result.output


def test_nobody_there_is_a_failure() -> None:
    env = {"AMSYNC_ADMIN_URL": "http://127.0.0.1:9", "AMSYNC_ADMIN_TOKEN": TOKEN}
    result = CliRunner().invoke(cli, ["access", "list"], env=env)
    assert result.exit_code == 1
    assert "no answer" in result.output

"""`amsync backup` and `amsync restore` with a server that runs: what one bad document costs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import amsync.cli.places as places
from amsync import Server
from amsync.cli import cli
from amsync.ids import DocumentId
from amsync.storage import Store

TOKEN = "an-admin-token-for-tests"


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """Documents that are stored in a directory."""
    with Server(data_dir=tmp_path / "data") as server:
        return sorted(server.create_document(data={"number": n}) for n in range(3))


@pytest.fixture
def server(names: list[str], tmp_path: Path) -> Iterator[Server]:
    with Server(data_dir=tmp_path / "data", admin_port=0, admin_token=TOKEN) as server:
        yield server


def run(*arguments: object) -> Result:
    words = [*(str(each) for each in arguments), "--admin-token", TOKEN]
    return CliRunner().invoke(cli, words, prog_name="amsync")


def test_a_document_of_which_nothing_can_be_read_is_named(names: list[str], tmp_path: Path) -> None:
    for path in (tmp_path / "data" / names[0][:2] / names[0][2:]).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])

    with Server(data_dir=tmp_path / "data", admin_port=0, admin_token=TOKEN) as server:
        result = run("backup", server.admin_url, "--to", tmp_path / "out", "--json")

    said = json.loads(result.stdout)
    assert (result.exit_code, said["documents"]) == (1, 2)
    assert [each["document_id"] for each in said["problems"]] == names[:1]


def _cannot_be_opened(document_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Store.load

    def fail(self: Store, asked: DocumentId) -> object:
        if asked == document_id:
            raise RuntimeError("a defect")
        return load(self, asked)

    monkeypatch.setattr(Store, "load", fail)
    monkeypatch.setattr(places, "PATIENCE_SECONDS", 0.1)


def test_a_document_that_the_server_never_opens_costs_itself_only(
    names: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _cannot_be_opened(names[1], monkeypatch)

    saved = run("backup", server.admin_url, "--to", tmp_path / "out", "--json")

    said = json.loads(saved.stdout)
    assert (saved.exit_code, said["documents"]) == (1, 2)
    assert [each["document_id"] for each in said["problems"]] == names[1:2]


def test_a_document_that_the_server_never_opens_is_not_restored_and_the_others_are(
    names: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("backup", server.admin_url, "--to", tmp_path / "out").exit_code == 0
    with Server(data_dir=tmp_path / "new", admin_port=0, admin_token=TOKEN) as other:
        _cannot_be_opened(names[1], monkeypatch)

        restored = run("restore", tmp_path / "out", "--to", other.admin_url, "--json")

        assert other.list_documents() == [names[0], names[2]]
    said = json.loads(restored.stdout)
    assert (restored.exit_code, said["taken"]) == (1, 2)
    assert [each["document_id"] for each in said["refused"]] == names[1:2]


def test_a_server_that_is_gone_ends_a_restore(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.admin_url
    assert run("backup", url, "--to", tmp_path / "out").exit_code == 0
    server.close()
    monkeypatch.setattr(places, "PATIENCE_SECONDS", 0.1)

    result = run("restore", tmp_path / "out", "--to", url)

    assert result.exit_code == 1
    assert result.stderr.count("no answer from") == 1

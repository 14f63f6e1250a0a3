"""`amsync doc`, `checkpoint` and `cluster status` on a server that runs, beside a directory."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from amsync import Server, generate_document_id
from amsync._automerge import Replica, build_document
from amsync.cli import cli

TOKEN = "an-admin-token-for-tests"
VALUE = {"title": "grüß 🎈", "list": [1, None], "b": {"c": 1.5}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(data_dir=tmp_path / "data", admin_port=0, admin_token=TOKEN) as server:
        yield server


def run(*arguments: object, token: str = TOKEN, stdin: str | None = None) -> Result:
    env = {"AMSYNC_ADMIN_TOKEN": token, "AMSYNC_ADMIN_TOKEN_FILE": ""}
    words = [str(each) for each in arguments]
    return CliRunner().invoke(cli, words, env=env, input=stdin, prog_name="amsync")


class Two:
    """The same documents at a server and in a directory."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.places = (server.admin_url or "", directory)
        directory.mkdir()

    def same(self, *arguments: object, stdin: str | None = None) -> Result:
        """Run a command on both; it must say the same."""
        before, after = arguments[:2], arguments[2:]
        one, two = (run(*before, place, *after, stdin=stdin) for place in self.places)
        assert (one.exit_code, one.stdout) == (two.exit_code, two.stdout), (one, two)
        return one


@pytest.fixture
def two(server: Server, tmp_path: Path) -> Two:
    return Two(server, tmp_path / "directory")


def test_what_is_made_is_listed_saved_and_deleted_alike(two: Two, tmp_path: Path) -> None:
    names = sorted(generate_document_id() for _ in range(3))
    made = [two.same("doc", "create", "--id", each, "--json") for each in names]
    assert len(json.loads(made[0].stdout)["heads"]) == 1

    assert two.same("doc", "list").stdout.split() == names
    assert two.same("doc", "list", "--json", "--prefix", names[0][:4]).exit_code == 0
    assert two.same("doc", "create", "--id", names[0]).exit_code == 1
    out = tmp_path / "out"
    exported = [
        json.loads(run("doc", "export", place, "--to", out, "--json").stdout)["exported"]
        for place in two.places
    ]
    # The second finds its files there, with the same content.
    assert [each["is_written"] for each in exported[0]] == [True] * 3
    assert [each["is_written"] for each in exported[1]] == [False] * 3

    assert two.same("doc", "delete", "--yes", names[1]).exit_code == 0
    assert two.same("doc", "delete", names[0], stdin="n\n").exit_code == 1
    again = two.same("doc", "delete", "--yes", "--json", names[1], names[2])
    assert again.exit_code == 1
    assert json.loads(again.stdout)["deleted"] == [names[2]]
    assert two.same("doc", "list").stdout.split() == names[:1]
    assert two.same("doc", "export", names[1], "--to", out).exit_code == 1


def test_value_is_made_and_shown_alike(two: Two) -> None:
    name = generate_document_id()
    two.same("doc", "create", "--id", name, "--value", "-", stdin=json.dumps(VALUE))

    shown = [json.loads(run("doc", "show", place, name, "--json").stdout) for place in two.places]

    assert shown[0]["value"] == shown[1]["value"] == VALUE
    assert shown[0].keys() == shown[1].keys()
    assert (shown[0]["changes"], shown[0]["problems"]) == (1, [])
    text = run("doc", "show", two.places[0], name).stdout
    assert f"document id     {name}" in text
    assert "None" not in text


@pytest.mark.parametrize("given", ["[]", "{", '{"a": 1'])
def test_value_that_is_none_is_refused(two: Two, given: str) -> None:
    assert two.same("doc", "create", "--value", "-", stdin=given).exit_code == 2
    assert two.same("doc", "list").stdout == ""


def test_value_that_does_not_fit_is_refused(two: Two) -> None:
    assert two.same("doc", "create", "--value", "-", stdin='{"a": 1e999}').exit_code == 2
    assert two.same("doc", "create", "--value", "-", stdin=f'{{"a": {2**70}}}').exit_code == 1


def test_files_are_taken_in_alike(two: Two, tmp_path: Path) -> None:
    replica = Replica(b"somebody")
    replica.put("a", 1)
    name, bad = generate_document_id(), generate_document_id()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"{name}.automerge").write_bytes(replica.save())
    (folder / f"{bad}.automerge").write_bytes(b"nonsense")

    said = two.same("doc", "import", folder)
    assert said.exit_code == 1
    assert f"{name}: new, 1 changes" in said.stdout
    assert two.same("doc", "list").stdout.split() == [name]
    again = two.same("doc", "import", folder / f"{name}.automerge", "--json")
    assert json.loads(again.stdout)["taken"][0]["new_changes"] == 0


def test_absent_documents_are_failures_alike(two: Two) -> None:
    name = generate_document_id()
    assert two.same("doc", "show", name).exit_code == 1
    two.same("doc", "create", "--id", name)
    two.same("doc", "delete", "--yes", name)
    assert json.loads(two.same("doc", "show", name, "--json").stdout)["is_deleted"] is True


@pytest.mark.parametrize(
    ("command", "rest"),
    [("list", ()), ("show", ("x",)), ("delete", ("x", "--yes")), ("create", ())],
)
def test_place_that_is_none_is_refused(command: str, rest: tuple[str, ...]) -> None:
    for place in ("/missing", "ftp://127.0.0.1", "http://x:port"):
        assert run("doc", command, place, *rest).exit_code == 2


def test_server_needs_its_token(server: Server) -> None:
    assert run("doc", "list", server.admin_url, token="").exit_code == 2
    refused = run("doc", "list", server.admin_url, token="another-token-altogether")
    assert (refused.exit_code, "401" in refused.output) == (1, True)
    assert TOKEN not in refused.output


def test_checkpoint_of_a_server(server: Server, tmp_path: Path) -> None:
    name = server.create_document(data={"a": 1})
    said = run("checkpoint", server.admin_url, "--json")
    assert said.exit_code == 0
    (worker,) = json.loads(said.stdout)["workers"]
    assert worker["problem"] is None
    assert (tmp_path / "data" / name[:2] / name[2:]).exists()
    assert "worker" in run("checkpoint", server.admin_url).stdout


def test_status_of_a_server(server: Server) -> None:
    given = ("cluster", "status", "--admin-url", server.admin_url)
    said = run(*given)
    assert (said.exit_code, said.stdout.endswith("\nall is well\n")) == (0, True)
    found = json.loads(run(*given, "--json").stdout)
    assert (found["mode"], len(found["shards"])) == ("embedded", 64)
    assert run("cluster", "status", "--admin-url", "http://127.0.0.1:9").exit_code == 1
    assert run("cluster", "status").exit_code == 2


def test_saved_document_in_a_file_of_any_name_becomes_a_copy(two: Two, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(build_document({"a": 1}))
    for place in two.places:
        assert run("doc", "import", place, tmp_path / "copy", "--new-id").exit_code == 0
        (name,) = run("doc", "list", place).stdout.split()
        assert json.loads(run("doc", "show", place, name, "--json").stdout)["value"] == {"a": 1}

"""`amsync backup` and `amsync restore` with directories."""

import json
import shutil
from pathlib import Path

import pytest

from amsync import Server

from .running import invoke

VALUE = {"title": "Hello", "tags": ["a", "b"], "count": 3}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three documents; the last one deleted."""
    with Server(data_dir=tmp_path / "data") as server:
        server.create_document(data=VALUE)
        server.create_document(data={"other": True})
        server.delete_document(server.create_document(data=VALUE))
    return tmp_path / "data"


def values(directory: Path) -> dict[str, object]:
    """All documents, as a server gives them."""
    with Server(data_dir=directory) as server:
        views = {name: server.get_document(name) for name in server.list_documents()}
        return {name: view.value for name, view in views.items() if view}


@pytest.mark.parametrize("name", ["out", "out.tar", "out.tar.gz"])
def test_what_was_saved_comes_back(data: Path, tmp_path: Path, name: str) -> None:
    before = values(data)

    saved = invoke("backup", data, "--to", tmp_path / "new" / name)
    restored = invoke("restore", tmp_path / "new" / name, "--to", tmp_path / "other")

    assert (saved.exit_code, restored.exit_code) == (0, 0), saved.output + restored.output
    assert "2 documents" in saved.stdout
    assert "2 documents taken in, 2 of them new, with 2 new changes; 0 refused" in restored.stdout
    assert values(tmp_path / "other") == before
    assert len(before) == 2


def test_again_changes_nothing(data: Path, tmp_path: Path) -> None:
    invoke("backup", data, "--to", tmp_path / "out")

    said = json.loads(invoke("restore", tmp_path / "out", "--to", data, "--json").stdout)

    assert (said["taken"], said["new"], said["new_changes"], said["refused"]) == (2, 0, 0, [])


def test_what_was_written_since_stays(data: Path, tmp_path: Path) -> None:
    invoke("backup", data, "--to", tmp_path / "out")
    with Server(data_dir=data) as server:
        added = server.create_document(data={"late": 1})
    before = values(data)

    assert invoke("restore", tmp_path / "out", "--to", data).exit_code == 0

    assert values(data) == before
    assert added in before


def test_what_was_deleted_since_stays_deleted(data: Path, tmp_path: Path) -> None:
    invoke("backup", data, "--to", tmp_path / "out")
    with Server(data_dir=data) as server:
        deleted, kept = server.list_documents()
        server.delete_document(deleted)

    result = invoke("restore", tmp_path / "out", "--to", data, "--json")

    assert result.exit_code == 1
    (refused,) = json.loads(result.stdout)["refused"]
    assert refused["document_id"] == deleted
    assert "stays deleted" in refused["reason"]
    assert list(values(data)) == [kept]


def test_one_document_alone(data: Path, tmp_path: Path) -> None:
    one, _ = values(data)
    invoke("backup", data, "--to", tmp_path / "out.tar")

    result = invoke("restore", tmp_path / "out.tar", "--to", tmp_path / "other", "--only", one)

    assert result.exit_code == 0
    assert list(values(tmp_path / "other")) == [one]


def test_a_document_that_is_not_in_it(data: Path, tmp_path: Path) -> None:
    invoke("backup", data, "--to", tmp_path / "out")
    unknown = "4NMNnkMhL8jXrdJ9jamS58PAVdXu"

    result = invoke("restore", tmp_path / "out", "--to", tmp_path / "other", "--only", unknown)

    assert result.exit_code == 2
    assert f"{unknown} is not in" in result.stderr
    assert not (tmp_path / "other").exists()


def test_nothing_of_a_damaged_backup_is_taken_in(data: Path, tmp_path: Path) -> None:
    invoke("backup", data, "--to", tmp_path / "out")
    one, other = sorted((tmp_path / "out").glob("*.automerge"))
    shutil.copy(one, other)

    result = invoke("restore", tmp_path / "out", "--to", tmp_path / "new")
    checked = invoke("restore", tmp_path / "out", "--check")

    assert (result.exit_code, checked.exit_code) == (1, 1)
    assert f"{other.stem} has other bytes than were saved" in result.stderr
    assert not (tmp_path / "new").exists()


def test_check_tells_what_is_in_it(data: Path, tmp_path: Path) -> None:
    invoke("backup", data, "--to", tmp_path / "out.tgz")

    result = invoke("restore", tmp_path / "out.tgz", "--check")

    assert result.exit_code == 0
    assert "2 documents" in result.stdout
    assert result.stdout.endswith("verified\n")


def test_a_document_of_which_a_part_is_lost(data: Path, tmp_path: Path) -> None:
    broken, whole = values(data)
    for path in (data / broken[:2] / broken[2:]).rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])

    result = invoke("backup", data, "--to", tmp_path / "out", "--json")

    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["documents"] == 1
    assert {each["document_id"] for each in said["problems"]} == {broken}
    restored = invoke("restore", tmp_path / "out", "--to", tmp_path / "new")
    assert restored.exit_code == 0
    assert f"Note: {broken}: not saved whole by the backup" in restored.stderr
    assert list(values(tmp_path / "new")) == [whole]


def test_a_directory_in_use_is_not_read(data: Path, tmp_path: Path) -> None:
    with Server(data_dir=data):
        result = invoke("backup", data, "--to", tmp_path / "out")

    assert result.exit_code == 1
    assert "is held by a server" in result.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out.tar").write_text("mine")

    result = invoke("backup", data, "--to", tmp_path / "out.tar")

    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert (tmp_path / "out.tar").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backup", "nowhere", "--to", "out"), "neither a directory nor"),
        (("backup", "out.tar", "--to", "out"), "neither a directory nor"),
        (("backup", "http://127.0.0.1:1", "--to", "out"), "--admin-token"),
        (("restore", "out.tar"), "either --to PLACE, or --check"),
        (("restore", "out.tar", "--to", "x", "--check"), "either --to PLACE, or --check"),
        (("restore", "nothing.tar", "--check"), "does not exist"),
    ],
)
def test_what_is_impossible(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.tar").write_text("text")

    result = invoke(*arguments)

    assert result.exit_code == 2
    assert said in result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["out.tar"]


@pytest.mark.parametrize(
    "place", ["localhost:3031", "htp://localhost:3031", "https:/localhost", "data/x:3031"]
)
def test_a_misspelt_url_makes_no_directory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    invoke("backup", data, "--to", tmp_path / "out")
    monkeypatch.chdir(tmp_path)

    result = invoke("restore", tmp_path / "out", "--to", place)

    assert result.exit_code == 2
    assert "neither a directory nor" in result.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "out"]


def test_the_scheme_of_a_url_may_be_in_capitals(data: Path, tmp_path: Path) -> None:
    result = invoke("backup", "HTTP://localhost:1", "--to", tmp_path / "out")

    assert result.exit_code == 2
    assert "give --admin-token" in result.stderr

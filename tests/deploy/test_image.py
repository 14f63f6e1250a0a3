"""The Dockerfile, as far as it can be judged without Docker; `make compose-test` runs it."""

import re
import tomllib

import pytest

from .files import ROOT, instructions, is_pinned


def argument(name: str) -> str:
    (value,) = re.findall(rf"^ARG {name}=(\S+)$", "\n".join(instructions()), re.MULTILINE)
    return str(value)


def final_stage() -> list[str]:
    every = instructions()
    last = max(at for at, line in enumerate(every) if line.startswith("FROM "))
    return every[last:]


def test_every_stage_starts_from_a_pinned_image() -> None:
    bases = [line.split()[1] for line in instructions() if line.startswith("FROM ")]

    assert len(bases) == 3
    for base in bases:
        assert is_pinned(argument(base.strip("${}"))), base


def test_base_images_are_new_enough_for_the_project() -> None:
    manifest = tomllib.loads((ROOT / "shared/native/Cargo.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def version(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", text)[:2])

    assert version(argument("RUST_IMAGE")) >= version(manifest["package"]["rust-version"])
    assert version(argument("PYTHON_IMAGE")) >= version(project["requires-python"])


def test_it_runs_as_a_user_without_rights_and_without_a_shell_in_between() -> None:
    stage = final_stage()

    users = [line for line in stage if line.startswith("USER ")]
    assert users == ["USER 10001:10001"]
    assert 'ENTRYPOINT ["amsync"]' in stage
    assert "STOPSIGNAL SIGTERM" in stage
    (check,) = [line for line in stage if line.startswith("HEALTHCHECK ")]
    assert check.endswith('CMD ["amsync", "health"]')


def test_its_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert argument("VERSION") == project["version"]


def test_the_image_lets_nobody_in_by_itself() -> None:
    assert not re.search("anonymous", " ".join(instructions()), re.IGNORECASE)


def test_the_classic_builder_understands_it() -> None:
    for line in instructions():
        assert not re.search(r"--(mount|link|chmod|security|network)\b|<<", line), line
    assert "# syntax=" not in (ROOT / "Dockerfile").read_text()


def test_dependencies_are_built_before_sources_are_copied() -> None:
    every = "\n".join(instructions())

    for slow, sources in [
        ("--out /tmp/empty", "COPY shared/native/src"),
        ("--out /tmp/engine", "COPY gateway"),
        ("-r requirements.txt", "COPY --from=wheel"),
    ]:
        assert 0 < every.index(slow) < every.index(sources)


@pytest.mark.parametrize(
    "source",
    sorted(
        source
        for line in instructions()
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    ),
)
def test_what_is_copied_exists_and_is_let_through(source: str) -> None:
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]

    assert (ROOT / source).exists()
    assert source.split("/")[0] in allowed

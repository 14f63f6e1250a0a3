"""The README's claims that can be checked: its Python snippet runs, its files exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None, language
    return found[1]


def test_python_snippet_runs_as_it_stands(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _block("python")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    url, value = ran.stdout.splitlines()
    assert url.startswith("ws://127.0.0.1:")
    assert value == "{'tags': ['a', 'b'], 'title': 'Hello'}"
    assert (tmp_path / "data").is_dir()


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"`((?:tests|docs)/[\w/.]+|[A-Z]+\.md)`", README))

    assert len(named) >= 8
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_test_that_the_security_documentation_names_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = sorted(set(re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text)))

    assert len(named) >= 20
    for path, name in named:
        assert (ROOT / path).exists(), path
        if name:
            assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text(), re.MULTILINE), (
                name
            )


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    for line in _block("sh").strip().splitlines():
        assert line.split()[:1] == ["make"]
        assert line.split()[1] in targets

"""The documentation's site builds strictly, and fetches nothing; Markdown outside of it holds too.

MkDocs itself judges links, anchors, the navigation and docstrings. That it does so is tested with
a copy that has one fault of each kind.
"""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = """\
# Faults

[no page](missing.md), [no heading](limits.md#missing), [none of this page](#missing),
[a path from the root](/limits.md), ![no picture](assets/missing.svg)
"""
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(
        [*command, "--config-file", str(config), "--site-dir", str(site)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("site") / "site"
    done = build(ROOT / "mkdocs.yml", path)
    assert done.returncode == 0, done.stderr
    return path


class Loads(HTMLParser):
    """What a page has its reader's browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag in LOADED and found.get("rel") != "canonical":
            self.addresses.append(found.get(LOADED[tag]) or "")


def test_site_builds_strictly_and_its_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))

    assert len(pages) >= 35
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert [each for each in loads.addresses if "//" in each] == [], page


def test_styles_load_nothing_from_elsewhere(site: Path) -> None:
    for sheet in site.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*[\"']?([^)\"';]*)", sheet.read_text())
        assert [each for each in found if "//" in each and "w3.org" not in each] == [], sheet


def test_public_names_of_the_package_are_all_on_the_page_of_the_python_api() -> None:
    import amsync

    page = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")

    shown = re.findall(r"^::: amsync\.(\w+)$", page, re.MULTILINE)

    assert sorted(shown) == sorted(set(amsync.__all__) - {"__version__"})


def test_broken_links_missing_pages_and_orphans_fail_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs/limits.md", docs)
    (docs / "index.md").write_text(FAULTS)
    (docs / "orphan.md").write_text("# Nobody leads here\n")
    settings, _, _ = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")
    settings = settings.replace("  - assets/site.css", "  []")
    settings, _, _ = settings.partition("  - mkdocstrings")
    nav = "nav: [index.md, limits.md, gone.md]\n"
    (tmp_path / "mkdocs.yml").write_text(f"{settings}\n{nav}")

    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")

    assert done.returncode != 0
    for words in (
        "link 'missing.md', but the target is not found",
        "does not contain an anchor '#missing'",
        "'#missing', but there is no such anchor on this page",
        "absolute link '/limits.md'",
        "link 'assets/missing.svg', but the target is not found",
        'not included in the "nav" configuration:\n  - orphan.md',
        "'gone.md' is included in the 'nav' configuration, which is not found",
    ):
        assert words in done.stderr, words


def test_options_of_the_configuration_reference_are_those_of_the_commands() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/configuration-docs.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


OUTSIDE = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_of_the_files_beside_the_site_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")

    targets = re.findall(r"\]\(([^)\s]+)\)", text)

    for target in targets:
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = ROOT / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown viewers and the site make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
        for heading in headings
    }


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.name)
def test_pages_lead_to_one_another_by_links(page: Path) -> None:
    """Instead of naming a file, as `docs/limits.md`, which no reader can follow."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)

    assert re.findall(r"`docs/[\w/.-]+\.md`", prose) == []

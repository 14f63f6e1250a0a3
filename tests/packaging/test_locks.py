"""The lock files pin everything, and name no address that something is downloaded from."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SERVERS = "shared/amsync/bench/servers"
JAVASCRIPT = ["tests/js", f"{SERVERS}/automerge-repo"]
RUST = [
    ("shared/native", "amsync-native"),
    ("tests/samod", "samod-driver"),
    (f"{SERVERS}/samod", "amsync-bench-samod"),
]


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def test_constraints_hold_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    pins = [line for line in lines if not line.startswith("#")]

    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.+]*", pin) for pin in pins)


def test_constraints_pin_every_package_that_the_project_names() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    extras = project()["optional-dependencies"].values()
    named = [*project()["dependencies"], *(one for extra in extras for one in extra)]

    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    wanted = {re.split(r"[^A-Za-z0-9_.-]", one)[0].lower().replace("_", "-") for one in named}

    assert wanted <= pinned


def javascript_lock(folder: str) -> dict[str, Any]:
    lock: dict[str, Any] = json.loads((ROOT / folder / "package-lock.json").read_text())
    return lock


@pytest.mark.parametrize("folder", JAVASCRIPT)
def test_javascript_lock_names_no_address_and_no_sponsor(folder: str) -> None:
    packages = javascript_lock(folder)["packages"]

    for name, found in packages.items():
        assert not {"resolved", "funding"} & set(found), name
    assert "://" not in (ROOT / folder / "package-lock.json").read_text()


@pytest.mark.parametrize("folder", JAVASCRIPT)
def test_javascript_lock_has_a_checksum_for_every_package(folder: str) -> None:
    packages = javascript_lock(folder)["packages"]

    assert [name for name, found in packages.items() if name and "integrity" not in found] == []


@pytest.mark.parametrize("folder", JAVASCRIPT)
def test_javascript_lock_has_the_packages_of_every_platform(folder: str) -> None:
    """Made beside a node_modules folder it would lack them, and `npm ci` would fail elsewhere."""
    packages = javascript_lock(folder)["packages"]

    named = {one for found in packages.values() for one in found.get("optionalDependencies", ())}

    assert named
    assert {f"node_modules/{one}" for one in named} <= set(packages)


@pytest.mark.parametrize("folder", JAVASCRIPT)
def test_javascript_lock_belongs_to_the_package_file(folder: str) -> None:
    wanted = json.loads((ROOT / folder / "package.json").read_text())

    assert javascript_lock(folder)["packages"][""]["dependencies"] == wanted["dependencies"]


def test_npm_is_told_to_record_no_addresses() -> None:
    for folder in (ROOT, ROOT / "tests" / "js"):
        assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text()


@pytest.mark.parametrize(("folder", "own"), RUST)
def test_rust_lock_takes_every_package_from_the_one_registry(folder: str, own: str) -> None:
    packages = tomllib.loads((ROOT / folder / "Cargo.lock").read_text())["package"]

    outside = [package for package in packages if package["name"] != own]

    assert len({package["source"] for package in outside}) == 1
    assert all("checksum" in package for package in outside)

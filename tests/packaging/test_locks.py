"""The lock files pin everything, and name no address that something is downloaded from."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
JAVASCRIPT = ROOT / "tests" / "js"
RUST = [("shared/native", "amsync-native"), ("tests/samod", "samod-driver")]


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


def test_javascript_lock_names_no_address_and_no_sponsor() -> None:
    packages = json.loads((JAVASCRIPT / "package-lock.json").read_text())["packages"]

    for name, found in packages.items():
        assert not {"resolved", "funding"} & set(found), name
    assert "://" not in (JAVASCRIPT / "package-lock.json").read_text()


def test_javascript_lock_has_a_checksum_for_every_package() -> None:
    packages = json.loads((JAVASCRIPT / "package-lock.json").read_text())["packages"]

    assert [name for name, found in packages.items() if name and "integrity" not in found] == []


def test_javascript_lock_has_the_packages_of_every_platform() -> None:
    """Made beside a node_modules folder it would lack them, and `npm ci` would fail elsewhere."""
    packages = json.loads((JAVASCRIPT / "package-lock.json").read_text())["packages"]

    named = {one for found in packages.values() for one in found.get("optionalDependencies", ())}

    assert named
    assert {f"node_modules/{one}" for one in named} <= set(packages)


def test_javascript_lock_belongs_to_the_package_file() -> None:
    wanted = json.loads((JAVASCRIPT / "package.json").read_text())
    lock = json.loads((JAVASCRIPT / "package-lock.json").read_text())

    assert lock["packages"][""]["dependencies"] == wanted["dependencies"]


def test_npm_is_told_to_record_no_addresses() -> None:
    for folder in (ROOT, JAVASCRIPT):
        assert "omit-lockfile-registry-resolved=true" in (folder / ".npmrc").read_text()


@pytest.mark.parametrize(("folder", "own"), RUST)
def test_rust_lock_takes_every_package_from_the_one_registry(folder: str, own: str) -> None:
    packages = tomllib.loads((ROOT / folder / "Cargo.lock").read_text())["package"]

    outside = [package for package in packages if package["name"] != own]

    assert len({package["source"] for package in outside}) == 1
    assert all("checksum" in package for package in outside)

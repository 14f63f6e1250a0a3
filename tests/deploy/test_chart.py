"""The chart's own files, as far as they can be judged without helm."""

import copy
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from amsync.cli.options import SECRETS

from .chart import CHART, VALUE_SETS, values
from .files import ROOT, is_pinned

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def merged(name: str) -> dict[str, Any]:
    """A set of values over the defaults, as helm does it."""

    def over(below: Any, above: Any) -> Any:
        if not isinstance(below, dict) or not isinstance(above, dict):
            return above
        return {**below, **{key: over(below.get(key), value) for key, value in above.items()}}

    result: dict[str, Any] = over(values(), values(name))
    return result


def maps(node: Any, schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all maps of the values whose keys the schema knows."""
    schema = SCHEMA["definitions"][schema["$ref"].split("/")[-1]] if "$ref" in schema else schema
    if isinstance(node, dict) and "properties" in schema:
        yield path
        for key, value in node.items():
            yield from maps(value, schema["properties"][key], (*path, key))


@pytest.mark.parametrize("name", VALUE_SETS)
def test_values_satisfy_the_schema(name: str) -> None:
    VALIDATOR.validate(merged(name))


def test_the_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_a_key_that_is_not_known_is_refused_wherever_it_stands() -> None:
    paths = list(maps(values(), SCHEMA))

    assert len(paths) >= 30
    for path in paths:
        wrong = copy.deepcopy(values())
        place = wrong
        for key in path:
            place = place[key]
        place["misspelt"] = 1
        assert not VALIDATOR.is_valid(wrong), path


def test_every_known_key_has_a_default() -> None:
    for path in maps(values(), SCHEMA):
        schema, place = SCHEMA, values()
        for key in path:
            schema, place = schema["properties"][key], place[key]
            if "$ref" in schema:
                schema = SCHEMA["definitions"][schema["$ref"].split("/")[-1]]
        free = {"global", "claims", "scaleUp"} | (
            set(schema["properties"]) if path[-1:] == ("options",) else set()
        )
        assert set(schema["properties"]) - free == set(place) - free, path


@pytest.mark.parametrize(
    "change",
    [
        {"gateway": {"replicas": "two"}},
        {"gateway": {"options": {"max-conections": 1}}},
        {"gateway": {"options": {"allow-anonymous": True}}},
        {"gateway": {"options": {"admin-token": "0123456789abcdef"}}},
        {"worker": {"options": {"data-dir": "/elsewhere"}}},
        {"worker": {"persistence": {"accessMode": "ReadOnlyMany"}}},
        {"redis": {"url": "localhost:6379"}},
        {"auth": {"issuer": "http://login.example.org"}},
        {"service": {"type": "ExternalName"}},
        {"image": {"digest": "sha256:12"}},
        {"tls": {"minimumVersion": "TLSv1.1"}},
    ],
    ids=json.dumps,
)
def test_a_value_that_can_not_work_is_refused(change: dict[str, Any]) -> None:
    wrong = copy.deepcopy(values())
    for section, entries in change.items():
        for key, value in entries.items():
            known = wrong[section][key]
            wrong[section][key] = {**known, **value} if isinstance(value, dict) else value

    assert not VALIDATOR.is_valid(wrong)


def test_what_is_secret_can_not_be_written_into_a_value() -> None:
    for component in ("gateway", "worker"):
        plain = SCHEMA["definitions"][f"{component}Options"]["properties"]
        assert not {name.replace("_", "-") for name in SECRETS} & set(plain)


def test_readme_options_and_dashboard_are_in_step() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/helm-docs.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_every_value_is_described_in_the_readme() -> None:
    text = (CHART / "README.md").read_text()
    described = re.findall(r"^\| `([A-Za-z.]+)` \|", text, re.MULTILINE)

    def leaves(node: Any, path: str) -> Iterator[str]:
        if path in described or not isinstance(node, dict):
            yield path
        else:
            for key, value in node.items():
                yield from leaves(value, f"{path}.{key}".lstrip("."))

    assert sorted(described) == sorted(leaves(values(), ""))


def test_its_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert chart["version"] == chart["appVersion"] == project["version"]
    assert chart["name"] == CHART.name


def test_other_images_are_pinned() -> None:
    image = values()["valkey"]["image"]

    assert is_pinned(f"{image['repository']}:{image['tag']}")


def test_strangers_come_in_by_a_value_that_says_so_and_no_further_than_the_cluster() -> None:
    auth, service = values()["auth"], values()["service"]

    assert (auth["enabled"], auth["allowAnonymous"], auth["exposeAnonymous"]) == (
        False,
        True,
        False,
    )
    assert service["type"] == "ClusterIP"
    assert not values()["ingress"]["enabled"]
    assert not values()["route"]["enabled"]

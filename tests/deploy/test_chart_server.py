"""What an API server says to the chart: it knows more than schemas do."""

import json
from typing import Any

import pytest
import yaml

from .chart import CUSTOM, VALUE_SETS, resources, run

pytestmark = pytest.mark.kubernetes


def applied(everything: list[dict[str, Any]], check: bool = True) -> str:
    done = run(
        *("kubectl", "apply", "--dry-run=server", "--validate=strict", "--output=json", "-f", "-"),
        check=check,
        text=yaml.safe_dump_all(everything),
    )
    return done.stdout if check else done.stderr


def known() -> set[str]:
    """Custom kinds that the server has been brought."""
    said = run("kubectl", "api-resources", "--no-headers").stdout
    return {line.split()[-1] for line in said.splitlines()} & set(CUSTOM)


def of(name: str) -> list[dict[str, Any]]:
    """What can be tried here: in a namespace, and for a ServiceAccount, that exist."""
    has = known()
    found = [each for each in resources(name) if each["kind"] not in CUSTOM or each["kind"] in has]
    for each in found:
        each["metadata"]["namespace"] = "default"
        if each["kind"] == "Pod":
            each["spec"]["serviceAccountName"] = "default"
    return found


@pytest.mark.parametrize("name", VALUE_SETS)
def test_it_is_accepted_as_it_is(name: str) -> None:
    wanted = of(name)

    items = json.loads(applied(wanted))["items"]

    assert len(items) == len(wanted) >= 6


def test_a_field_of_the_wrong_kind_would_be_seen() -> None:
    wanted = of("default")
    (gateway,) = [each for each in wanted if str(each["metadata"]["name"]).endswith("-gateway")]
    gateway["spec"]["replicas"] = "many"

    assert "replicas" in applied(wanted, check=False)

"""Grafana's dashboard asks for metrics that exist, by the names that Prometheus gives them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from amsync.metrics import Metrics
from support.exposition import documented, promtool

from .files import DOCKER

GRAFANA = DOCKER / "grafana"
SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "info": ("_info",),
}


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GRAFANA / "dashboards/amsync.json").read_text())
    return content


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def exposed() -> set[str]:
    """Names of all samples that a process of ours may show."""
    return {
        family.name + suffix
        for family in Metrics().registry.collect()
        for suffix in SUFFIXES[family.type]
    }


def unknown(asked: Iterable[str]) -> set[str]:
    return {name for each in asked for name in re.findall(r"\bamsync_\w+", each)} - exposed()


def test_every_metric_that_is_asked_for_exists() -> None:
    assert len(expressions()) >= 20
    assert unknown(expressions()) == set()


@pytest.mark.parametrize(
    "expression",
    ["sum(amsync_connection)", "rate(amsync_messages[1m])", "amsync_commit_seconds"],
    ids=["misspelt", "counter without _total", "histogram without _bucket"],
)
def test_a_wrong_name_would_be_seen(expression: str) -> None:
    assert unknown([expression])


def test_promtool_accepts_every_query(tmp_path: Path) -> None:
    rules = [
        {"record": f"query:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"{len(rules)} rules found" in promtool("check", "rules", "--lint=none", str(path))


@pytest.mark.parametrize("expression", expressions())
def test_queries_keep_labels_that_their_metrics_have(expression: str) -> None:
    names = re.findall(r"\b(amsync_\w+?)(?:_bucket|_sum|_count)?\b", expression)
    known = [row.labels for name in names if (row := documented().get(name)) is not None]
    has = {"job", "instance", "le"}.union(*(labels for labels in known if labels is not None))
    kept = {
        label for by in re.findall(r"\bby \(([\w, ]+)\)", expression) for label in by.split(", ")
    }

    assert kept <= has


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_labels_of_a_legend_are_those_of_the_expression(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        by = re.search(r"\bby \(([\w, ]+)\)", target["expr"])
        kept = set(by[1].split(", ")) if by else {"job", "instance"}
        assert wanted <= kept, target


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    every = dashboard()["panels"]
    covered = [
        (x, y)
        for panel in every
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in every}) == len(every)
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) < 24


def test_grafana_is_given_the_data_source_and_the_folder_that_are_used() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/amsync.yml").read_text())

    uids = {source["uid"] for source in sources["datasources"]}
    (provider,) = providers["providers"]

    assert {panel["datasource"]["uid"] for panel in panels()} == uids
    assert provider["options"]["path"] == "/etc/grafana/dashboards"

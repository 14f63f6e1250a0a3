"""docs/metrics.md lists every metric, and nothing else; see also tests/cluster/test_metrics.py."""

import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

import amsync
from amsync.metrics import Metrics
from support.exposition import (
    check_exposition,
    counted_events,
    differences,
    documented,
    documented_events,
    exposed,
    promtool,
)
from support.rawclient import RawClient


def test_the_table_lists_what_is_declared() -> None:
    declared = {
        each.name: (each.type, frozenset(each.labels), frozenset(each.kinds))
        for each in Metrics().declared
    }
    listed = {
        name: (row.type, row.labels, row.kinds)
        for name, row in documented().items()
        if not name.startswith("process_")
    }

    assert listed == declared


def test_each_event_is_in_a_table_and_each_of_a_table_is_counted() -> None:
    own = Metrics().own_events

    assert documented_events() == counted_events() - own
    assert own <= counted_events()


def test_the_table_lists_what_the_library_says_of_a_process() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    suffix = {"counter": "_total", "gauge": ""}

    assert {name for name in documented() if name.startswith("process_")} == {
        family.name + suffix[family.type] for family in registry.collect()
    }


def test_an_embedded_server_exposes_what_the_table_says(tmp_path: Path) -> None:
    with amsync.Server(data_dir=tmp_path, port=0, admin_port=0) as server:
        server.create_document(data={"a": 1})
        with RawClient(server.url) as client:
            client.join()
            check_exposition(server.admin_url, "embedded")


@pytest.mark.parametrize("kind", ["gateway", "worker"])
def test_a_metric_too_many_and_one_too_few_would_be_seen(kind: str) -> None:
    metrics = Metrics(kind)  # type: ignore[arg-type]
    metrics.build.info({"version": "1", "automerge": "2"})
    text = metrics.exposition()[0].decode()
    assert differences(text, kind) == set()

    metrics.events.inc("a", "b")
    renamed = metrics.exposition()[0].decode().replace("event=", "what=")
    fewer = text.replace("amsync_loop_lag_seconds", "amsync_loop_lag")

    assert differences(renamed, kind) == {"amsync_events_total"}
    assert differences(fewer, kind) == {"amsync_loop_lag_seconds", "amsync_loop_lag"}


def test_promtool_would_complain() -> None:
    with pytest.raises(AssertionError, match="help"):
        promtool("check", "metrics", text="amsync_nameless 1\n")


def test_a_process_exposes_nothing_of_what_it_has_not() -> None:
    gateway = exposed(Metrics("gateway").exposition()[0].decode())

    assert "amsync_connections" in gateway
    assert "amsync_volume_writable" not in gateway


def test_an_event_has_a_metric_of_its_own_or_is_one_of_the_rare_ones() -> None:
    metrics = Metrics()

    metrics.count("gaps", "inbound")
    metrics.count("documents_lost")
    metrics.count("seldom_seen", "somewhere")
    metrics.count("seldom_seen")

    value = metrics.registry.get_sample_value
    assert value("amsync_gaps_total", {"direction": "inbound"}) == 1
    assert value("amsync_documents_lost_total") == 1
    assert value("amsync_events_total", {"event": "seldom_seen", "label": "somewhere"}) == 1
    assert value("amsync_events_total", {"event": "seldom_seen", "label": ""}) == 1


def test_an_event_that_lacks_its_label_or_has_one_too_many_is_counted_all_the_same() -> None:
    metrics = Metrics()

    metrics.count("gaps")
    metrics.count("documents_lost", "all")

    assert metrics.registry.get_sample_value("amsync_gaps_total", {"direction": ""}) == 1
    assert metrics.registry.get_sample_value("amsync_documents_lost_total") == 1


def test_a_label_with_too_many_values_ends_in_other() -> None:
    metrics = Metrics()

    for number in range(1000):
        metrics.refusals.inc(f"reason {number}")

    samples = exposed_samples(metrics, "amsync_refusals")
    assert len(samples) <= 401
    assert samples["other"] == 600


def exposed_samples(metrics: Metrics, name: str) -> dict[str, float]:
    (family,) = [each for each in metrics.registry.collect() if each.name == name]
    return {
        next(iter(sample.labels.values())): sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and not math.isnan(sample.value)
    }

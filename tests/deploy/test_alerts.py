"""Alerts: each fires when it should and not otherwise, asks for what exists, and has a runbook.

`promtool test rules` runs them over made-up series: one minute between samples, looked at after
an hour, each case in a namespace of its own.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.exposition import documented, promtool

from .chart import CHART
from .files import DOCKER, ROOT, services
from .test_dashboard import unknown

RULES = CHART / "files/alerts.yaml"
RUNBOOKS = ROOT / "docs/runbooks.md"
WHERE = 'namespace="n",instance="i"'
PARTS = ("**It means**", "**Clients notice**", "**Look first**", "**Do**", "**Worry when**")


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


@dataclass(frozen=True)
class Case:
    """Series, as name{labels}: values, with which only this alert fires; and with which none."""

    alert: str
    fires: dict[str, str]
    quiet: dict[str, str]


def steady(value: float) -> str:
    return f"{value}+0x60"


def growing(by: float) -> str:
    return f"0+{by}x60"


def slow(name: str, slow_per_minute: int) -> dict[str, str]:
    """A histogram: so many of a hundred each minute take between 2.5 and 5 s, others nothing."""
    return {
        f'{name}_bucket{{le="0.005",{WHERE}}}': growing(100 - slow_per_minute),
        f'{name}_bucket{{le="2.5",{WHERE}}}': growing(100 - slow_per_minute),
        f'{name}_bucket{{le="5",{WHERE}}}': growing(100),
        f'{name}_bucket{{le="+Inf",{WHERE}}}': growing(100),
    }


def gauge(alert: str, name: str, bad: float, good: float) -> Case:
    """An alert on one gauge."""
    return Case(alert, {f"{name}{{{WHERE}}}": steady(bad)}, {f"{name}{{{WHERE}}}": steady(good)})


def counted(alert: str, series: str, bad: float, good: float) -> Case:
    """An alert on the growth of one counter, per minute."""
    return Case(alert, {series: growing(bad)}, {series: growing(good)})


def ratio(alert: str, part: str, whole: str, bad: float, good: float) -> Case:
    """An alert on a part of 1000."""
    (a, b), total = (f"{part}{{{WHERE}}}", f"{whole}{{{WHERE}}}"), steady(1000)
    return Case(alert, {a: steady(bad), b: total}, {a: steady(good), b: total})


def ups(gateways: int, workers: int) -> dict[str, str]:
    return {
        'up{job="gateway",namespace="n"}': steady(gateways),
        'up{job="worker",namespace="n"}': steady(workers),
    }


def shards(owned: int) -> dict[str, str]:
    return {
        'amsync_shards{namespace="n",instance="a"}': steady(64),
        'amsync_shards{namespace="n",instance="b"}': steady(64),
        'amsync_shards_owned{namespace="n",instance="a"}': steady(30),
        'amsync_shards_owned{namespace="n",instance="b"}': steady(owned),
    }


def tokens(refused: float, accepted: float) -> dict[str, str]:
    return {
        f'amsync_build_info{{version="1",{WHERE}}}': steady(1),
        f'amsync_auth_refused_total{{reason="expired",{WHERE}}}': growing(refused),
        f'amsync_auth_accepted_total{{algorithm="RS256",{WHERE}}}': growing(accepted),
    }


def fetches(good: float, bad: float) -> dict[str, str]:
    return {
        f'amsync_auth_key_fetches_total{{result="ok",{WHERE}}}': growing(good),
        f'amsync_auth_key_fetches_total{{result="timeout",{WHERE}}}': growing(bad),
    }


def clients(connections: int, accepted_per_minute: int) -> dict[str, str]:
    return {
        f"amsync_connections{{{WHERE}}}": steady(connections),
        f'amsync_handshakes_total{{result="accepted",{WHERE}}}': growing(accepted_per_minute),
    }


DAY = 86400.0
CASES = [
    Case("AmsyncNoWorker", ups(2, 0), ups(2, 1)),
    Case("AmsyncNoGateway", ups(0, 1), ups(1, 1)),
    Case("AmsyncShardsWithoutOwner", shards(33), shards(34)),
    gauge("AmsyncVolumeNotWritable", "amsync_volume_writable", 0, 1),
    gauge("AmsyncUnsavedChanges", "amsync_oldest_unsaved_change_seconds", 31, 2),
    gauge("AmsyncBusAway", "amsync_bus_connected", 0, 1),
    gauge("AmsyncRedisEvicts", "amsync_redis_keeps_entries", 0, 1),
    ratio("AmsyncDiskAlmostFull", "amsync_volume_free_bytes", "amsync_volume_size_bytes", 49, 200),
    ratio("AmsyncDiskLow", "amsync_volume_free_bytes", "amsync_volume_size_bytes", 149, 151),
    ratio("AmsyncInodesLow", "amsync_volume_free_inodes", "amsync_volume_inodes", 99, 101),
    ratio(
        "AmsyncRedisMemory",
        "amsync_redis_memory_used_bytes",
        "amsync_redis_memory_max_bytes",
        810,
        790,
    ),
    Case(
        "AmsyncFilesLow",
        {
            f'process_open_fds{{job="j",{WHERE}}}': steady(900),
            f'process_max_fds{{job="j",{WHERE}}}': steady(1000),
            f'amsync_build_info{{version="1",job="j",{WHERE}}}': steady(1),
        },
        {
            f'process_open_fds{{job="something else",{WHERE}}}': steady(900),
            f'process_max_fds{{job="something else",{WHERE}}}': steady(1000),
        },
    ),
    gauge("AmsyncLag", "amsync_lag_seconds", 6, 1),
    Case(
        "AmsyncUpdatesSlow",
        slow("amsync_edit_to_peer_seconds", 2),
        slow("amsync_edit_to_peer_seconds", 0),
    ),
    Case("AmsyncFsyncSlow", slow("amsync_fsync_seconds", 2), slow("amsync_fsync_seconds", 0)),
    Case("AmsyncCommitsSlow", slow("amsync_commit_seconds", 2), slow("amsync_commit_seconds", 0)),
    Case(
        "AmsyncProcessBusy",
        slow("amsync_loop_lag_seconds", 12),
        slow("amsync_loop_lag_seconds", 2),
    ),
    Case("AmsyncReconnects", clients(200, 100), clients(200, 50)),
    Case("AmsyncAuthFailures", tokens(10, 9), tokens(10, 11)),
    Case("AmsyncAuthKeysStale", fetches(0, 1), fetches(1, 1)),
    counted(
        "AmsyncAccessUndecided",
        f'amsync_access_failures_total{{source="access_webhook",reason="tls",{WHERE}}}',
        2,
        0.5,
    ),
    gauge(
        "AmsyncCertificateExpires",
        "amsync_tls_certificate_expires_timestamp_seconds",
        13 * DAY,
        15 * DAY,
    ),
    gauge("AmsyncDamageOnVolume", "amsync_quarantined_files", 1, 0),
    counted(
        "AmsyncStorageErrors", f'amsync_storage_errors_total{{operation="load",{WHERE}}}', 1, 0
    ),
    counted(
        "AmsyncInternalErrors", f'amsync_internal_errors_total{{where="deliver",{WHERE}}}', 1, 0
    ),
    counted("AmsyncLeasesLost", f'amsync_lease_renewals_total{{result="lost",{WHERE}}}', 1, 0),
    counted("AmsyncEntriesMissing", f'amsync_gaps_total{{direction="inbound",{WHERE}}}', 1, 0),
    # What says nothing of one alone.
    Case(
        "AmsyncShardsWithoutOwner",
        {'amsync_shards{namespace="n"}': steady(64), 'amsync_shards_owned{namespace="n"}': "0x60"},
        {  # two embedded servers
            'amsync_shards{namespace="n",instance="a"}': steady(64),
            'amsync_shards{namespace="n",instance="b"}': steady(64),
            'amsync_shards_owned{namespace="n",instance="a"}': steady(64),
            'amsync_shards_owned{namespace="n",instance="b"}': steady(64),
        },
    ),
    ratio(
        "AmsyncRedisMemory",
        "amsync_redis_memory_used_bytes",
        "amsync_redis_memory_max_bytes",
        900,
        0,
    ),
    Case(
        "AmsyncInternalErrors",
        {f'amsync_engine_broken_total{{error="EngineBroken",{WHERE}}}': growing(1)},
        {  # no bound of inodes, no maxmemory, no certificate, Redis that says nothing
            f"amsync_volume_inodes{{{WHERE}}}": steady(0),
            f"amsync_volume_free_inodes{{{WHERE}}}": steady(0),
            f"amsync_redis_memory_used_bytes{{{WHERE}}}": steady(1000),
            f"amsync_redis_memory_max_bytes{{{WHERE}}}": steady(0),
            f"amsync_tls_certificate_expires_timestamp_seconds{{{WHERE}}}": steady(0),
            f"amsync_redis_keeps_entries{{{WHERE}}}": " ".join(["NaN"] * 61),
            f'amsync_lease_renewals_total{{result="kept",{WHERE}}}': growing(64),
        },
    ),
    Case(
        "AmsyncAuthFailures",
        {
            f'amsync_build_info{{version="1",{WHERE}}}': steady(1),
            f'amsync_auth_refused_total{{reason="expired",{WHERE}}}': growing(10),
        },
        {f'amsync_auth_refused_total{{reason="expired",{WHERE}}}': growing(1)},
    ),
    Case("AmsyncReconnects", clients(0, 20), clients(1, 5)),
    Case(
        "AmsyncLeasesLost",
        {f'amsync_lease_renewals_total{{result="lost",{WHERE}}}': growing(1)},
        {f'amsync_lease_renewals_total{{result="lost",{WHERE}}}': "0x30 64+0x30"},  # once
    ),
]


def run_rules(directory: Path, *namespaces: tuple[dict[str, str], list[str]]) -> None:
    """Each has series and the alerts that must fire for them, in a namespace of its own."""
    series, samples = [], []
    for number, (each, firing) in enumerate(namespaces):
        series += [
            {"series": name.replace('namespace="n"', f'namespace="{number}"'), "values": text}
            for name, text in each.items()
        ]
        samples += [
            {"labels": f'{{alertname="{name}",namespace="{number}"}}', "value": 1}
            for name in firing
        ]
    test = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, namespace) (ALERTS{alertstate="firing"})',
                "eval_time": "60m",
                "exp_samples": samples,
            }
        ],
    }
    path = directory / "tests.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [test]}))
    promtool("test", "rules", str(path))


def test_each_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    assert {case.alert for case in CASES} == {rule["alert"] for rule in alerts()}

    run_rules(
        tmp_path,
        *((case.fires, [case.alert]) for case in CASES),
        *((case.quiet, []) for case in CASES),
    )


def test_an_alert_that_does_not_fire_would_be_seen(tmp_path: Path) -> None:
    good = {f"amsync_bus_connected{{{WHERE}}}": steady(1)}

    with pytest.raises(AssertionError, match="AmsyncBusAway"):
        run_rules(tmp_path, (good, ["AmsyncBusAway"]))


def test_promtool_accepts_the_rules_and_prometheus_is_given_them() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))

    (mount,) = [each for each in services()["prometheus"]["volumes"] if "alerts" in each]
    source, target, mode = mount.split(":")
    configuration = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    assert (ROOT / source).resolve() == RULES
    assert configuration["rule_files"] == [target]
    assert mode == "ro"


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    text = (DOCKER / "prometheus.yml").read_text()
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus/alerts.yaml", str(RULES)))

    assert "SUCCESS" in promtool("check", "config", str(path))


def test_alerts_ask_for_metrics_that_exist() -> None:
    assert len(alerts()) >= 25
    assert unknown(rule["expr"] for rule in alerts()) == set()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_that_is_and_where_to_read_on(
    rule: dict[str, Any],
) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["description"]))
    kept = re.findall(r"\bby \(([\w, ]+)\)", rule["expr"]) or ["namespace, instance"]
    assert used <= {label for each in kept for label in each.split(", ")}


def runbooks() -> dict[str, str]:
    """Sections by their headings."""
    parts = re.split(r"^## (.+)$", RUNBOOKS.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_each_alert_has_a_runbook_and_each_runbook_an_alert() -> None:
    assert [name for name in runbooks() if name.startswith("Amsync")] == [
        rule["alert"] for rule in alerts()
    ]


@pytest.mark.parametrize("name", [name for name in runbooks() if name.startswith("Amsync")])
def test_a_runbook_says_it_all_in_this_order(name: str) -> None:
    places = [runbooks()[name].find(part) for part in PARTS]

    assert -1 not in places
    assert places == sorted(places)
    assert set(re.findall(r"\bamsync_\w+", runbooks()[name])) <= documented().keys()

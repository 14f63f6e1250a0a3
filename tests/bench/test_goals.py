"""What is said about a cluster's figures, and when Redis counts as growing."""

import pytest

from amsync.bench.goals import verdicts
from amsync.bench.results import Results, Row
from amsync.bench.workloads.bounded import SLACK_BYTES, growth, keeps

MIB = 1024 * 1024
COST = "cpu_per_delivery_seconds"


def row(server: str, cpu: float, gateway: float, worker: float, p50: float) -> Row:
    scale = max(map(int, server[-3:].split("x")))
    figures = {COST: cpu, "p50_seconds": p50, "delivered_changes": 100.0 * scale}
    figures |= {f"gateway_{COST}": gateway, f"worker_{COST}": worker}
    return Row("case", "title", server, COST, figures=figures)


def test_every_shape_is_held_against_its_goal() -> None:
    one = row("amsync-cluster-1x1", 150e-6, 50e-6, 80e-6, 0.004)
    one.figures["worker_memory_per_connection_bytes"] = 8192
    rows = [
        Row("case", "title", "amsync", COST, figures={COST: 100e-6, "p50_seconds": 0.002}),
        one,
        row("amsync-cluster-2x1", 160e-6, 54e-6, 80e-6, 0.004),
        row("amsync-cluster-1x4", 160e-6, 50e-6, 100e-6, 0.004),
    ]

    said = [str(verdict) for verdict in verdicts(Results({}, [], {}, rows))]

    assert said == [
        "case: CPU per delivery, amsync-cluster-1x1 : amsync: 1.50, at most 2.00: reached",
        "case: median latency that a cluster adds: 2 ms, at most 3 ms: reached",
        "case: gateway CPU per delivery, amsync-cluster-2x1 : amsync-cluster-1x1: 1.08,"
        " at most 1.10: reached",
        "case: worker CPU per delivery, amsync-cluster-1x4 : amsync-cluster-1x1: 1.25,"
        " at most 1.10: NOT REACHED",
        "case: memory of a worker: 8 KiB, at most 4 KiB: NOT REACHED",
    ]


def test_several_processes_with_the_load_of_one_are_not_judged() -> None:
    one, two = row("amsync-cluster-1x1", 1, 1, 1, 1), row("amsync-cluster-2x1", 9, 9, 9, 9)
    two.figures["delivered_changes"] = one.figures["delivered_changes"]

    assert list(verdicts(Results({}, [], {}, [one, two]))) == []


def test_a_wrong_row_has_no_verdict() -> None:
    one, two = row("amsync-cluster-1x1", 1, 1, 1, 1), row("amsync-cluster-2x1", 9, 9, 9, 9)
    two.wrong = ["client 3: 1 of 2 changes"]

    assert list(verdicts(Results({}, [], {}, [one, two]))) == []


@pytest.mark.parametrize(
    ("kept_share", "sent_bytes", "is_found"),
    [(0.0, 10 * MIB, False), (0.1, 10 * MIB, False), (1.0, 10 * MIB, True), (1.0, MIB, False)],
)
def test_a_redis_that_keeps_what_was_sent_is_found(
    kept_share: float, sent_bytes: int, is_found: bool
) -> None:
    sizes = [8 * MIB + round(kept_share * sent_bytes * at / 20) for at in range(20)]

    assert keeps(sizes, sent_bytes) is is_found


def test_what_redis_takes_at_once_and_keeps_is_no_growth() -> None:
    sizes = [8 * MIB] * 4 + [12 * MIB] * 16
    sizes[17] = 40 * MIB  # a rewrite of its file

    assert growth(sizes) == 0
    assert not keeps(sizes, SLACK_BYTES)

"""What people and programs are told of a run."""

import json
from pathlib import Path

import pytest

from amsync.bench import table
from amsync.bench.errors import BenchError
from amsync.bench.results import Results, Row, read
from cli.running import invoke

MACHINE = {
    "at": "2026-11-26T00:00:00+00:00",
    "processor": "P",
    "cores": 2,
    "system": "Linux",
    "kernel": "6",
    "python": "3.11",
}


def results() -> Results:
    cost, rate = "cpu_per_delivery_seconds", "held_per_second"
    return Results(
        MACHINE,
        ["bench", "--compare"],
        {"amsync": "0.1.0", "automerge-repo": "2.5.6"},
        [
            Row("a", "costs", "amsync", cost, figures={cost: 25e-6, "p50_seconds": 0.002}),
            Row("a", "costs", "automerge-repo", cost, figures={cost: 1.5e-3}, notes=["slow"]),
            Row("b", "rate", "amsync", rate, True, figures={rate: 1340.0}),
            Row("b", "rate", "automerge-repo", rate, True, figures={rate: 134.0}),
            Row("c", "lost", "amsync", cost, figures={cost: 1e-3}),
            Row("c", "lost", "automerge-repo", cost, wrong=["client 3: 1 of 2 changes"]),
            Row("d", "alone", "amsync", "memory_bytes", figures={"memory_bytes": 3 << 20}),
        ],
    )


def test_the_comparison_says_how_often_the_first_server_is_better() -> None:
    lines = table.comparison(results())

    assert lines == [
        ["what is measured", "amsync", "automerge-repo", "automerge-repo : amsync"],
        ["costs", "25 us", "1.5 ms *", "60 x"],
        ["rate", "1,340/s", "134/s", "10 x"],
        ["lost", "1 ms", "WRONG *", ""],
        ["alone", "3 MiB", "", ""],
    ]


def test_notes_and_wrong_deliveries_stand_below_the_table() -> None:
    text = table.text(results())

    assert text.endswith("* a, automerge-repo: slow\n* c, automerge-repo: client 3: 1 of 2 changes")


def test_details_show_latencies_and_notes() -> None:
    rows = results().rows

    assert list(table.detail(rows[0])) == ["  amsync: 25 us  (p50 2 ms)"]
    assert list(table.detail(rows[1])) == ["  automerge-repo: 1.5 ms", "    slow"]
    assert next(iter(table.detail(rows[5]))) == "  automerge-repo: WRONG"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("wall_seconds", 1.5, "1.5 s"),
        ("wall_seconds", 0.0, "0 us"),
        ("memory_bytes", 1536, "1.5 KiB"),
        ("memory_bytes", -5, "-5 B"),
        ("busy_share", 0.5, "50%"),
        ("held_per_second", 1340, "1,340/s"),
        ("p50_per_fsync_ratio", 1.25, "1.25"),
        ("delivered_changes", 12345, "12,345"),
    ],
)
def test_a_figure_has_the_unit_that_ends_its_name(name: str, value: float, shown: str) -> None:
    assert table.show(value, name) == shown


def test_results_are_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    results().write(file)

    assert read(file) == results()
    assert json.loads(file.read_text())["format"] == 1


def test_a_file_is_rendered_as_markdown(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    results().write(file)

    rendered = invoke("bench", "--render", file)

    assert rendered.exit_code == 0
    assert rendered.output == table.markdown(results())
    assert "| costs | 25 us | 1.5 ms * | 60 x |" in rendered.output
    assert "amsync 0.1.0, automerge-repo 2.5.6; P, 2 cores" in rendered.output


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "rows": 3}'])
def test_another_file_is_not_rendered(tmp_path: Path, content: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(content)

    with pytest.raises(BenchError, match="no results of amsync bench"):
        read(file)

    assert invoke("bench", "--render", file).exit_code == 2

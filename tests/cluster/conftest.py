"""Time for processes to start, and what they have said when a test fails."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TAIL_CHARACTERS = 6000
TIMEOUT_SECONDS = 300
"""Many processes on a machine that does other things too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and directory is not None:
        for log in sorted(directory.glob("*.log")):
            tail = log.read_text(errors="replace")[-TAIL_CHARACTERS:]
            if tail:
                report.sections.append((log.name, tail))

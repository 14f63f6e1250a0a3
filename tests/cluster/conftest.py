"""Shows with a failure what the processes of the cluster have said."""

from collections.abc import Iterator
from typing import Any

import pytest

TAIL_CHARACTERS = 6000


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

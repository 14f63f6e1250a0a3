import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet_logging() -> Iterator[None]:
    """The command configures logging of its process; this process is pytest's."""
    logger = logging.getLogger("amsync")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before[0], before[1], before[2]

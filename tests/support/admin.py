"""What an operator reads on the admin port."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

SECONDS = 20.0

_SAMPLE = re.compile(r"^(amsync_\S+?) ([0-9.e+-]+)$", re.MULTILINE)


def readiness(admin_url: str) -> tuple[int, Any]:
    """Status and content of /readyz."""
    try:
        with urllib.request.urlopen(f"{admin_url}/readyz", timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def metrics(admin_url: str) -> dict[str, float]:
    """All samples by name with labels, as `amsync_closes_total{reason="silent"}`."""
    with urllib.request.urlopen(f"{admin_url}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in _SAMPLE.findall(text)}

"""The files of the image and the compose project, with the defaults of their variables."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = ROOT / "docker-compose.yml"
AMSYNC = ("worker", "gateway", "console", "gateway-tls")


def compose() -> dict[str, Any]:
    """docker-compose.yml, with `${NAME:-default}` as it is when nothing is set."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE.read_text())
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def instructions() -> list[str]:
    """The Dockerfile's instructions, each on one line, without comments."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def is_pinned(image: str) -> bool:
    """Whether a name has a tag of a version: at least a major and a minor number."""
    name, _, tag = image.rpartition(":")
    return bool(name) and re.match(r"v?\d+\.\d+", tag) is not None

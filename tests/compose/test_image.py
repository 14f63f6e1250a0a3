"""The image by itself, without compose: `amsync serve`, confined as far as Docker can."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from compose.conftest import IMAGE
from compose.project import Project, docker, eventually

CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


@pytest.fixture
def name(project: Project) -> Iterator[str]:
    """A name for a container, which is removed with its volume; the image is built."""
    name = f"amsync-test-alone-{os.getpid()}"
    yield name
    docker("rm", "--force", "--volumes", name)
    docker("volume", "rm", "--force", name)


def test_serve_is_well_and_stops_cleanly(name: str) -> None:
    volume = f"--volume={name}:/data"
    command = ("serve", "--allow-anonymous")
    docker("run", "--detach", f"--name={name}", *CONFINED, volume, IMAGE, *command)

    def health() -> str:
        return docker("inspect", "--format={{.State.Health.Status}}", name).strip()

    eventually(lambda: health() == "healthy", 120, "the image's own health check is content")
    docker("stop", "--time=30", name)

    assert docker("inspect", "--format={{.State.ExitCode}}", name).strip() == "0"
    assert "0 errors" in docker("run", "--rm", *CONFINED, volume, IMAGE, "fsck", "/data")


def test_without_authentication_it_refuses_to_start(name: str) -> None:
    done = subprocess.run(
        ["docker", "run", f"--name={name}", *CONFINED, IMAGE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 2
    assert "--allow-anonymous" in done.stderr

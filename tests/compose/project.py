"""docker-compose.yml, brought up under a name and on ports of its own.

Everything goes through the `docker` command, as an operator would do it. Metrics are read inside
the containers: admin ports are published nowhere.
"""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.files import COMPOSE, ROOT
from support.closing import Closing

ADMIN_PORTS = {"gateway": 3031, "gateway-tls": 3031, "worker": 3032}
ALL_PROFILES = ("--profile=tls", "--profile=monitoring", "--profile=console")
ADMIN_TOKEN = "an-admin-token-for-tests"
UP_SECONDS = 180
BUILD_SECONDS = 3600.0
COMMAND_SECONDS = 240.0

_READ = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1]).read().decode())"
_SAMPLE = re.compile(r"^(amsync_\S+?) ([0-9.e+-]+)$", re.MULTILINE)


def docker(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = COMMAND_SECONDS
) -> str:
    """Run `docker ...`; returns what it printed.

    Raises:
        AssertionError: It failed; with all that it said.
    """
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    said = f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    return done.stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Project(Closing):
    """One compose project; `close` removes it with its volumes.

    Attributes:
        image: Of our containers that are made from now on.
        url: Where clients connect.
        tls_url: The same with TLS, once the profile `tls` is up.
        prometheus_url: Once the profile `monitoring` is up.
        admin_url: Once the profile `console` is up; its token is ADMIN_TOKEN.
        log: All containers' output so far is written there by `close`.
    """

    def __init__(self, image: str, directory: Path) -> None:
        self.name = f"amsync-test-{os.getpid()}"
        self.image = image
        self.log = directory / "compose.log"
        self.tls_directory = directory / "tls"
        ports = [free_port() for _ in range(4)]
        self.url = f"ws://127.0.0.1:{ports[0]}"
        self.tls_url = f"wss://127.0.0.1:{ports[1]}"
        self.prometheus_url = f"http://127.0.0.1:{ports[2]}"
        self.admin_url = f"http://127.0.0.1:{ports[3]}"
        self._environment = {
            "AMSYNC_PUBLISHED_PORT": str(ports[0]),
            "AMSYNC_PUBLISHED_TLS_PORT": str(ports[1]),
            "PROMETHEUS_PUBLISHED_PORT": str(ports[2]),
            "AMSYNC_PUBLISHED_ADMIN_PORT": str(ports[3]),
            "AMSYNC_ADMIN_TOKEN": ADMIN_TOKEN,
            "AMSYNC_TLS_DIR": str(self.tls_directory),
        }

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run `docker compose ...` on the project."""
        return docker(
            *("compose", "--project-name", self.name, "--file", str(COMPOSE), *arguments),
            environment={**self._environment, "AMSYNC_IMAGE": self.image},
            seconds=seconds,
        )

    def build(self) -> None:
        self.compose("build", seconds=BUILD_SECONDS)

    def up(self, *arguments: str, profiles: Sequence[str] = ()) -> None:
        """`up --wait`: returns when everything that has a health check is well."""
        chosen = [f"--profile={profile}" for profile in profiles]
        self.compose(
            *(*chosen, "up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), *arguments)
        )

    def stop(self) -> None:
        """Stop everything, as an operator does; the containers stay."""
        self.compose(*ALL_PROFILES, "stop")

    def scale(self, *, gateways: int, workers: int) -> None:
        self.up("--no-recreate", "--scale", f"gateway={gateways}", "--scale", f"worker={workers}")

    def containers(self, service: str, *, every: bool = False) -> list[str]:
        """Ids of the running containers of a service; with `every`, also of those that ended."""
        ended = ["--all"] if every else []
        return sorted(self.compose(*ALL_PROFILES, "ps", "--quiet", *ended, service).split())

    def inspect(self, container: str) -> Any:
        return json.loads(docker("inspect", container))[0]

    def run(self, container: str, *command: str) -> str:
        """Run a command in a running container; returns its output."""
        return docker("exec", container, *command)

    def metrics(self, container: str, service: str) -> dict[str, float]:
        """All samples of one of our processes, by name with labels."""
        url = f"http://127.0.0.1:{ADMIN_PORTS[service]}/metrics"
        text = self.run(container, "python", "-c", _READ, url)
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def connections(self, service: str = "gateway") -> dict[str, int]:
        """Joined sockets by container."""
        return {
            each: int(self.metrics(each, service)["amsync_connections"])
            for each in self.containers(service)
        }

    def stop_one(self, container: str) -> None:
        """SIGTERM, as an operator would send it; returns when it has ended."""
        docker("stop", "--time", "60", container)

    def kill9(self, container: str) -> None:
        """As a crash of the machine would; Docker does not start it again by itself."""
        docker("kill", "--signal", "KILL", container)

    def crash(self, container: str) -> None:
        """kill -9 of the process inside; Docker's restart policy brings it back."""
        code = (
            "import os, signal\n"
            "os.kill(int(open('/proc/1/task/1/children').read().split()[0]), signal.SIGKILL)"
        )
        self.run(container, "python", "-c", code)

    def fsck(self) -> str:
        """What `amsync fsck` says of the volume; nobody may be running on it."""
        volume = f"{self.name}_documents:/data"
        return docker("run", "--rm", "--read-only", "-v", volume, self.image, "fsck", "/data")

    def copy_documents(self, to: Path) -> Path:
        """Copy the volume out of a worker's container, running or not."""
        docker("cp", f"{self.containers('worker', every=True)[0]}:/data", str(to))
        return to

    def close(self) -> None:
        try:
            self.log.write_text(self.compose("logs", "--no-color", "--timestamps"))
        finally:
            self.compose(
                *(*ALL_PROFILES, "down", "--volumes", "--remove-orphans", "--timeout", "30")
            )


def eventually(check: Any, seconds: float, what: str) -> Any:
    """Call until the result is true; returns it."""
    end = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, what
        time.sleep(0.2)

"""A release of the chart in a Kubernetes of yours, in a namespace of its own.

Everything goes through helm and kubectl, as an operator would do it. Clients connect to the
Service's cluster address: the tests run on a node.
"""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import yaml

from deploy.chart import CHART, run
from support.closing import Closing

WAIT_SECONDS = 240
IMAGE = os.environ.get("AMSYNC_CHART_IMAGE", "")
"""repository:tag of an image that the nodes have or can pull."""

ISSUER = "https://login.example.org"
GUARDED = (
    "auth.enabled=true",
    f"auth.issuer={ISSUER}",
    "auth.existingSecret=oidc",
    "auth.secretKeys.clientId=id",
    "auth.secretKeys.keys=keys.json",
    "tls.existingSecret=sync-tls",
    "valkey.existingSecret=valkey",
)


def kubectl(*arguments: str, text: str = "", check: bool = True, seconds: float = 300) -> str:
    """Run `kubectl ...`; returns what it printed. Raises AssertionError if it failed."""
    return run("kubectl", *arguments, text=text, check=check, seconds=seconds).stdout


def _is_first_of(cgroup: Path, container: str) -> bool:
    """The process is the first one of this container."""
    try:
        if container not in cgroup.read_text():
            return False
        status = cgroup.with_name("status").read_text()
    except OSError:  # it has ended
        return False
    (numbers,) = [line.split() for line in status.splitlines() if line.startswith("NSpid:")]
    return numbers[-1] == "1"


class Release(Closing):
    """One release; `close` removes it with its namespace.

    Attributes:
        name: Of the release.
        namespace: Its own.
        log: Logs of all pods so far are written there by `close`.
    """

    def __init__(self, name: str, directory: Path, access_mode: str = "ReadWriteOnce") -> None:
        self.name, self.namespace = name, f"amsync-test-{os.getpid()}-{name}"
        self.log = directory / f"{name}.log"
        self._volume = directory / "documents"
        self._access_mode = access_mode
        self._has_volume = False
        repository, _, tag = IMAGE.rpartition(":")
        self._image = (f"image.repository={repository}", f"image.tag={tag}")
        kubectl("create", "namespace", self.namespace)
        if not self._has_default_class():
            self._make_volume()

    def _has_default_class(self) -> bool:
        key = "storageclass.kubernetes.io/is-default-class"
        classes = json.loads(kubectl("get", "storageclass", "-o", "json"))["items"]
        return any(each["metadata"].get("annotations", {}).get(key) == "true" for each in classes)

    def _make_volume(self) -> None:
        """A folder of the node, as fsGroup does not reach it open to all."""
        self._volume.mkdir()
        self._volume.chmod(0o777)
        spec = {
            "capacity": {"storage": "10Gi"},
            "accessModes": [self._access_mode],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": self.namespace, "name": f"{self.full_name}-documents"},
            "hostPath": {"path": str(self._volume)},
        }
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": self.namespace},
            "spec": spec,
        }
        kubectl("apply", "-f", "-", text=yaml.safe_dump(volume))
        self._has_volume = True

    @property
    def full_name(self) -> str:
        """Beginning of the names of its resources."""
        return f"{self.name}-amsync"

    def secret(self, name: str, **content: str) -> None:
        """Make a Secret."""
        made = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.namespace},
            "stringData": {key.replace("_", "."): value for key, value in content.items()},
        }
        kubectl("apply", "-f", "-", text=yaml.safe_dump(made))

    def helm(self, command: str, *values: str) -> float:
        """`helm install` or `helm upgrade` with values; returns how long it took to be ready."""
        began = time.monotonic()
        sets = [f"--set={each}" for each in (*self._image, *values)]
        run(
            *("helm", command, self.name, str(CHART), "--namespace", self.namespace),
            *("--wait", f"--timeout={WAIT_SECONDS}s", *sets),
            seconds=WAIT_SECONDS + 30,
        )
        return time.monotonic() - began

    def uninstall(self) -> None:
        """Remove it; the claim stays."""
        run(
            *("helm", "uninstall", self.name, "--namespace", self.namespace),
            *("--wait", f"--timeout={WAIT_SECONDS}s"),
            seconds=WAIT_SECONDS,
        )

    def test(self) -> str:
        """`helm test`; returns what it said."""
        return run(
            *("helm", "test", self.name, "--namespace", self.namespace, "--logs"),
            seconds=WAIT_SECONDS,
        ).stdout

    def get(self, kind: str, *more: str) -> Any:
        return json.loads(self.kubectl("get", kind, "-o", "json", *more))

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return kubectl("--namespace", self.namespace, *arguments, check=check)

    def url(self) -> str:
        """Where clients connect, on a node."""
        spec = self.get("service", self.full_name)["spec"]
        return f"ws://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    def pods(self, component: str) -> list[str]:
        """Names of the pods that are not ending."""
        found = self.get("pods", f"-lapp.kubernetes.io/component={component}")["items"]
        return sorted(
            each["metadata"]["name"]
            for each in found
            if "deletionTimestamp" not in each["metadata"]
        )

    def delete(self, pod: str) -> None:
        """Without grace: SIGTERM, and SIGKILL a moment later; a new pod comes."""
        self.kubectl("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    def kill9(self, pod: str) -> None:
        """kill -9 of the process in it; the kubelet starts it again in the same pod."""
        (status,) = self.get("pod", pod)["status"]["containerStatuses"]
        container = status["containerID"].partition("://")[2]
        (process,) = [
            int(each.parent.name)
            for each in Path("/proc").glob("[0-9]*/cgroup")
            if _is_first_of(each, container)
        ]
        os.kill(process, signal.SIGKILL)

    def restart(self, component: str) -> float:
        """A rolling restart; returns how long it took."""
        began = time.monotonic()
        name = f"deployment/{self.full_name}-{component}"
        self.kubectl("rollout", "restart", name)
        self.wait(component)
        self.settle()
        return time.monotonic() - began

    def restarts(self, pod: str) -> int:
        """How often the kubelet has started its container again."""
        (status,) = self.get("pod", pod)["status"]["containerStatuses"]
        count: int = status["restartCount"]
        return count

    def settle(self) -> None:
        """Return when no pod is on its way out."""
        deadline = time.monotonic() + WAIT_SECONDS
        while any("deletionTimestamp" in each["metadata"] for each in self.get("pods")["items"]):
            assert time.monotonic() < deadline, "pods don't end"
            time.sleep(0.5)

    def wait(self, component: str) -> None:
        """Return when every pod of it is ready."""
        name = f"deployment/{self.full_name}-{component}"
        self.kubectl("rollout", "status", name, f"--timeout={WAIT_SECONDS}s")

    def close(self) -> None:
        selector = f"-lapp.kubernetes.io/instance={self.name}"
        try:
            logs = self.kubectl(
                "logs", selector, "--tail=-1", "--prefix", "--timestamps", check=False
            )
            events = self.kubectl("get", "events", check=False)
            self.log.write_text(logs + events)
        finally:
            run("helm", "uninstall", self.name, "--namespace", self.namespace, check=False)
            kubectl("delete", "namespace", self.namespace, "--timeout=120s", check=False)
            if self._has_volume:
                kubectl("delete", "persistentvolume", self.namespace, "--timeout=60s", check=False)

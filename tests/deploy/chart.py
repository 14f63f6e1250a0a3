"""The Helm chart: its files, and what helm makes of it."""

import os
import shutil
import subprocess
from typing import Any

import yaml

from .files import ROOT

CHART = ROOT / "helm/amsync"
BUILT = ROOT / ".build/helm"
COMPONENTS = ("gateway", "worker")
VALUE_SETS = ("default", *sorted(path.stem for path in (CHART / "ci").glob("*.yaml")))
"""`default`, and the files of helm/amsync/ci."""

CUSTOM = ("HTTPRoute", "PodMonitor", "PrometheusRule")
"""Kinds that Kubernetes has only when somebody brings them."""

SECONDS = 60.0


def values(name: str = "default") -> dict[str, Any]:
    """The values of one set alone, not those that it leaves as they are."""
    path = CHART / "values.yaml" if name == "default" else CHART / f"ci/{name}.yaml"
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    return content


def run(
    *command: str, check: bool = True, text: str = "", seconds: float = SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run helm, kubeconform or kubectl, of `make helm-test` or else of the PATH.

    Raises:
        AssertionError: It failed, with what it said; not if `check` is false.
    """
    program = shutil.which(command[0], path=f"{BUILT / 'bin'}:{os.environ['PATH']}")
    assert program is not None, f"{command[0]} is not there; run: make helm-test"
    done = subprocess.run(
        [program, *command[1:]],
        input=text,
        env={**os.environ, "HELM_PLUGINS": str(BUILT / "plugins")},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def arguments(name: str, *more: str) -> list[str]:
    """Of `helm template` and its like, for a set of values."""
    files = [] if name == "default" else ["--values", str(CHART / f"ci/{name}.yaml")]
    return ["sync", str(CHART), "--namespace", "sync", "--kube-version", "1.34.0", *files, *more]


def template(name: str, *more: str) -> str:
    """What would be installed, as text."""
    return run("helm", "template", *arguments(name, *more)).stdout


def resources(name: str, *more: str) -> list[dict[str, Any]]:
    """What would be installed, hooks included."""
    return [each for each in yaml.safe_load_all(template(name, *more)) if each]


def refusal(*more: str) -> str:
    """What `helm template` says to values that it refuses."""
    done = run("helm", "template", *arguments("default", *more), check=False)
    assert done.returncode != 0
    return done.stderr


def pods(name: str, *more: str) -> dict[str, dict[str, Any]]:
    """Specs of pods by component."""
    found = {}
    for each in resources(name, *more):
        if each["kind"] == "Deployment":
            meta = each["spec"]["template"]["metadata"]
            found[meta["labels"]["app.kubernetes.io/component"]] = each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            found["test"] = each["spec"]
    return found


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    result: dict[str, Any] = only
    return result


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    """Variables by name: their text, or where it comes from."""
    every = container(pod).get("env", ())
    assert len({each["name"] for each in every}) == len(every)
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in every}

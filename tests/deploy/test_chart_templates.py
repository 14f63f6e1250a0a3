"""What helm makes of the chart: what must hold with every set of values, and across files.

Single values are for helm/amsync/tests, which the plugin unittest runs.
"""

import re
from typing import Any

import click
import pytest
import yaml

from amsync.cli import cli
from deploy.chart import (
    BUILT,
    CHART,
    COMPONENTS,
    CUSTOM,
    VALUE_SETS,
    container,
    environment,
    pods,
    refusal,
    resources,
    run,
    template,
)

pytestmark = pytest.mark.helm


def options(component: str) -> dict[str, click.Parameter]:
    command = cli.get_command(click.Context(cli), component)
    assert command is not None
    return {str(each.envvar): each for each in command.params}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_helm_finds_nothing_wrong(name: str) -> None:
    files = [] if name == "default" else ["--values", str(CHART / f"ci/{name}.yaml")]

    said = run("helm", "lint", "--strict", str(CHART), *files).stdout

    assert "0 chart(s) failed" in said


@pytest.mark.parametrize("name", VALUE_SETS)
def test_kubernetes_knows_every_field(name: str) -> None:
    said = run(
        *("kubeconform", "-strict", "-summary", "-skip", ",".join(CUSTOM)),
        *("-schema-location", str(BUILT / "schemas/{{.ResourceKind}}{{.KindSuffix}}.json")),
        text=template(name),
    ).stdout

    skipped = sum(each["kind"] in CUSTOM for each in resources(name))
    assert f"Invalid: 0, Errors: 0, Skipped: {skipped}" in said


def test_kubeconform_would_see_a_wrong_field() -> None:
    wrong = template("default").replace("terminationGracePeriodSeconds", "gracePeriodSeconds")

    done = run(
        *("kubeconform", "-strict"),
        *("-schema-location", str(BUILT / "schemas/{{.ResourceKind}}{{.KindSuffix}}.json")),
        text=wrong,
        check=False,
    )

    assert done.returncode != 0
    assert "gracePeriodSeconds" in done.stdout


def test_its_own_unit_tests_pass() -> None:
    said = run("helm", "unittest", "--color=false", "-f", "tests/*_test.yaml", str(CHART)).stdout

    assert re.search(r"Tests:\s+(\d\d) passed, \1 total", said), said


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("name", VALUE_SETS)
def test_what_our_commands_are_told_is_what_they_take(name: str, component: str) -> None:
    pod = pods(name)[component]
    known = options(component)

    assert container(pod)["args"] == [component]
    for variable, value in environment(pod).items():
        if not variable.startswith("AMSYNC_"):
            continue
        option = known.get(variable) or known[variable.removesuffix("_FILE")]
        if isinstance(value, str) and option.envvar == variable:
            cast(option, value)


def cast(option: click.Parameter, value: str) -> Any:
    """What click makes of an environment variable."""
    given: Any = option.type.split_envvar_value(value) if option.multiple else value
    return option.type_cast_value(click.Context(click.Command("x")), given)


def test_large_numbers_lists_and_switches_arrive_as_they_were_meant() -> None:
    gateway = environment(pods("production-values")["gateway"])
    worker = environment(pods("production-values")["worker"])

    assert gateway["AMSYNC_MAX_FRAME_BYTES"] == "104857600"
    assert gateway["AMSYNC_PATIENCE_SECONDS"] == "90.5"
    assert gateway["AMSYNC_AUTH_REQUIRED_CLAIM"] == "groups=editors,tid=1"
    assert gateway["AMSYNC_AUTH_ALLOW_QUERY_TOKEN"] == "true"
    assert gateway["AMSYNC_TRUSTED_PROXIES"] == "10.0.0.0/8,fd00::/8"
    assert worker["AMSYNC_MAX_DOCUMENT_BYTES"] == "536870912"
    assert worker["AMSYNC_AUTO_CREATE_DOCS"] == "false"


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_pod_is_confined(name: str) -> None:
    for pod in pods(name).values():
        only = container(pod)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert only["resources"]["limits"]["memory"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod["volumes"])


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_service_named_amsync_sets_no_option(name: str) -> None:
    """Kubernetes would tell pods AMSYNC_PORT=tcp://..., which a gateway takes for its port."""
    for pod in pods(name).values():
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("name", VALUE_SETS)
def test_nothing_has_rights(name: str) -> None:
    kinds = {each["kind"] for each in resources(name)}

    assert not kinds & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "StatefulSet"}
    for each in resources(name):
        if each["kind"] == "ServiceAccount":
            assert each["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", VALUE_SETS)
def test_there_is_time_for_an_end_in_good_order(name: str) -> None:
    gateway, worker = pods(name)["gateway"], pods(name)["worker"]
    pause = container(gateway).get("lifecycle", {"preStop": {"exec": {"command": ["sleep", "0"]}}})
    seconds = float(pause["preStop"]["exec"]["command"][1])

    drain = float(environment(gateway)["AMSYNC_DRAIN_SECONDS"])
    assert gateway["terminationGracePeriodSeconds"] >= seconds + drain + 20
    drain = float(environment(worker)["AMSYNC_DRAIN_SECONDS"])
    assert worker["terminationGracePeriodSeconds"] >= drain + 40


@pytest.mark.parametrize("name", VALUE_SETS)
def test_ports_are_those_that_are_listened_on_and_probed(name: str) -> None:
    for component in COMPONENTS:
        only = container(pods(name)[component])
        variables = environment(pods(name)[component])
        ports = {each["name"]: str(each["containerPort"]) for each in only["ports"]}
        assert ports["admin"] == variables["AMSYNC_ADMIN_PORT"]
        assert ports.get("clients") == variables.get("AMSYNC_PORT")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert only[probe]["httpGet"]["port"] == "admin"
        assert only["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert only["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize("name", VALUE_SETS)
def test_selectors_find_the_pods_of_their_own_part_alone(name: str) -> None:
    every = resources(name)
    labels = {
        each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
        for each in every
        if each["kind"] == "Deployment"
    }

    def found(selector: dict[str, str]) -> list[str]:
        return [key for key, has in labels.items() if selector.items() <= has.items()]

    for each in every:
        spec = each.get("spec", {})
        match each["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                assert found(spec["selector"]["matchLabels"]) == [each["metadata"]["name"]]
            case "NetworkPolicy":
                assert found(spec["podSelector"]["matchLabels"]) == [each["metadata"]["name"]]
            case "Service":
                part = each["metadata"]["labels"]["app.kubernetes.io/component"]
                (pod,) = found(spec["selector"])
                assert pod.endswith(f"-{part}")
            case "HorizontalPodAutoscaler":
                assert spec["scaleTargetRef"]["name"] in labels


@pytest.mark.parametrize("name", VALUE_SETS)
def test_a_new_version_of_the_chart_alone_restarts_nothing(name: str) -> None:
    for each in resources(name):
        if each["kind"] == "Deployment":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert "helm.sh/chart" not in labels
            assert "app.kubernetes.io/version" not in labels


@pytest.mark.parametrize("name", VALUE_SETS)
def test_secrets_are_named_and_never_written_out(name: str) -> None:
    assert not [each for each in resources(name) if each["kind"] == "Secret"]
    for pod in pods(name).values():
        for mount in container(pod)["volumeMounts"]:
            assert "subPath" not in mount  # it would not see a renewed Secret


def test_a_scaled_deployment_has_no_number_of_its_own() -> None:
    for each in resources("production-values"):
        if each["kind"] == "Deployment":
            assert "replicas" not in each["spec"]


def test_the_dashboard_asks_the_data_source_that_was_named() -> None:
    (found,) = [
        each
        for each in resources("production-values")
        if each["kind"] == "ConfigMap" and "amsync.json" in each["data"]
    ]
    content = yaml.safe_load(found["data"]["amsync.json"])

    sources = {panel["datasource"]["uid"] for panel in content["panels"] if panel["type"] != "row"}
    assert sources == {"main"}


def test_nothing_is_as_long_as_kubernetes_forbids() -> None:
    long = "a-release-with-a-name-as-long-as-helm-allows-it-here"

    for each in yaml.safe_load_all(
        run("helm", "template", long, str(CHART), "--kube-version", "1.34.0").stdout
    ):
        assert len(each["metadata"]["name"]) <= 63
        # with what a Deployment adds for each pod
        assert each["kind"] != "Deployment" or len(each["metadata"]["name"]) <= 63 - 17
        for value in each["metadata"]["labels"].values():
            assert len(value) <= 63


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["auth.allowAnonymous=false"], "Nobody could come in"),
        (["ingress.enabled=true", "ingress.hosts={a.example}"], "would let everybody"),
        (["route.enabled=true", "route.parentRefs[0].name=x"], "would let everybody"),
        (["service.type=LoadBalancer"], "A Service of type LoadBalancer would let everybody"),
        (["service.type=NodePort"], "would let everybody"),
        (["auth.enabled=true", "tls.existingSecret=x"], "needs auth.clientId"),
        (["auth.enabled=true", "auth.clientId=x"], "read on their way"),
        (["worker.replicas=2"], "not ReadWriteMany"),
        (["worker.autoscaling.enabled=true"], "not ReadWriteMany"),
        (["redis.url=redis://x", "redis.existingSecret=x"], "exclude each other"),
        (["gateway.autoscaling.minReplicas=11", "gateway.autoscaling.enabled=true"], "larger"),
        (["gateway.replcas=3"], "replcas"),
        (["gateway.options.max-conections=3"], "max-conections"),
        (["valkey.enabled=false"], "enabled"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_what_can_not_work_or_is_open_by_mistake_is_refused(given: list[str], said: str) -> None:
    assert said in refusal(*(f"--set={each}" for each in given))

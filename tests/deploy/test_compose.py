"""docker-compose.yml, nginx and Prometheus: what must hold of them whoever edits them.

Whether it all works is for `make compose-test`, which needs Docker.
"""

import re
from typing import Any

import click
import pytest
import yaml

from amsync.cli import cli

from .files import AMSYNC, COMPOSE, DOCKER, ROOT, compose, is_pinned, services

SERVICES = sorted(services())
NOT_OURS = sorted(set(SERVICES) - set(AMSYNC))
SIZES = {"m": 1024**2, "mb": 1024**2, "g": 1024**3}


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(m|mb|g)", text).groups()  # type: ignore[union-attr]
    return int(number) * SIZES[unit]


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def following(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def test_it_has_the_services_that_the_readme_names() -> None:
    profiles = {name: service.get("profiles", []) for name, service in services().items()}

    assert [name for name, given in profiles.items() if not given] == [
        "valkey",
        "worker",
        "gateway",
        "load-balancer",
    ]
    assert [name for name in profiles if profiles[name] == ["tls"]] == [
        "gateway-tls",
        "load-balancer-tls",
    ]
    assert [name for name in profiles if profiles[name] == ["monitoring"]] == [
        "prometheus",
        "grafana",
    ]
    assert [name for name in profiles if profiles[name] == ["console"]] == ["console"]
    for name in set(AMSYNC) - {"console"}:
        assert services()[name]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", AMSYNC)
def test_what_our_commands_are_told_is_what_they_take(name: str) -> None:
    service = services()[name]
    (subcommand,) = service["command"]

    command = cli.get_command(click.Context(cli), subcommand)
    assert command is not None
    options = {each.envvar: each for each in command.params}

    for variable, value in service["environment"].items():
        context = click.Context(command)
        options[variable].type_cast_value(context, value)


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"]["max-size"]
    assert size(service["deploy"]["resources"]["limits"]["memory"]) > 0
    assert not {"privileged", "cap_add", "network_mode", "pid", "container_name"} & set(service)


@pytest.mark.parametrize("name", NOT_OURS)
def test_every_other_image_is_pinned_and_not_run_by_root(name: str) -> None:
    service = services()[name]

    assert is_pinned(service["image"])
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])


def test_what_is_published_is_published_on_loopback_only() -> None:
    published = {name: each["ports"] for name, each in services().items() if "ports" in each}

    assert set(published) == {
        "load-balancer",
        "load-balancer-tls",
        "console",
        "prometheus",
        "grafana",
    }
    for port in (port for ports in published.values() for port in ports):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


def test_strangers_are_let_in_at_one_place_with_a_warning_above_it() -> None:
    lines = COMPOSE.read_text().splitlines()

    letting = [at for at, line in enumerate(lines) if re.search(r"allow.anonymous", line, re.I)]

    assert len(letting) == 1
    assert "ANONYMOUS" in "".join(lines[letting[0] - 5 : letting[0]])
    for name in ("gateway", "gateway-tls"):
        assert services()[name]["environment"]["AMSYNC_ALLOW_ANONYMOUS"] == "true"


def test_only_what_publishes_a_port_reaches_the_world() -> None:
    internal = {name for name, network in compose()["networks"].items() if network.get("internal")}

    outside = {name for name, each in services().items() if set(each["networks"]) - internal}

    assert outside == {name for name, each in services().items() if "ports" in each}


def test_the_console_is_where_no_client_comes_and_shows_nothing_but_its_admin_port() -> None:
    console = services()["console"]

    assert set(console["networks"]) == {"edge", "cluster"}  # not that of the load balancers
    (published,) = console["ports"]
    assert published.endswith(f":{console['environment']['AMSYNC_ADMIN_PORT']}")
    assert console["environment"]["AMSYNC_ADMIN_TOKEN"] == ""  # and so it answers nobody


def test_workers_and_valkey_are_not_where_clients_come_in() -> None:
    for name in ("worker", "valkey"):
        assert services()[name]["networks"] == ["cluster"]


def test_documents_have_one_volume_which_only_workers_have() -> None:
    users = {n for n, each in services().items() if "documents:/data" in each.get("volumes", ())}

    assert users == {"worker"}
    assert services()["worker"]["environment"]["AMSYNC_DATA_DIR"] == "/data"


def test_valkey_keeps_what_it_has_taken_and_evicts_nothing() -> None:
    valkey = services()["valkey"]
    command = valkey["command"]

    assert following(command, "--appendonly") == "yes"
    assert following(command, "--appendfsync") == "everysec"
    assert following(command, "--maxmemory-policy") == "noeviction"
    limit = size(valkey["deploy"]["resources"]["limits"]["memory"])
    assert size(following(command, "--maxmemory")) <= 0.8 * limit
    assert "valkey:/data" in valkey["volumes"]


@pytest.mark.parametrize("name", ["gateway", "gateway-tls"])
def test_a_gateway_has_longer_to_stop_than_its_drain_takes(name: str) -> None:
    service = services()[name]

    drain = float(service["environment"]["AMSYNC_DRAIN_SECONDS"])

    assert seconds(service["stop_grace_period"]) >= drain + 10


@pytest.mark.parametrize("name", SERVICES)
def test_who_waits_for_a_service_waits_until_it_is_well(name: str) -> None:
    waited = services()[name].get("depends_on", {})

    for other, how in waited.items() if isinstance(waited, dict) else ():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in services()[other]


def test_every_mounted_file_is_in_the_tree() -> None:
    mounts = [mount for each in services().values() for mount in each.get("volumes", ())]
    paths = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]

    assert len(paths) == 6
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert all(mount.endswith(":ro") for mount in mounts if mount.startswith("."))


@pytest.mark.parametrize(
    ("file", "balancer", "gateways"),
    [
        ("nginx.conf", "load-balancer", "gateway"),
        ("nginx-tls.conf", "load-balancer-tls", "gateway-tls"),
    ],
)
def test_the_load_balancer_finds_the_gateways_and_sticks_to_none(
    file: str, balancer: str, gateways: str
) -> None:
    text = (DOCKER / file).read_text()
    port = services()[gateways]["environment"]["AMSYNC_PORT"]

    assert f"server {gateways}:{port} resolve" in text
    assert "resolver 127.0.0.11 " in text
    assert "least_conn;" in text
    assert not re.search(r"\b(ip_hash|hash|sticky)\b", text)
    (published,) = services()[balancer]["ports"]
    assert re.search(rf"listen {published.split(':')[-1]}\b", text)
    assert f"./docker/{file}:/etc/nginx/nginx.conf:ro" in services()[balancer]["volumes"]


def test_prometheus_asks_every_service_of_ours_at_its_own_port() -> None:
    config: dict[str, Any] = yaml.safe_load((DOCKER / "prometheus.yml").read_text())

    asked = {
        name: str(found["port"])
        for job in config["scrape_configs"]
        for found in job["dns_sd_configs"]
        for name in found["names"]
    }

    assert asked == {name: services()[name]["environment"]["AMSYNC_ADMIN_PORT"] for name in AMSYNC}
    for name in (*AMSYNC, "prometheus"):
        assert "cluster" in services()[name]["networks"]

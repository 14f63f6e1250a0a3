"""What `Server` takes for access, and refuses."""

from pathlib import Path
from typing import Any

import pytest

from amsync import AccessConfig, ConfigError, Server, Webhook

TOKEN = "an-admin-token-for-tests"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"access": "write"}, "AccessConfig"),
        ({"access": {"check": None}}, "AccessConfig"),
        ({"access": AccessConfig(claim="amsync")}, "needs authentication"),
        ({"admin_token": TOKEN}, "admin_port"),
        ({"admin_token": "x" * 15, "admin_port": 0}, "16 or more"),
        ({"admin_token": "with a space in the middle", "admin_port": 0}, "spaces"),
        ({"admin_token": "ä" * 16, "admin_port": 0}, "ASCII"),
        ({"admin_token": b"x" * 16, "admin_port": 0}, "characters"),
        ({"admin_token": 10**20, "admin_port": 0}, "characters"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        Server(data_dir=tmp_path, **options)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {"claim": ""},
        {"claim": 7},
        {"check": "module:function"},
        {"check": lambda: None},
        {"check": lambda a: None},
        {"check": lambda a, b, c, d: None},
        {"webhook": "https://a.example"},
    ],
)
def test_configuration_that_can_not_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        AccessConfig(**options)


def test_certificate_of_the_webhook_that_can_not_be_read_is_refused_at_the_start(
    tmp_path: Path,
) -> None:
    webhook = Webhook("https://a.example", ca=tmp_path / "missing.pem")
    with pytest.raises(ConfigError, match="access_webhook_ca"):
        Server(data_dir=tmp_path, access=AccessConfig(webhook=webhook)).start()

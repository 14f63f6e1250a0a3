"""Commands in this process: what they would have run with, and what they say."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from amsync.cli import cli
from amsync.cli import options as cli_options
from amsync.cluster.gateway_node import GatewayNode
from amsync.node import Node
from amsync.options import ListenOptions


def alone_in(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of one's own, and no options in the environment."""
    monkeypatch.chdir(directory)
    for each in list(os.environ):
        if each.startswith(("AMSYNC_", "OIDC_")):
            monkeypatch.delenv(each)


def note_options(monkeypatch: pytest.MonkeyPatch) -> list[ListenOptions]:
    """Options of the nodes that would have been run from now on."""
    noted: list[ListenOptions] = []

    async def note(node: Node | GatewayNode, _greet: object) -> None:
        noted.append(node.options)

    monkeypatch.setattr(cli_options, "_live", note)
    return noted


def invoke(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run `amsync` with these arguments, the command first."""
    return CliRunner().invoke(cli, arguments, env=env, prog_name="amsync")

"""The command as a whole: what it lists, and what it does not load for that."""

import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from amsync.cli import COMMANDS, cli
from amsync.cli.doc import COMMANDS as DOC_COMMANDS
from amsync.cli.doc import doc
from support.program import run_to_end

HEAVY = ("amsync._automerge", "amsync.node", "aiohttp", "websockets", "cryptography")

SHOW_HELP = """
import json, sys
from click.testing import CliRunner
from amsync.cli import cli
result = CliRunner().invoke(cli, sys.argv[1:])
print(json.dumps([result.exit_code, result.output, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["doc", "--help"], ["health", "--help"]], ids=" ".join
)
def test_help_and_version_load_neither_engine_nor_server(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = run_to_end([sys.executable, "-c", SHOW_HELP, *arguments], directory=tmp_path)

    status, output, modules = json.loads(done.stdout)
    assert status == 0
    assert output
    assert not [name for name in modules if name.startswith(HEAVY)]


def test_a_single_process_loads_nothing_of_a_cluster(tmp_path: Path) -> None:
    code = "import json, sys, amsync.server, amsync.cli.serve\nprint(json.dumps([*sys.modules]))"
    done = run_to_end([sys.executable, "-c", code], directory=tmp_path)

    loaded = json.loads(done.stdout)
    assert "amsync.node" in loaded
    assert not [name for name in loaded if name.startswith(("redis", "amsync.bus.redis"))]


@pytest.mark.parametrize(
    ("group", "name", "text"),
    [(cli, name, text) for name, (_, text) in COMMANDS.items()]
    + [(doc, name, text) for name, (_, text) in DOC_COMMANDS.items()],
    ids=[*COMMANDS, *DOC_COMMANDS],
)
def test_a_group_says_of_a_command_what_its_own_help_says(
    group: click.Group, name: str, text: str
) -> None:
    command = group.get_command(click.Context(group), name)

    assert command is not None
    listed = " ".join(CliRunner().invoke(group, ["--help"], env={"COLUMNS": "200"}).output.split())
    assert f"{name} {text}" in listed
    assert command.help is not None
    assert command.help.startswith(text.rstrip("."))

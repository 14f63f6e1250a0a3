"""Writes the tables of docs/configuration.md from the commands; `--check` compares instead.

tools/configuration-docs.py [--check]
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import click

from amsync import config
from amsync.cli import access, auth, cli, options

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/configuration.md"
BEGIN, END = "<!-- options: written by `make configuration-docs` -->", "<!-- end of options -->"
COMMANDS = ("serve", "gateway", "worker")


class Section(NamedTuple):
    """A part of the page: its title, what is said first, and what adds its options."""

    title: str
    text: str
    decorate: Callable[[options.Command], options.Command]
    more: tuple[str, ...] = ()


SECTIONS = (
    Section("The file", "", options.config_option),
    Section("The cluster", "See [A cluster](cluster.md).", options.cluster_options),
    Section("Where clients come in", "", options.listen_options),
    Section("Documents", "", options.keep_options, ("shards",)),
    Section("The process", "", options.process_options("", "")),
    Section(
        "Tokens",
        "One of these, or `OIDC_CLIENT_ID` in the environment, turns authentication on; see"
        " [Security](security.md).",
        auth.auth_options,
    ),
    Section("Access", "See [Access](access.md).", access.access_options),
    Section(
        "Limits",
        "See [Limits](limits.md). The second default is that of a server beyond loopback without"
        " authentication.",
        options.limit_options,
    ),
)


def names_of(section: Section) -> list[str]:
    """Names of a section's options, in their order."""

    def command() -> None: ...

    section.decorate(command)
    added: list[click.Parameter] = getattr(command, "__click_params__", [])
    return [str(each.name) for each in reversed(added)] + list(section.more)


def options_of(name: str) -> dict[str, click.Option]:
    """All options of a command, by name."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return {
        str(each.name): each
        for each in command.params
        if isinstance(each, click.Option) and each.name != "help"
    }


def tables() -> str:
    """Every section with its table."""
    commands = {name: options_of(name) for name in COMMANDS}
    rest = {name: None for command in commands.values() for name in command}
    lines: list[str] = []
    for section in SECTIONS:
        names = names_of(section)
        for name in names:
            del rest[name]
        lines += [f"## {section.title}", ""]
        if section.text:
            lines += [section.text, ""]
        lines += ["| option, variable, key | of | default | allowed | meaning |"]
        lines += ["|---|---|---|---|---|"]
        lines += [_row(name, commands) for name in names]
        lines += [""]
    if rest:
        raise SystemExit(f"tools/configuration-docs.py: no section has {', '.join(rest)}")
    return "\n".join(lines)


def _row(name: str, commands: dict[str, dict[str, click.Option]]) -> str:
    found = {command: each[name] for command, each in commands.items() if name in each}
    first = next(iter(found.values()))
    names = [*first.opts, *first.secondary_opts, config.variable(name)]
    if name in options.SECRETS:
        names.append(f"{config.variable(name)}_FILE")
    if name != "config":
        names.append(name)
    cells = (
        "<br>".join(f"`{each}`" for each in names),
        ", ".join(found),
        _by_command({command: _default(each) for command, each in found.items()}),
        _allowed(first),
        _by_command({command: _text(each)[0] for command, each in found.items()}),
    )
    return f"| {' | '.join(each.replace('|', chr(92) + '|') for each in cells)} |"


def _by_command(texts: dict[str, str]) -> str:
    """One text where all commands have the same, else each with those that have it."""
    commands: dict[str, list[str]] = {}
    for command, text in texts.items():
        commands.setdefault(text, []).append(command)
    if len(commands) == 1:
        return next(iter(commands))
    return "<br>".join(f"{', '.join(names)}: {text}" for text, names in commands.items())


def _text(found: click.Option) -> tuple[str, str]:
    """Help, and the default that it names because click does not know it."""
    text, _, default = (found.help or "").partition("  [default: ")
    return text, default.removesuffix("]").replace("with --allow-anonymous ", "")


def _default(found: click.Option) -> str:
    if found.required:
        return "has to be given"
    match found.get_default(click.Context(click.Command("any"))):
        case bool(value):
            return "yes" if value else "no"
        case int(value):
            return f"{value:,}"
        case float(value):
            return f"{value:g}"
        case str(value) if value:
            return f"`{value}`"
        case Path() as value:
            return f"`{value}`"
        case _:
            return _text(found)[1]


def _allowed(found: click.Option) -> str:
    match found.type:
        case options.Port():
            return "0 to 65535" + (", `off`" if found.name == "admin_port" else "")
        case click.Choice(choices=choices):
            return ", ".join(f"`{each}`" for each in choices)
        case click.IntRange() | click.FloatRange() as bounds:
            least = f"more than {bounds.min:,}" if bounds.min_open else f"{bounds.min:,}"
            return f"{least} or more" if bounds.max is None else f"{least} to {bounds.max:,}"
        case click.types.BoolParamType():
            return "switch"
        case click.Path(file_okay=False):
            return "directory"
        case click.Path():
            return "file"
        case options.Tables():
            return "array of tables; JSON"
        case options.Texts():
            return "several texts"
        case _:
            return "text"


def page(text: str) -> str:
    """The page with the tables of now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def main() -> int:
    """Write, or check."""
    found = PAGE.read_text(encoding="utf-8")
    wanted = page(found)
    if found == wanted:
        return 0
    if sys.argv[1:] == ["--check"]:
        sys.stderr.write("docs/configuration.md is not in step; run: make configuration-docs\n")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

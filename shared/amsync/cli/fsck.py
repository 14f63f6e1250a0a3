"""`amsync fsck`: shows what `amsync.storage.check` finds.

Exit status: 0 without errors (warnings are allowed), 1 with at least one, 2 when DIR is no
directory. Findings are printed as they are found, so that memory stays bounded.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from amsync.cli.directory import Bar, directory_argument, failures, json_option, plain
from amsync.storage.check import Check, Holder, Problem
from amsync.worker.engine import NativeCodec

FORMAT = 1
"""Of the JSON object; a higher one may lack what is documented."""


@click.command()
@directory_argument
@json_option
def fsck(directory: Path, as_json: bool) -> None:
    """Look for damage in a data directory, without changing it.

    Also while a server uses it. What is found is explained in docs/tools.md.
    """
    with failures(), Bar("checking", hidden=as_json) as bar:
        check = Check(directory, NativeCodec(), progress=bar)
        (_print_json if as_json else _print_text)(directory, check, bar)
    sys.exit(1 if check.totals.errors else 0)


def _print_text(directory: Path, check: Check, bar: Bar) -> None:
    for problem in check.run():
        bar.clear()
        click.echo(_text(problem))
    bar.close()
    if check.holder is not None:
        click.echo(_held(check.holder))
    totals = check.totals
    click.echo(
        f"{plain(str(directory))}: {totals.documents:,} documents, {totals.changes:,} changes,"
        f" {totals.file_bytes:,} bytes in files, {totals.wal_bytes:,} in the log;"
        f" {totals.errors:,} errors, {totals.warnings:,} warnings, {totals.notes:,} notes"
    )


def _text(problem: Problem) -> str:
    about = f" ({problem.document_id})" if problem.document_id else ""
    return (
        f"{problem.severity.upper()} {problem.kind}: {plain(problem.path)}{about}\n"
        f"    found: {plain(problem.detail)}\n"
        f"    {problem.advice}"
    )


def _held(holder: Holder) -> str:
    return (
        f"A server seems to use this directory: process {holder.pid} on {plain(holder.host)}."
        " What it writes meanwhile may be missing here."
    )


def _print_json(directory: Path, check: Check, _bar: Bar) -> None:
    # By hand, so that any number of findings takes no memory.
    head = {"format": FORMAT, "directory": str(directory)}
    click.echo(_dump(head)[:-1] + ', "findings": [', nl=False)
    for separator, problem in _separated(check.run()):
        click.echo(separator + _dump(_fields(problem)), nl=False)
    tail = {
        "held_by": None if check.holder is None else asdict(check.holder),
        "totals": asdict(check.totals),
    }
    click.echo("\n], " + _dump(tail)[1:])


def _separated(problems: Iterator[Problem]) -> Iterator[tuple[str, Problem]]:
    separator = "\n"
    for problem in problems:
        yield separator, problem
        separator = ",\n"


def _fields(problem: Problem) -> dict[str, Any]:
    return {
        "kind": problem.kind,
        "severity": str(problem.severity),
        "path": problem.path,
        "document_id": problem.document_id,
        "detail": problem.detail,
        "advice": problem.advice,
    }


def _dump(value: dict[str, Any]) -> str:
    # ASCII: a name that is not UTF-8 may be in the path that was given.
    return json.dumps(value)

"""The calls that log, as they stand in the sources."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True)
class LogCall:
    """`text` and `fields` are None where they are not constant."""

    place: str
    level: str
    text: str | None
    fields: frozenset[str] | None


@functools.cache
def log_calls() -> list[LogCall]:
    """All of the package's, as by `log` or `logger`."""
    paths = [
        path
        for folder in ("shared/amsync", "gateway", "worker")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    return [call for path in paths for call in _of(path.read_text(), str(path.relative_to(ROOT)))]


def _of(source: str, place: str) -> Iterator[LogCall]:
    tree = ast.parse(source)
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=attr)) if (
                attr in (*LEVELS, "exception", "log")
            ):
                level = "error" if attr == "exception" else attr
                text = node.args[0] if len(node.args) == 1 else None
                extra = next((each.value for each in node.keywords if each.arg == "extra"), None)
                yield LogCall(
                    f"{place}:{node.lineno}", level, _constant(text), _keys(extra, assigned)
                )
            case _:
                pass


def _constant(node: ast.expr | None) -> str | None:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else None  # type: ignore[union-attr, return-value]


def _keys(node: ast.expr | None, assigned: dict[str, ast.expr]) -> frozenset[str] | None:
    if isinstance(node, ast.Name):
        node = assigned.get(node.id)
    if node is None:
        return frozenset()
    if not isinstance(node, ast.Dict):
        return None
    keys = [_constant(key) for key in node.keys]
    return None if None in keys else frozenset(key for key in keys if key is not None)

"""Writes what the chart has from elsewhere; `--check` says instead what is not in step.

    tools/helm-docs.py [--check]

- helm/amsync/README.md: the table of values, from the comments in values.yaml
- helm/amsync/values.schema.json: which options gateways and workers take, from the commands
- helm/amsync/files/dashboard.json: the dashboard of docker/grafana
"""

import json
import re
import sys
from pathlib import Path

import click
import yaml

from amsync.cli import cli

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm/amsync"
DASHBOARD = ROOT / "docker/grafana/dashboards/amsync.json"
BEGIN, END = "<!-- values: written by `make helm-docs` -->", "<!-- end of values -->"

OWN_OPTIONS = {
    "gateway": {
        *("config", "redis", "prefix", "port", "host", "tls-cert", "tls-key"),
        *("tls-minimum-version", "allow-anonymous", "allowed-origins", "trusted-proxies"),
        *("admin-port", "admin-host", "drain-seconds", "log-format", "log-level"),
        *("auth-client-id", "auth-issuer", "auth-allowed-emails", "auth-allowed-domains"),
        *("auth-shared-secret", "auth-issuers", "auth-keys", "auth-issuer-ca"),
        *("access-webhook-token", "access-webhook-ca", "admin-token"),
    },
    "worker": {
        *("config", "redis", "prefix", "data-dir", "admin-port", "admin-host"),
        *("drain-seconds", "log-format", "log-level"),
    },
}
"""Options with values of their own, or that the chart alone may set."""


def options_of(name: str) -> list[str]:
    """Long names of the options that may stand in `gateway.options` or `worker.options`."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    names = {
        max(each.opts, key=len).removeprefix("--")
        for each in command.params
        if isinstance(each, click.Option)
    }
    return sorted(names - {"help"} - OWN_OPTIONS[name])


def schema(text: str) -> str:
    """The schema with the options that there are now."""
    content = json.loads(text)
    for name in OWN_OPTIONS:
        option = {"$ref": "#/definitions/option"}
        content["definitions"][f"{name}Options"]["properties"] = dict.fromkeys(
            options_of(name), option
        )
    return json.dumps(content, indent=2) + "\n"


def described(text: str) -> list[tuple[str, str, str]]:
    """Key, default and description of each value that has one, in the file's order."""
    values = yaml.safe_load(text)
    rows: list[tuple[str, str, str]] = []
    path: list[tuple[int, str]] = []
    words: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            words = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#") and words:
            words.append(stripped.removeprefix("#").strip())
        elif found := re.match(r"( *)([A-Za-z]+):", line):
            indent = len(found[1])
            path = [each for each in path if each[0] < indent] + [(indent, found[2])]
            if words:
                rows.append((_key(path), _default(values, path), " ".join(words)))
            words = []
        else:
            words = []
    return rows


def _key(path: list[tuple[int, str]]) -> str:
    return ".".join(name for _, name in path)


def _default(values: object, path: list[tuple[int, str]]) -> str:
    for _, name in path:
        assert isinstance(values, dict)
        values = values[name]
    return json.dumps(values)


def readme(text: str, values: str) -> str:
    """The README with the table of these values."""
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for key, default, meaning in described(values):
        lines.append(f"| `{key}` | `{default}` | {meaning.replace('|', chr(92) + '|')} |")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(lines)
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def wanted() -> dict[Path, str]:
    """What each file should contain."""
    values = (CHART / "values.yaml").read_text()
    return {
        CHART / "README.md": readme((CHART / "README.md").read_text(), values),
        CHART / "values.schema.json": schema((CHART / "values.schema.json").read_text()),
        CHART / "files/dashboard.json": DASHBOARD.read_text(),
    }


def stale() -> list[Path]:
    """Files that are not as they should be."""
    return [
        path for path, text in wanted().items() if not path.exists() or path.read_text() != text
    ]


def main() -> int:
    """Write, or check."""
    found = stale()
    if sys.argv[1:] == ["--check"]:
        for path in found:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not in step; run: make helm-docs\n")
        return 1 if found else 0
    text = wanted()
    for path in found:
        path.write_text(text[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())

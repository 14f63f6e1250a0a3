"""clients/js as others install it: its options, its types, what is in the package."""

import json
import re
from pathlib import Path

import pytest

from jsclient.clients import Clients
from support.program import run_to_end

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "js"
JS = ROOT / "tests" / "js"


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("wss://sync.example.org/path?x=1", {}, None),
        ("ws://localhost:3030", {}, None),
        ("ws://127.0.0.1:3030", {}, None),
        ("ws://[::1]:3030", {}, None),
        ("ws://sync.example.org", {"allowInsecure": True}, None),
        ("ws://sync.example.org", {}, "wss:"),
        ("ws://localhost.example.org", {}, "wss:"),
        ("https://sync.example.org", {}, "wss:"),
        ("wss://user:secret@sync.example.org", {}, "password"),
        ("wss://sync.example.org#here", {}, "fragment"),
        ("sync.example.org", {}, "Invalid URL"),
        ("wss://sync.example.org", {"getToken": "token"}, "getToken"),
        ("wss://sync.example.org", {"minRetryMs": 0}, "minRetryMs=0"),
        ("wss://sync.example.org", {"maxRetryMs": 2**31}, "maxRetryMs"),
        ("wss://sync.example.org", {"readyMs": "soon"}, "readyMs=soon"),
    ],
)
def test_address_and_options_are_checked(
    clients: Clients, url: str, options: dict[str, object], said: str | None
) -> None:
    answer = clients.driver.call("refusal", {"url": url, "options": options})

    if said is None:
        assert answer is None
    else:
        assert said in answer
        assert answer.startswith("TypeError")
        assert "secret" not in answer


def test_types_are_those_of_the_javascript() -> None:
    run = run_to_end([JS / "node_modules" / ".bin" / "tsc", "-p", JS / "types"])

    assert run.returncode == 0, run.stdout


def test_package_holds_what_it_imports() -> None:
    run = run_to_end(["npm", "pack", "--dry-run", "--json", PACKAGE])
    packed = {each["path"] for each in json.loads(run.stdout)[0]["files"]}

    assert {"package.json", "README.md", "LICENSE", "index.js", "index.d.ts"} <= packed
    assert {path.name for path in PACKAGE.glob("*.js")} <= packed
    assert not any(path.startswith("node_modules") for path in packed)


def test_package_asks_for_what_it_imports() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    sources = "".join(path.read_text() for path in PACKAGE.glob("*.js"))
    named = set(re.findall(r'from "([^."][^"]*)"', sources))

    assert named <= set(package["dependencies"]) | set(package["peerDependencies"])


def test_tests_use_versions_that_it_allows() -> None:
    allowed = json.loads((PACKAGE / "package.json").read_text())["peerDependencies"]
    used = json.loads((JS / "package.json").read_text())["dependencies"]

    for name, versions in allowed.items():
        assert versions == f"^{used[name]}.0"

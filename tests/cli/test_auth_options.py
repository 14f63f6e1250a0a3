"""The options of authentication: every one by flag, environment and TOML; both commands."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from amsync import AuthConfig, Issuer, write_cert
from amsync.cli import options as cli_options
from amsync.cluster.gateway_node import GatewayNode
from amsync.node import Node
from support.issuer import SigningKey

from .invoking import alone_in, invoke

SECRET = "SECRETSECRETSECRETSECRETSECRETSECRET"
URL = "https://issuer.example.com"
COMMANDS = {"serve": ["serve"], "gateway": ["gateway", "--redis", "redis://127.0.0.1"]}
TLS = ("--trusted-proxies", "127.0.0.1/32")
"""Tokens are taken with TLS only, here that of a proxy."""
KEY = SigningKey("k", "ES256")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone_in(tmp_path, monkeypatch)
    Path("keys.json").write_text(json.dumps({"keys": [KEY.jwk()]}))


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[AuthConfig | None]:
    """`auth` of the nodes that would have been run."""
    found: list[AuthConfig | None] = []

    async def note(node: Node | GatewayNode, _greet: object) -> None:
        found.append(node.options.auth)

    monkeypatch.setattr(cli_options, "_live", note)
    return found


def run(*arguments: str, env: dict[str, str] | None = None, command: str = "serve") -> Result:
    return invoke(*COMMANDS[command], *TLS, *arguments, env=env)


def toml_of(value: object) -> str:
    return json.dumps(value)  # of texts, numbers, truth and arrays of texts it is the same


EVERY_OPTION: dict[str, tuple[str, Any, dict[str, Any]]] = {
    # name: (text for flag and environment, value in TOML, arguments of AuthConfig)
    "auth_client_id": ("another", "another", {"client_id": "another"}),
    "auth_issuer": (URL, URL, {"issuer": URL}),
    "auth_allowed_emails": (
        "a@x.org, b@x.org",
        ["a@x.org", "b@x.org"],
        {"allowed_emails": ["a@x.org", "b@x.org"]},
    ),
    "auth_allowed_domains": (
        "x.org,*.y.org",
        "x.org,*.y.org",
        {"allowed_domains": ["x.org", "*.y.org"]},
    ),
    "auth_validator": (
        "os.path:isabs",
        "os.path:isabs",
        {"custom_validator": os.path.isabs},
    ),
    "auth_audience": ("api,web", ["api", "web"], {"audiences": ["api", "web"]}),
    "auth_authorized_party": ("app", "app", {"authorized_parties": "app"}),
    "auth_jwks_url": (URL + "/keys", URL + "/keys", {"jwks_url": URL + "/keys"}),
    "auth_algorithm": ("RS256,ES256", ["RS256", "ES256"], {"algorithms": ["RS256", "ES256"]}),
    "auth_required_claim": (
        "hd=x.org,groups=a,groups=b,acr",
        ["hd=x.org", "groups=a", "groups=b", "acr"],
        {"required_claims": {"hd": ["x.org"], "groups": ["a", "b"], "acr": None}},
    ),
    "auth_leeway_seconds": ("0", 0, {"leeway_seconds": 0.0}),
    "auth_max_token_bytes": ("4096", 4096, {"max_token_bytes": 4096}),
    "auth_max_stale_seconds": ("0", 0.0, {"max_stale_seconds": 0.0}),
    "auth_allow_query_token": ("true", True, {"allow_query_token": True}),
}


@pytest.mark.parametrize("name", EVERY_OPTION)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_source_works_for_every_option(
    configured: list[AuthConfig | None], name: str, command: str
) -> None:
    text, value, arguments = EVERY_OPTION[name]
    dashed = name.replace("_", "-")
    flags = [f"--{dashed}"] if isinstance(value, bool) else [f"--{dashed}", text]
    if name == "auth_required_claim":
        flags = [part for each in value for part in (f"--{dashed}", each)]
    base = {} if name == "auth_client_id" else {"OIDC_CLIENT_ID": "mine"}
    Path("dash.toml").write_text(f"{dashed} = {toml_of(value)}\n")
    Path("underscore.toml").write_text(f"{name} = {toml_of(value)}\n")

    results = [
        run(*flags, env=base, command=command),
        run(env={**base, f"AMSYNC_{name.upper()}": text}, command=command),
        run("--config", "dash.toml", env=base, command=command),
        run(env={**base, "AMSYNC_CONFIG": "underscore.toml"}, command=command),
    ]

    assert [result.output for result in results] == [""] * 4
    assert configured == [AuthConfig(**{"client_id": "mine", **arguments})] * 4


def test_keys_of_a_file(configured: list[AuthConfig | None]) -> None:
    given = ("--auth-client-id", "mine", "--auth-issuer", "ours")
    Path("c.toml").write_text('auth_keys = "keys.json"\n')
    run(*given, "--auth-keys", "keys.json")
    run(*given, env={"AMSYNC_AUTH_KEYS": "keys.json"})
    run(*given, "--config", "c.toml")
    assert configured == [AuthConfig("mine", "ours", keys=Path("keys.json"))] * 3


def test_issuer_ca(configured: list[AuthConfig | None], tmp_path: Path) -> None:
    path = str(write_cert(tmp_path).cert)
    Path("c.toml").write_text(f'auth_issuer_ca = "{path}"\n')
    run("--auth-client-id", "mine", "--auth-issuer-ca", path)
    run("--auth-client-id", "mine", env={"AMSYNC_AUTH_ISSUER_CA": path})
    run("--auth-client-id", "mine", "--config", "c.toml")
    assert configured == [AuthConfig("mine", issuer_ca=path)] * 3


def test_shared_secret_has_the_sources_of_secrets(configured: list[AuthConfig | None]) -> None:
    given = ("--auth-client-id", "mine", "--auth-issuer", "ours")
    Path("secret").write_text(SECRET + "\n")
    Path("c.toml").write_text(f'auth_shared_secret = "{SECRET}"\n')
    run(*given, "--auth-shared-secret", SECRET)
    run(*given, env={"AMSYNC_AUTH_SHARED_SECRET": SECRET})
    run(*given, env={"AMSYNC_AUTH_SHARED_SECRET_FILE": "secret"})
    run(*given, "--config", "c.toml")
    assert configured == [AuthConfig("mine", "ours", shared_secret=SECRET)] * 4


def test_further_issuers(configured: list[AuthConfig | None]) -> None:
    tables = [
        {"url": "https://a.org", "audiences": ["a"], "jwks_url": "https://a.org/keys"},
        {"url": "b", "shared-secret": SECRET, "authorized-parties": "app", "audiences": "b"},
    ]
    Path("c.toml").write_text(
        """
[[auth_issuers]]
url = "https://a.org"
audiences = ["a"]
jwks_url = "https://a.org/keys"

[[auth_issuers]]
url = "b"
"""
        + f'shared-secret = "{SECRET}"\nauthorized-parties = "app"\naudiences = "b"\n'
    )
    Path("issuers.json").write_text(json.dumps(tables))
    given = ("--auth-client-id", "mine")
    run(*given, "--auth-issuers", json.dumps(tables))
    run(*given, env={"AMSYNC_AUTH_ISSUERS": json.dumps(tables)})
    run(*given, env={"AMSYNC_AUTH_ISSUERS_FILE": "issuers.json"})
    run(*given, "--config", "c.toml")
    wanted = [
        Issuer("https://a.org", audiences="a", jwks_url="https://a.org/keys"),
        Issuer("b", shared_secret=SECRET, authorized_parties="app", audiences="b"),
    ]
    assert configured == [AuthConfig("mine", issuers=wanted)] * 4


def test_flag_wins_over_environment_over_toml(configured: list[AuthConfig | None]) -> None:
    Path("c.toml").write_text('auth_client_id = "toml"\nauth_allowed_domains = ["t.org"]\n')
    env = {"AMSYNC_AUTH_CLIENT_ID": "variable", "AMSYNC_AUTH_ALLOWED_DOMAINS": "e.org"}
    run(
        "--config", "c.toml", "--auth-client-id", "flag", "--auth-allowed-domains", "f.org", env=env
    )
    run("--config", "c.toml", env={**env, "OIDC_CLIENT_ID": "oidc"})
    run("--config", "c.toml", env={"OIDC_CLIENT_ID": "oidc"})
    run(env={"OIDC_CLIENT_ID": "oidc"})
    found = [(each.client_id, each.allowed_domains) for each in configured if each]
    assert found == [
        ("flag", ("f.org",)),
        ("variable", ("e.org",)),
        ("toml", ("t.org",)),
        ("oidc", None),
    ]


def test_examples_of_the_r_documentation(configured: list[AuthConfig | None]) -> None:
    google = ("--auth-client-id", "123456789.apps.googleusercontent.com")
    run(*google, "--auth-allowed-domains", "mycompany.com")
    entra = {
        "OIDC_CLIENT_ID": "abcdef-1234-5678",
        "OIDC_ISSUER": "https://login.microsoftonline.com/common/v2.0",
    }
    run("--auth-allowed-emails", "alice@mycompany.com", env=entra)
    assert configured == [
        AuthConfig(client_id=google[1], allowed_domains="mycompany.com"),
        AuthConfig(
            client_id="abcdef-1234-5678",
            issuer="https://login.microsoftonline.com/common/v2.0",
            allowed_emails="alice@mycompany.com",
        ),
    ]


def test_without_any_option_there_is_no_authentication(
    configured: list[AuthConfig | None],
) -> None:
    run()
    run(env={"OIDC_ISSUER": URL, "OIDC_CLIENT_ID": ""})
    run("--no-auth-allow-query-token")
    assert configured == [None] * 3


@pytest.mark.parametrize(
    "option",
    ["--auth-issuer=" + URL, "--auth-allowed-domains=x.org", "--auth-allow-query-token"],
)
def test_option_without_a_client_id_never_leaves_the_server_open(
    configured: list[AuthConfig | None], option: str
) -> None:
    result = run(option)
    assert result.exit_code == 2
    assert "client_id" in result.output
    assert "OIDC_CLIENT_ID" in result.output
    assert configured == []


WRONG: dict[str, tuple[list[str], str]] = {
    "email": (["--auth-allowed-emails", "x.org"], "allowed_emails"),
    "domain": (["--auth-allowed-domains", "a@x.org"], "allowed_domains"),
    "validator": (["--auth-validator", "nothing"], "auth_validator"),
    "validator module": (["--auth-validator", "no_such_module:f"], "no_such_module"),
    "validator no callable": (["--auth-validator", "os:sep"], "module:function"),
    "issuer": (["--auth-issuer", "http://x.org"], "https://"),
    "keys": (["--auth-issuer", "ours", "--auth-keys", "nowhere"], "nowhere"),
    "secret": (["--auth-issuer", "ours", "--auth-shared-secret", "tiny"], "32"),
    "leeway": (["--auth-leeway-seconds", "1000"], "300"),
    "claim": (["--auth-required-claim", "=x"], "required_claims"),
    "issuers no JSON": (["--auth-issuers", "{"], "JSON"),
    "issuers no array": (["--auth-issuers", "7"], "array of objects"),
    "issuers of texts": (["--auth-issuers", '["https://a.org"]'], "array of objects"),
    "issuers without url": (["--auth-issuers", "[{}]"], "url"),
    "issuers unknown key": (["--auth-issuers", '[{"url": "x", "key": 1}]'], "'key'"),
    "issuers twice": (
        ["--auth-issuer", URL, "--auth-issuers", json.dumps({"url": URL})],
        "twice",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_value_ends_with_status_2_and_says_why(
    configured: list[AuthConfig | None], case: str
) -> None:
    arguments, said = WRONG[case]
    result = run("--auth-client-id", "mine", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert "Traceback" not in result.output
    assert configured == []


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("auth_allowed_emails = 7", "auth_allowed_emails"),
        ("auth_allowed_emails = [7]", "auth_allowed_emails"),
        ('auth_issuers = "x"', "auth_issuers"),
        ('auth_issuers = ["x"]', "auth_issuers"),
        ("auth_client_id = 7", "auth_client_id"),
        ("auth_client_id = ['a']", "auth_client_id"),
        ("[auth_issuers]\nurl = 'x'", "auth_issuers"),
    ],
)
def test_value_of_the_wrong_type_in_toml_is_refused(
    configured: list[AuthConfig | None], line: str, name: str
) -> None:
    Path("c.toml").write_text(line + "\n")
    result = run("--config", "c.toml")
    assert result.exit_code == 2
    assert name in result.output
    assert configured == []


def test_secrets_never_appear_in_messages() -> None:
    tables = json.dumps([{"url": "x", "shared_secret": SECRET, "nothing": 1}])
    Path("c.toml").write_text(f'auth_shared_secret = ["{SECRET}"]\n')
    Path("d.toml").write_text(f'auth_issuers = "{SECRET}"\n')
    for result in (
        run("--auth-shared-secret", SECRET, "--auth-issuer", "ours", "--auth-client-id", "a b"),
        run("--auth-client-id", "mine", "--auth-issuers", tables),
        run("--auth-client-id", "mine", "--auth-issuers", f"[{SECRET}"),
        run("--auth-client-id", "mine", "--auth-issuers", json.dumps(SECRET)),
        run("--config", "c.toml"),
        run("--config", "d.toml"),
    ):
        assert result.exit_code == 2
        assert SECRET not in result.output

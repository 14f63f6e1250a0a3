"""What the command says of access reaches the server's options, from every source."""

from pathlib import Path

import pytest
from click.testing import Result

from amsync import AccessConfig, Webhook
from amsync.options import ListenOptions

from .invoking import alone_in, invoke, note_options

TOKEN = "a-token-of-sixteen-characters"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone_in(tmp_path, monkeypatch)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ListenOptions]:
    return note_options(monkeypatch)


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return invoke("serve", *arguments, env=env)


def test_nothing_said_is_no_configuration(served: list[ListenOptions]) -> None:
    assert run().exit_code == 0
    assert (served[0].access, served[0].admin_token) == (None, None)


def test_webhook_comes_from_flags_variables_and_file(served: list[ListenOptions]) -> None:
    wanted = AccessConfig(webhook=Webhook("https://a.example/ask", "secret-1", 2.5))
    Path("c.toml").write_text(
        'access_webhook = "https://a.example/ask"\naccess-webhook-token = "secret-1"\n'
        "access_webhook_timeout_seconds = 2.5\n"
    )
    results = [
        run(
            "--access-webhook=https://a.example/ask",
            "--access-webhook-token=secret-1",
            "--access-webhook-timeout-seconds=2.5",
        ),
        run(
            env={
                "AMSYNC_ACCESS_WEBHOOK": "https://a.example/ask",
                "AMSYNC_ACCESS_WEBHOOK_TOKEN": "secret-1",
                "AMSYNC_ACCESS_WEBHOOK_TIMEOUT_SECONDS": "2.5",
            }
        ),
        run("--config", "c.toml"),
    ]

    assert [result.output for result in results] == [""] * 3
    assert [options.access for options in served] == [wanted] * 3


def test_secrets_may_be_in_files(served: list[ListenOptions]) -> None:
    Path("hook").write_text("secret-1\n")
    Path("admin").write_text(f"{TOKEN}\n")
    env = {"AMSYNC_ACCESS_WEBHOOK_TOKEN_FILE": "hook", "AMSYNC_ADMIN_TOKEN_FILE": "admin"}

    run("--access-webhook=https://a.example", env=env)

    (options,) = served
    assert options.access is not None
    assert options.access.webhook is not None
    assert options.access.webhook.token == "secret-1"
    assert options.admin_token == TOKEN


def test_callable_is_imported(served: list[ListenOptions]) -> None:
    Path("rules_of_access.py").write_text("def check(identity, document_id):\n    return 'read'\n")

    assert run("--access-check=rules_of_access:check").output == ""

    assert served[0].access is not None
    assert served[0].access.check is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--access-claim=amsync"], "needs authentication"),
        (["--access-webhook=http://a.example"], "https://"),
        (["--access-webhook-token=x"], "without access_webhook"),
        (["--access-check=os:getpid"], "must take"),
        (["--access-check=nothing"], "module:function"),
        (["--access-webhook=https://a", "--access-webhook-ca=missing.pem"], "missing.pem"),
        (["--admin-token=short"], "16 or more"),
        (["--admin-token=" + TOKEN, "--admin-port=off"], "admin_port"),
    ],
)
def test_what_can_not_be_is_refused_with_its_reason(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert TOKEN not in result.output

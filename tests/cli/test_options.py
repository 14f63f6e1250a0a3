"""Where the command's options come from, and what it says of wrong ones; all in this process."""

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner, Result

import amsync
from amsync import Limits, Share, TLSConfig
from amsync.cli import cli, serve
from amsync.options import EPHEMERAL, NodeOptions

from .invoking import alone_in, invoke, note_options


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    alone_in(tmp_path, monkeypatch)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[NodeOptions]:
    return cast(list[NodeOptions], note_options(monkeypatch))


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return invoke("serve", *arguments, env=env)


def serve_command() -> click.Command:
    return serve.serve


def test_defaults(served: list[NodeOptions]) -> None:
    assert run().exit_code == 0
    (options,) = served
    assert options == NodeOptions(
        port=3030,
        host="127.0.0.1",
        data_dir=Path(".automerge"),
        auto_create_docs=True,
        storage_id=None,
        tls=None,
        admin_port=3031,
        admin_host="127.0.0.1",
        share=Share.ALLOW,
        allow_anonymous=False,
        limits=None,
        drain_seconds=0.0,
    )


def test_every_option_has_its_variable_in_the_help() -> None:
    help_text = " ".join(run("--help", env={"COLUMNS": "200"}).output.split())
    for parameter in serve_command().params:
        assert parameter.name is not None
        if parameter.name == "help":
            continue
        variable = "AMSYNC_" + parameter.name.upper()
        assert parameter.envvar == variable
        assert f"env var: {variable}" in help_text, variable
    for each in fields(Limits):
        assert "--" + each.name.replace("_", "-") in help_text


EVERY_OPTION: dict[str, tuple[str, Any, str, Any]] = {
    # name: (text for flag and environment, value in TOML, field of NodeOptions, value there)
    "port": ("4001", 4001, "port", 4001),
    "host": ("127.0.0.7", "127.0.0.7", "host", "127.0.0.7"),
    "data_dir": ("elsewhere", "elsewhere", "data_dir", Path("elsewhere")),
    "auto_create_docs": ("false", False, "auto_create_docs", False),
    "storage_id": ("mine", "mine", "storage_id", "mine"),
    "admin_port": ("4002", 4002, "admin_port", 4002),
    "admin_host": ("::1", "::1", "admin_host", "::1"),
    "share": ("announce", "announce", "share", Share.ANNOUNCE),
    "allow_anonymous": ("true", True, "allow_anonymous", True),
    "drain_seconds": ("2.5", 2.5, "drain_seconds", 2.5),
}


@pytest.mark.parametrize("name", EVERY_OPTION)
def test_every_source_works_for_every_option(served: list[NodeOptions], name: str) -> None:
    text, value, field, wanted = EVERY_OPTION[name]
    flag = "--" + name.replace("_", "-")
    flags = [flag, text]
    if isinstance(value, bool):
        flags = [flag] if value else ["--no-" + name.replace("_", "-")]
    shown = str(value).lower() if isinstance(value, bool | int | float) else f'"{value}"'
    Path("dash.toml").write_text(f"{name.replace('_', '-')} = {shown}\n")
    Path("underscore.toml").write_text(f"{name} = {shown}\n")

    results = [
        run(*flags),
        run(env={f"AMSYNC_{name.upper()}": text}),
        run("--config", "dash.toml"),
        run(env={"AMSYNC_CONFIG": "underscore.toml"}),
    ]

    assert [result.output for result in results] == [""] * 4
    assert [getattr(options, field) for options in served] == [wanted] * 4


@pytest.mark.parametrize("name", [each.name for each in fields(Limits)])
def test_every_limit_has_all_sources(served: list[NodeOptions], name: str) -> None:
    Path("c.toml").write_text(f"{name} = 77\n")
    run("--" + name.replace("_", "-"), "77")
    run(env={f"AMSYNC_{name.upper()}": "77"})
    run("--config", "c.toml")
    limits = [options.limits for options in served]
    assert [getattr(each, name) for each in limits] == [77, 77, 77]


def test_precedence_is_flag_environment_file_toml_default(served: list[NodeOptions]) -> None:
    Path("c.toml").write_text('storage_id = "toml"\nhost = "127.0.0.3"\n')
    env = {"AMSYNC_STORAGE_ID": "environment"}

    run("--config", "c.toml", "--storage-id", "flag", env=env)
    run("--config", "c.toml", env=env)
    run("--config", "c.toml")
    run()

    assert [options.storage_id for options in served] == ["flag", "environment", "toml", None]
    assert [options.host for options in served] == ["127.0.0.3"] * 3 + ["127.0.0.1"]


def test_precedence_of_a_secret_in_a_file(served: list[NodeOptions]) -> None:
    Path("key").write_text("from-file\n")
    Path("c.toml").write_text('tls_key = "from-toml"\ntls_cert = "cert"\n')
    file = {"AMSYNC_TLS_KEY_FILE": "key"}

    run("--config", "c.toml", "--tls-key", "flag", env={**file, "AMSYNC_TLS_KEY": "variable"})
    run("--config", "c.toml", env={**file, "AMSYNC_TLS_KEY": "variable"})
    run("--config", "c.toml", env=file)
    run("--config", "c.toml")
    run("--tls-cert", "cert", env=file)

    keys = [options.tls.key if options.tls else None for options in served]
    assert keys == ["flag", "variable", "from-file", "from-toml", "from-file"]


def test_flag_off_wins_over_a_variable_that_says_on(served: list[NodeOptions]) -> None:
    run("--no-auto-create-docs", env={"AMSYNC_AUTO_CREATE_DOCS": "true"})
    run("--auto-create-docs", env={"AMSYNC_AUTO_CREATE_DOCS": "false"})
    assert [options.auto_create_docs for options in served] == [False, True]


def test_empty_variable_is_as_good_as_none(served: list[NodeOptions]) -> None:
    result = run(env={"AMSYNC_PORT": "", "AMSYNC_HOST": "", "AMSYNC_CONFIG": ""})
    assert result.output == ""
    assert served[0].port == 3030
    assert served[0].host == "127.0.0.1"


@pytest.mark.parametrize(("text", "wanted"), [("off", None), ("OFF", None), ("0", 0)])
def test_admin_port_may_be_off(served: list[NodeOptions], text: str, wanted: int | None) -> None:
    Path("c.toml").write_text(f'admin_port = "{text}"\n')
    run("--admin-port", text)
    run(env={"AMSYNC_ADMIN_PORT": text})
    run("--config", "c.toml")
    assert [options.admin_port for options in served] == [wanted] * 3


def test_ephemeral_storage_id(served: list[NodeOptions]) -> None:
    run("--storage-id", "ephemeral")
    assert served[0].storage_id is EPHEMERAL


def test_tls_options(served: list[NodeOptions]) -> None:
    run("--tls-cert", "c", "--tls-key", "k", "--tls-minimum-version", "TLSv1.3")
    assert served[0].tls == TLSConfig("c", "k", "TLSv1.3")


WRONG: dict[str, tuple[str, Any, str]] = {
    # case: (name=text, value in TOML, one of these says what is allowed)
    "port text": ("port=many", "many", "65535"),
    "port too large": ("port=65536", 65536, "65535"),
    "port negative": ("port=-1", -1, "65535"),
    "port off": ("port=off", "off", "65535"),
    "port fraction": ("port=1.5", 1.5, "65535|whole number"),
    "port empty": ("port= ", " ", "65535"),
    "admin port": ("admin_port=on", "on", "off"),
    "boolean": ("auto_create_docs=maybe", "maybe", "false"),
    "flag": ("allow_anonymous=perhaps", "perhaps", "false"),
    "choice": ("log_format=xml", "xml", "json"),
    "level": ("log_level=loud", "loud", "debug"),
    "version": ("tls_minimum_version=SSLv3", "SSLv3", "TLSv1.2"),
    "float": ("drain_seconds=soon", "soon", "float|number"),
    "range": ("drain_seconds=-1", -1, "3600"),
    "limit text": ("max_connections=lots", "lots", "integer|whole number"),
    "limit negative": ("max_connections=-5", -5, ">=1"),
    "share": ("share=everyone", "everyone", "module:function"),
    "share module": ("share=no_such_module:f", "no_such_module:f", "module:function"),
    "share name": ("share=os:no_such_name", "os:no_such_name", "module:function"),
    "share no callable": ("share=os:sep", "os:sep", "module:function"),
}


@pytest.mark.parametrize(
    ("case", "source"),
    [
        (case, source)
        for case in WRONG
        for source in ("flag", "environment", "toml")
        if (case, source) not in {("boolean", "flag"), ("flag", "flag")}  # they take no value
    ],
)
def test_wrong_value_ends_with_status_2_and_says_why(
    served: list[NodeOptions], case: str, source: str
) -> None:
    assignment, value, allowed = WRONG[case]
    name, _, text = assignment.partition("=")
    dashed = name.replace("_", "-")
    if source == "flag":
        result = run(f"--{dashed}={text}")
    elif source == "environment":
        result = run(env={f"AMSYNC_{name.upper()}": text})
    else:
        shown = str(value) if isinstance(value, int | float) else f'"{value}"'
        Path("c.toml").write_text(f"{dashed} = {shown}\n")
        result = run("--config", "c.toml")

    assert result.exit_code == 2
    assert served == []
    said = " ".join(result.output.split())
    assert name in said or dashed in said
    assert text in said
    assert any(each in said for each in allowed.split("|"))
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("line", "name", "found"),
    [
        ("port = true", "port", "True"),
        ("port = 3030.9", "port", "3030.9"),
        ("admin_port = false", "admin_port", "False"),
        ("drain_seconds = true", "drain_seconds", "True"),
        ("max_connections = true", "max_connections", "True"),
        ("max_connections = 1.5", "max_connections", "1.5"),
        ("host = 127", "host", "127"),
        ("share = true", "share", "True"),
        ("auto_create_docs = 7", "auto_create_docs", "7"),
        ("port = [3030]", "port", "3030"),
        ("[port]\nx = 1", "port", "x"),
        ("data_dir = 2024-01-01", "data_dir", "2024"),
    ],
)
def test_value_of_the_wrong_type_in_toml_is_refused(
    served: list[NodeOptions], line: str, name: str, found: str
) -> None:
    Path("c.toml").write_text(line + "\n")
    result = run("--config", "c.toml")
    assert result.exit_code == 2
    assert served == []
    said = result.output.replace("-", "_")
    assert name in said
    assert found.replace("-", "_") in said


def test_unknown_key_names_those_that_exist(served: list[NodeOptions]) -> None:
    Path("c.toml").write_text("prot = 3030\n")
    result = run("--config", "c.toml")
    assert result.exit_code == 2
    assert "'prot'" in result.output
    assert "port" in result.output.replace("'prot'", "")
    assert "c.toml" in result.output
    assert served == []


@pytest.mark.parametrize("content", ["port = ", "\xff\xfe", None])
def test_config_that_can_not_be_read(served: list[NodeOptions], content: str | None) -> None:
    if content is not None:
        Path("c.toml").write_bytes(content.encode("latin-1"))
    result = run("--config", "c.toml")
    assert result.exit_code == 2
    assert "c.toml" in result.output
    assert "Traceback" not in result.output


def test_secret_file_that_can_not_be_read(served: list[NodeOptions]) -> None:
    result = run("--tls-cert", "c", env={"AMSYNC_TLS_KEY_FILE": "missing"})
    assert result.exit_code == 2
    assert "AMSYNC_TLS_KEY_FILE" in result.output
    assert "missing" in result.output


@pytest.mark.parametrize("given", ["tls-cert", "tls-key"])
def test_half_a_tls_pair_is_refused(served: list[NodeOptions], given: str) -> None:
    result = run(f"--{given}", "x")
    assert result.exit_code == 2
    assert "--tls-cert" in result.output
    assert "--tls-key" in result.output


def test_bind_beyond_loopback_needs_allow_anonymous(served: list[NodeOptions]) -> None:
    result = run("--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--allow-anonymous" in result.output
    assert run("--host", "0.0.0.0", "--allow-anonymous").exit_code == 0


def test_unreadable_tls_files_are_named() -> None:
    result = run("--tls-cert", "no-cert", "--tls-key", "no-key", "--port", "0")
    assert result.exit_code == 2
    assert "no-cert" in result.output
    assert "Traceback" not in result.output


def test_key_text_never_appears_in_messages() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nSECRETSECRET\n-----END PRIVATE KEY-----\n"
    for result in (
        run("--tls-cert", "no-cert", "--tls-key", key, "--port", "0"),
        run("--tls-key", key),
        run("--tls-cert", key, "--tls-key", key, "--port", "0"),
    ):
        assert result.exit_code == 2
        assert "SECRETSECRET" not in result.output


def test_key_of_the_wrong_type_never_appears_in_messages() -> None:
    Path("c.toml").write_text('tls_cert = "c"\ntls_key = ["SECRETSECRET"]\n')
    result = run("--config", "c.toml")
    assert result.exit_code == 2
    assert "tls_key" in result.output
    assert "SECRETSECRET" not in result.output


def test_other_storage_id_than_the_kept_one_is_a_wrong_option() -> None:
    amsync.Server(data_dir="kept", storage_id="first").start().close()
    result = run("--data-dir", "kept", "--storage-id", "second", "--port", "0")
    assert result.exit_code == 2
    assert "storage_id" in result.output
    assert "first" in result.output


def test_unknown_option_and_command() -> None:
    assert run("--no-such-option").exit_code == 2
    assert CliRunner().invoke(cli, ["no-such-command"]).exit_code == 2
    shown = CliRunner().invoke(cli, ["--version"])
    assert amsync.__version__ in shown.output

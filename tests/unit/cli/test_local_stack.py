"""The commands use the local stack in `.exporter` only if no setting says what else is meant."""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from exporter import settings
from exporter.cli import local_stack
from exporter.cli.main import app
from exporter.errors import ExporterError
from exporter.local import running
from exporter.local.running import Description

FOLDER = Path(".exporter")
OWN = {
    "EXPORTER_REDIS_URL": "redis://:it's@127.0.0.1:9901/0",
    "EXPORTER_S3_BUCKET": "exports",
    "EXPORTER_CONFIG": "/there/exporter.toml",
    "AWS_ACCESS_KEY_ID": "own",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, and no setting."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("EXPORTER_", "AWS_"))]:
        monkeypatch.delenv(name)
    settings.load.cache_clear()
    yield tmp_path
    settings.load.cache_clear()


@pytest.fixture
def running_stack(home: Path) -> Iterator[Path]:
    """The folder of a stack that runs: described and locked."""
    folder = home / FOLDER
    folder.mkdir()
    running.write(folder, Description("http://127.0.0.1:9900", OWN))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


@pytest.fixture
def stopped_stack(home: Path) -> Path:
    """The folder of a stack that was killed: described, but no longer locked."""
    folder = home / FOLDER
    folder.mkdir()
    running.write(folder, Description("http://127.0.0.1:9900", OWN))
    (folder / "lock").touch()
    return folder


@pytest.mark.usefixtures("running_stack")
def test_without_a_setting_the_running_stack_is_used_and_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Given
    environ = {"PATH": "/bin", "AWS_PROFILE": "work", "EXPORTER_PART_SIZE": "16MiB"}
    # When
    local_stack.use(environ)
    # Then
    assert environ == {"PATH": "/bin", "EXPORTER_PART_SIZE": "16MiB", **OWN}
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "using the local stack in .exporter (EXPORTER_REDIS_URL is not set)"


@pytest.mark.usefixtures("running_stack")
def test_the_settings_are_those_of_the_stack_although_they_were_read_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    settings.load()
    for name in OWN:
        monkeypatch.setenv(name, "")  # restored after the test
    # When
    local_stack.use()
    # Then
    assert settings.load().redis_url == OWN["EXPORTER_REDIS_URL"]


@pytest.mark.usefixtures("running_stack")
def test_an_explicit_redis_wins_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    # Given
    environ = {"exporter_redis_url": "redis://elsewhere/0"}
    # When
    local_stack.use(environ)
    # Then
    assert environ == {"exporter_redis_url": "redis://elsewhere/0"}
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("running_stack")
@pytest.mark.parametrize("name", local_stack.ADDRESSES[1:])
def test_two_services_are_never_mixed(capsys: pytest.CaptureFixture[str], name: str) -> None:
    # Given
    environ = {name: "elsewhere"}
    # When
    local_stack.use(environ)
    # Then
    assert environ == {name: "elsewhere"}
    assert capsys.readouterr().err == (
        f"not using the local stack in .exporter, because {name} is set\n"
    )


@pytest.mark.usefixtures("running_stack")
def test_an_explicit_file_of_sources_wins() -> None:
    # Given
    environ = {"EXPORTER_CONFIG": "mine.toml"}
    # When
    local_stack.use(environ)
    # Then
    assert environ == OWN | {"EXPORTER_CONFIG": "mine.toml"}


def test_a_stack_that_was_killed_is_said_to_be_stopped(
    stopped_stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # When
    environ: dict[str, str] = {}
    local_stack.use(environ)
    # Then
    assert environ == {}
    assert "is not running: start it with `exporter up`" in capsys.readouterr().err


def test_a_stack_that_starts_is_said_to_start(
    running_stack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given
    running.remove(running_stack)
    # When
    local_stack.use({})
    # Then
    assert "is still starting" in capsys.readouterr().err


@pytest.mark.usefixtures("running_stack")
def test_the_folder_of_another_user_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    # When
    environ: dict[str, str] = {}
    local_stack.use(environ)
    # Then
    assert environ == {}
    assert capsys.readouterr().err == ""


def test_a_folder_without_a_stack_is_not_mentioned(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given: `exporter board load` made the folder
    (home / FOLDER).mkdir()
    # When
    local_stack.use({})
    # Then
    assert capsys.readouterr().err == ""


def test_a_shell_gets_the_variables_quoted(running_stack: Path) -> None:
    # Given
    (running_stack / "api_key").write_text("exp_1\n")
    # When
    done = CliRunner().invoke(app, ["env"])
    # Then
    words = [shlex.split(line) for line in done.stdout.splitlines()]
    assert {tuple(word[1].split("=", 1)) for word in words if word[0] == "export"} == {
        *OWN.items(),
        ("EXPORTER_API_KEY", "exp_1"),
    }
    assert done.exit_code == 0


def test_a_shell_gets_nothing_but_an_error_without_a_running_stack(stopped_stack: Path) -> None:
    # When
    done = CliRunner().invoke(app, ["env"])
    # Then
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "is not running" in done.stderr


COMMANDS = (
    "keys create --user ann",
    "keys list",
    "keys set 1 --credits 2",
    "keys revoke 1",
    "endpoints create https://example.com --user ann",
    "endpoints list --user ann",
    "endpoints rotate 1",
    "endpoints disable 1",
    "endpoints enable 1",
    "endpoints delete 1",
    "endpoints test 1",
    "doctor",
    "upgrade",
    "console",
    "api",
    "worker",
    "webhooks",
    "beat",
)
WITHOUT_SETTINGS = {
    *("up", "down", "demo", "env", "board serve", "board load"),
    *("export", "ls", "show", "watch", "download", "cancel", "retry", "rm"),
    *("sources", "preview", "listen"),
}


def test_all_commands_are_known_here() -> None:
    # Given
    tree = typer.main.get_command(app)
    assert isinstance(tree, typer.core.TyperGroup)
    # When
    names = {
        " ".join(filter(None, [name, one]))
        for name, command in tree.commands.items()
        for one in getattr(command, "commands", [""])
    }
    # Then
    covered = {one for one in names for command in COMMANDS if command.startswith(one)}
    assert names == covered | WITHOUT_SETTINGS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("home")
def test_every_command_that_reads_the_settings_looks_for_the_local_stack(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    # Given
    def found() -> None:
        raise SystemExit(99)

    monkeypatch.setattr(local_stack, "use", found)
    # When
    done = CliRunner().invoke(app, command.split())
    # Then
    assert done.exit_code == 99, done.output


@pytest.mark.usefixtures("running_stack")
def test_an_export_goes_to_the_stack_unless_a_service_is_named() -> None:
    assert local_stack.service_url(None) == "http://127.0.0.1:9900"
    assert local_stack.service_url("http://other") == "http://other"


def test_the_key_of_the_stack_is_not_sent_to_another_machine(running_stack: Path) -> None:
    # Given
    (running_stack / "api_key").write_text("exp_1\n")
    # When / Then
    assert local_stack.api_key("http://localhost:9900") == "exp_1"
    with pytest.raises(ExporterError, match="set EXPORTER_API_KEY"):
        local_stack.api_key("https://exports.example.com")

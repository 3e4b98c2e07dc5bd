"""No option of a command is ignored in silence: unknown, shortened, empty, or without an effect."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from typer.testing import CliRunner

from exporter import settings
from exporter.cli.main import app

ROOT: Any = typer.main.get_command(app)


def commands(group: Any, path: Sequence[str] = ()) -> Iterator[tuple[Sequence[str], Any]]:
    """Yields each command below a group, with the words that call it."""
    for name, command in group.commands.items():
        words = [*path, name]
        if hasattr(command, "commands"):
            yield from commands(command, words)
        else:
            yield words, command


COMMANDS = {" ".join(words): command for words, command in commands(ROOT)}


def options(words: str) -> list[str]:
    """Returns the long form of each option of a command."""
    forms = (form for one in COMMANDS[words].params for form in one.opts)
    return [form for form in forms if form.startswith("--")]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith(("EXPORTER_", "BOARD_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


def refused(*words: str) -> str:
    """Returns what a command line that must be refused prints."""
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), pytest.raises(SystemExit) as ended:
        ROOT.main(list(words), prog_name="exporter")
    assert ended.value.code == 2, printed.getvalue()
    assert list(Path.cwd().iterdir()) == []
    return printed.getvalue()


@pytest.mark.parametrize("words", COMMANDS)
@given(name=st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True))
@examples(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_unknown_option_of_any_command_is_an_error(words: str, name: str) -> None:
    known = {form for one in COMMANDS[words].params for form in (*one.opts, *one.secondary_opts)}
    assume(f"--{name}" not in {*known, "--help"})
    # When / Then
    assert f"No such option: --{name}" in refused(*words.split(), f"--{name}")


@pytest.mark.parametrize("words", COMMANDS)
def test_a_shortened_option_is_an_error(words: str) -> None:
    for option in options(words)[:2]:
        assert f"No such option: {option[:-1]}" in refused(*words.split(), option[:-1], "1")


@pytest.mark.parametrize("words", COMMANDS)
def test_an_empty_value_of_an_option_is_an_error(words: str) -> None:
    free = ("--name", "--description", "--faults", "--board-faults")
    for option in [one for one in options(words) if one not in free][:2]:
        assert f"{option} has an empty value" in refused(*words.split(), f"{option}=")


@pytest.mark.parametrize("form", [["--api-key", ""], ["--api-key=  "], ["-o", ""], ["--url", "\t"]])
def test_a_value_of_blanks_is_empty_however_it_is_given(form: list[str]) -> None:
    assert "has an empty value" in refused("export", *form)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("up --no-board --board-rows 5", "--board-rows has no effect with --no-board"),
        ("up --no-board --board-faults reset=1%", "--board-faults has no effect with --no-board"),
        ("board serve --seed 2", "--seed has no effect without --rows"),
        ("export -o x --format json --csv-safe", "--csv-safe has no effect with --format json"),
        ("export -o x --priority 10", "--priority': Input should be less than"),
        ("export -o x --limit 0", "--limit': Input should be greater than"),
        ("export -o x --limit many", "--limit': Input should be a valid integer"),
        ("api --port 99999", "--port': Input should be less than"),
        ("api --port 0", "--port': Input should be greater than"),
        ("board serve --port -1", "--port': Input should be greater than"),
        ("export -o x --query {a:b}", "--query is not JSON"),
        ("worker --concurrency 0", "0: give 1 to 512"),
        ("worker --concurrency 513", "513: give 1 to 512"),
        ("nosuch", "No such command 'nosuch'"),
        ("keys creat", "No such command 'creat'"),
        ("up extra", "unexpected extra argument"),
        ("-o", "No such option: -o"),
    ],
)
def test_what_would_have_no_effect_is_refused(words: str, said: str) -> None:
    assert said in refused(*words.split())


def test_a_feature_beside_all_and_a_limit_given_twice_are_refused() -> None:
    for words in ("--feature all --feature bulk", "--limit a=1 --limit a=2"):
        # When
        done = CliRunner().invoke(app, ["keys", "create", "--user", "u", *words.split()])
        # Then
        assert done.exit_code == 1
        assert "error: --" in done.output


def test_a_folder_that_cannot_be_made_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: the handlers of this process stay
    monkeypatch.setattr("signal.signal", lambda *_: None)
    # When
    done = CliRunner().invoke(app, ["up", "--data-dir", "/dev/null/x"])
    # Then
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("exporter up: ")
    assert "'/dev/null/x'" in done.stderr


@pytest.mark.parametrize("value", ["", " \n"])
def test_a_variable_of_an_option_without_a_value_counts_as_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str
) -> None:
    # Given
    for name in ("EXPORTER_API_KEY", "EXPORTER_BOARD_DATABASE", "EXPORTER_PUBLIC_URL"):
        monkeypatch.setenv(name, value)
    (tmp_path / "none.jsonl").touch()
    # When
    loaded = CliRunner().invoke(app, ["board", "load", "none.jsonl"])
    exported = CliRunner().invoke(app, ["export", "-o", "x"])
    # Then
    assert f"into {Path('.exporter/board.sqlite')}" in loaded.output
    assert "no API key: set EXPORTER_API_KEY" in exported.output

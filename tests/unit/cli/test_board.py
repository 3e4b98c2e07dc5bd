"""The kind of synthetic postings is chosen by name, and never without a number of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from exporter.board import app as board_app
from exporter.board import database, synthetic
from exporter.board.profiles import Profile
from exporter.cli.main import app


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["up", "--board-profile", "hostile"], "--board-profile needs --board-rows"),
        (["board", "serve", "--profile", "hostile"], "--profile needs --rows"),
        (["up", "--board-rows", "9", "--board-profile", "kind"], "'friendly', 'hostile'"),
    ],
)
def test_a_profile_without_postings_or_with_an_unknown_name_is_refused(
    command: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setenv("COLUMNS", "200")
    # When
    done = CliRunner().invoke(app, command)
    # Then
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize(
    ("options", "profile"),
    [([], Profile.FRIENDLY), (["--profile", "hostile"], Profile.HOSTILE)],
)
def test_a_board_says_how_many_of_its_postings_a_search_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], profile: Profile
) -> None:
    # Given
    path = tmp_path / "board.db"
    is_open = sum(not one.columns.expired for one in synthetic.generate(70, profile=profile))
    monkeypatch.setenv("BOARD_KEY", "k")
    monkeypatch.setattr(board_app, "serve", lambda *_: None)
    # When
    done = CliRunner().invoke(
        app, ["board", "serve", "--rows", "70", "--database", str(path), *options]
    )
    # Then
    assert done.exit_code == 0, done.output
    assert f"70 {profile} synthetic postings of seed 1" in done.output
    assert is_open == 70 or profile is Profile.HOSTILE
    assert f"{is_open} of the board's postings are open" in " ".join(done.output.split())
    assert database.count_open(path) == is_open


def test_a_board_that_is_served_again_without_a_number_keeps_its_postings_and_moves_their_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    path = tmp_path / "board.db"
    refreshed: list[Path] = []
    synthetic.synthesize(path, 5, profile=Profile.FRIENDLY)
    monkeypatch.setenv("BOARD_KEY", "k")
    monkeypatch.setattr(board_app, "serve", lambda *_: None)
    monkeypatch.setattr(synthetic, "refresh", refreshed.append)
    # When
    done = CliRunner().invoke(app, ["board", "serve", "--database", str(path)])
    # Then
    assert done.exit_code == 0, done.output
    assert refreshed == [path]
    assert database.count_open(path) == 5

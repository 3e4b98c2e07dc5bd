"""What holds secrets can be read by its owner only, whoever made it first."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exporter.cli.console import DATA_DIR
from exporter.cli.main import app
from exporter.errors import ConfigurationError
from exporter.local import private, stack


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_a_new_folder_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    # Given
    before = os.umask(umask)
    try:
        # When
        private.make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    # Then
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize("wide", [0o755, 0o750, 0o777])
def test_an_existing_folder_with_wider_rights_is_narrowed(tmp_path: Path, wide: int) -> None:
    # Given
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(wide)
    (folder / "kept").write_text("kept")

    # When
    private.make_folder(folder)

    # Then
    assert mode(folder) == 0o700
    assert (folder / "kept").read_text() == "kept"


def test_a_folder_that_all_users_share_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    # Given a folder like /tmp
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)

    # When
    with pytest.raises(ConfigurationError, match="choose a folder of your own"):
        private.make_folder(shared)

    # Then
    assert mode(shared) == 0o777 | stat.S_ISVTX


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)

    # When, then
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        private.make_folder(tmp_path)


def test_a_file_is_private_also_where_a_readable_one_was(tmp_path: Path) -> None:
    # Given
    file = tmp_path / "secrets.json"
    file.write_text("old")
    file.chmod(0o644)

    # When
    private.write_file(file, "new")

    # Then
    assert (mode(file), file.read_text()) == (0o600, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["secrets.json"]


def test_loading_the_board_before_the_first_start_makes_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.chdir(tmp_path)
    postings = tmp_path / "postings.jsonl"
    postings.write_text(json.dumps({"id": "1", "title": "Welder", "company": "Acme"}) + "\n")
    before = os.umask(0o022)
    try:
        # When
        done = CliRunner().invoke(app, ["board", "load", str(postings)])
    finally:
        os.umask(before)

    # Then
    assert done.exit_code == 0, done.output
    assert mode(tmp_path / DATA_DIR) == 0o700


def test_loading_into_a_database_elsewhere_leaves_its_folder_as_it_is(tmp_path: Path) -> None:
    # Given
    tmp_path.chmod(0o755)
    postings = tmp_path / "postings.jsonl"
    postings.write_text(json.dumps({"id": "1", "title": "Welder", "company": "Acme"}) + "\n")

    # When
    done = CliRunner().invoke(
        app, ["board", "load", str(postings), "--database", str(tmp_path / "board.sqlite")]
    )

    # Then
    assert done.exit_code == 0, done.output
    assert mode(tmp_path) == 0o755


def test_secrets_of_an_older_version_are_kept_and_those_missing_are_added(tmp_path: Path) -> None:
    # Given a file from before Redis had a password
    path = tmp_path / "secrets.json"
    old = {"access_key": "AK", "secret_key": "SK", "board_key": "BK"}
    path.write_text(json.dumps(old))

    # When
    first, second = stack.load_secrets(path), stack.load_secrets(path)

    # Then
    assert first == second
    assert (first.access_key, first.secret_key, first.board_key) == ("AK", "SK", "BK")
    assert first.redis_password.isalnum()
    assert mode(path) == 0o600

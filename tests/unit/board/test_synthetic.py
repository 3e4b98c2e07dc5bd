"""Hostile postings: reproducible, unusual like real postings, and replaced as a set."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.board import database, hostile, synthetic
from exporter.board.profiles import Profile

ROWS = 3_000


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(posting.json) for posting in hostile.generate(ROWS)]


def stored(path: Path) -> list[tuple[int, str, bytes]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT number, id, json FROM postings JOIN documents USING (number) ORDER BY number"
        ).fetchall()


def test_posting_i_depends_only_on_the_seed_and_on_i() -> None:
    # When
    few, many = list(hostile.generate(5)), list(hostile.generate(50))
    other = list(hostile.generate(5, seed=2))
    # Then
    assert few == many[:5]
    assert not {posting.id for posting in few} & {posting.id for posting in other}


def test_synthetic_postings_have_unusual_content_like_real_postings(
    rows: list[dict[str, Any]],
) -> None:
    # Given
    texts = [posting.json.decode() for posting in hostile.generate(ROWS)]
    everything = "".join(texts)
    titles = {row["job_title"] for row in rows}
    # Then
    assert {"=1+1", "+cmd", "-2", "@x", "\tTabbed title"} <= titles
    assert all(
        sign in everything
        for sign in ("\u2028", "🚀", "エ", "ы", "ة", "\\r\\n", "\\r", "\\u0000", "<li>", '\\"')
    )
    assert len({tuple(row) for row in rows}) > 30
    assert any("nested" in row for row in rows)
    assert any("salary_range" not in row for row in rows)
    assert any(row.get("salary_range", 1) is None for row in rows)
    assert '"fte":1.10' in everything
    assert any(row.get("requisition", 0) >= 2**64 for row in rows)
    assert max(map(len, texts)) > 25_000


def test_synthetic_postings_have_distinct_ids_of_24_hexadecimal_digits_and_a_real_size(
    rows: list[dict[str, Any]],
) -> None:
    # When
    size = sum(len(posting.json) for posting in hostile.generate(ROWS)) / ROWS
    # Then
    assert len({row["_id"] for row in rows}) == ROWS
    assert all(len(row["_id"]) == 24 and int(row["_id"], 16) >= 0 for row in rows)
    assert 2_500 < size < 2_900


def test_making_the_same_postings_again_does_nothing(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, 40, profile=Profile.HOSTILE)
    before = stored(path)
    # When
    synthetic.synthesize(path, 40, profile=Profile.HOSTILE)
    # Then
    assert stored(path) == before
    assert [row[2] for row in before] == [posting.json for posting in hostile.generate(40)]


def test_other_synthetic_postings_replace_earlier_ones_and_leave_loaded_ones(
    tmp_path: Path,
) -> None:
    # Given
    path, file = tmp_path / "board.db", tmp_path / "own.jsonl"
    file.write_text('{"id":"own"}')
    synthetic.synthesize(path, 40, profile=Profile.HOSTILE)
    database.load(path, file)
    # When
    synthetic.synthesize(path, 3, 9, Profile.HOSTILE)
    # Then
    expected = {"own", *(posting.id for posting in hostile.generate(3, seed=9))}
    assert {row[1] for row in stored(path)} == expected


def test_a_negative_number_of_postings_is_rejected(tmp_path: Path) -> None:
    # When
    with pytest.raises(ValueError, match="not -1"):
        synthetic.synthesize(tmp_path / "board.db", -1)
    # Then
    assert not (tmp_path / "board.db").exists()

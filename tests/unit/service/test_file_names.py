"""A file has a name of its own, which every system can store as it is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.service import file_names
from exporter.storage.base import FileHeaders

DAY = datetime(2026, 3, 2, tzinfo=UTC)
FIRST, SECOND = "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11", "77aa10ff-6a57-4a2b-9a50-0e6a3a2f6b11"


def test_exports_of_one_source_and_day_have_different_names() -> None:
    """Given two exports of one source and day, then their default names differ."""
    names = [file_names.default("a board/é", DAY, one) for one in (FIRST, SECOND)]
    assert names == ["a-board--jobs-2026-03-02-0b8c2c4e", "a-board--jobs-2026-03-02-77aa10ff"]


@pytest.mark.parametrize("name", ["jobs-2026-03-02-0b8c2c4e.csv", "0b8c2c4e.csv", "mine.csv"])
def test_a_retry_keeps_the_name_that_a_caller_gave(name: str) -> None:
    """Given a name that is no default name, when it is retried, then it stays the same."""
    assert file_names.renewed(name, FIRST, SECOND) == name


def test_a_retry_has_a_default_name_of_its_own() -> None:
    """Given an export with a default name, when it is retried, then the name has the new id."""
    name = file_names.default("board", DAY, FIRST) + ".csv.gz"
    renewed = file_names.renewed(name, FIRST, SECOND)
    assert renewed == file_names.default("board", DAY, SECOND) + ".csv.gz"


@pytest.mark.parametrize(
    "name", ["jobs.csv", "Löhne 2026", "求人.csv", "(draft).csv", "a", "x%20y"]
)
def test_an_ordinary_name_can_be_given(name: str) -> None:
    """Given a name without special characters, in any script, then nothing is wrong with it."""
    assert list(file_names.problems(name)) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "empty"),
        ("a" * 201, "201 bytes"),
        ("é" * 101, "202 bytes"),
        ("../jobs.csv", "character 3 is /"),
        ("C:\\jobs.csv", "character 2 is :"),
        ('a"b', 'character 2 is "'),
        ("a\r\nX-Other: 1", "character 2 is U+000D"),
        ("a\x00b", "U+0000"),
        ("a\x7fb", "U+007F"),
        ("a\u202evsc.exe", "U+202E"),
        ("a\u2028b", "U+2028"),
        ("a\ud800b", "U+D800"),
        ("..", "begins with"),
        (".bashrc", "begins with"),
        ("-rf", "begins with"),
        ("~root", "begins with"),
        (" a", "begins with"),
        ("a.csv ", "ends with"),
        ("a.", "ends with"),
    ],
)
def test_a_name_that_some_system_cannot_store_is_refused(name: str, said: str) -> None:
    """Given a name with a folder, a control character or another trap, then it is described."""
    assert said in " ".join(file_names.problems(name))


@given(st.text(max_size=220))
def test_a_name_that_is_accepted_is_announced_as_it_is(name: str) -> None:
    """Given any name that has no problem, then the header of the file has the same characters."""
    if list(file_names.problems(name)):
        return
    headers = FileHeaders(content_type="text/csv", file_name=name)
    plain = headers.disposition.partition('filename="')[2].partition('"')[0]
    assert len(plain) == len(name)
    assert "filename*" in headers.disposition or plain == name

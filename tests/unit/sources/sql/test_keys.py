"""The keys of a table: they define the order of rows, or are refused."""

from __future__ import annotations

import pytest

from exporter.errors import SourceRefused
from tests.unit.sources.sql.given import Make, query, read


def test_two_rows_with_one_key_are_refused_where_one_would_be_lost(make: Make) -> None:
    # Given
    source = make(
        "CREATE TABLE jobs (id INTEGER, user_id TEXT)",
        "INSERT INTO jobs VALUES (1, 'u1'), (2, 'u1'), (2, 'u1'), (3, 'u1')",
        columns=("id",),
        page_size=2,
    )

    # When / Then
    with pytest.raises(SourceRefused, match=r"two rows have 2 in 'id'.*the source's `key`"):
        read(source)


def test_rows_without_a_key_are_refused_because_they_have_no_place(make: Make) -> None:
    # Given
    source = make(
        "CREATE TABLE jobs (id INTEGER, user_id TEXT)",
        "INSERT INTO jobs VALUES (1, 'u1'), (NULL, 'u1')",
        columns=("id",),
    )

    # When / Then
    with pytest.raises(SourceRefused, match="1 rows have no 'id'"):
        read(source)
    with (
        pytest.raises(SourceRefused, match="1 rows have no 'id'"),
        source.snapshot(query(source), ["id"]),
    ):
        pass


def test_a_key_that_no_cursor_can_hold_is_refused(postgres: Make) -> None:
    # Given
    source = postgres(
        "CREATE TABLE jobs (id TIMESTAMPTZ PRIMARY KEY, user_id TEXT)",
        "INSERT INTO jobs VALUES (now(), 'u1')",
        columns=("id",),
    )

    # When / Then
    with pytest.raises(
        SourceRefused, match="'id' has the type datetime: name a column of integers"
    ):
        read(source)


@pytest.mark.parametrize("kind", ["INTEGER", "TEXT", "UUID"])
def test_ids_that_cannot_be_keys_are_unknown_and_no_error(make: Make, kind: str) -> None:
    # Given
    own = {"INTEGER": "7", "TEXT": "7", "UUID": "6a1f3d2e-0000-4000-8000-000000000001"}[kind]
    source = make(
        f"CREATE TABLE jobs (id {kind} PRIMARY KEY, user_id TEXT)",
        f"INSERT INTO jobs VALUES ('{own}', 'u1')",
        columns=("id",),
    )
    wanted = ["", "x'; --", "07", "9" * 30, own]

    # When
    found = source.lookup(wanted, query(source))

    # Then
    assert list(found) == [own]
    assert dict(source.lookup([], query(source))) == {}

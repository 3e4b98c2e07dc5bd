"""Searches of a table: the owner and the filters."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.errors import QueryError
from exporter.sources.id_list import IdList
from tests.unit.sources.sql.given import NOW, NUMBERED, Make, filled, ids, query, read


def test_nobody_gets_the_rows_of_another_by_any_way(make: Make) -> None:
    # Given
    source = make(NUMBERED, filled(3), filled(2, "u2", first=4), columns=("id", "note"))
    own, others = query(source), query(source, user="u2")

    # When
    with source.snapshot(own, ["id"]) as snapshot:
        rows = [row for page in snapshot.pages() for row in page]

    # Then
    assert ids(source) == [1, 2, 3]
    assert (source.count(own), source.count(others)) == (3, 2)
    assert rows == [b'{"id":1}', b'{"id":2}', b'{"id":3}']
    assert list(source.lookup(["3", "4"], own)) == ["3"]
    assert list(source.lookup(["3", "4"], others)) == ["4"]
    listed = IdList(source, lambda: ["4", "3"]).fetch(own, 0)
    assert [bytes(row) for row in listed.rows] == [b'{"id":3,"note":null}']
    assert listed.unknown == ["4"]


def test_a_search_cannot_name_another_owner(sqlite: Make) -> None:
    # Given
    source = sqlite(NUMBERED)

    # When
    with pytest.raises(QueryError) as error:
        source.search({"user_id": "u2"}, NOW, user_id="u1")

    # Then
    (problem,) = error.value.problems
    assert problem["loc"] == ("user_id",)
    assert "known: from, to, status, source" in problem["msg"]


def test_deleted_rows_are_not_there(make: Make) -> None:
    # Given
    source = make(
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, deleted_at TIMESTAMP)",
        "INSERT INTO jobs VALUES (1, 'u1', NULL), (2, 'u1', '2026-03-01 00:00:00')",
        columns=("id",),
    )

    # When / Then
    assert ids(source) == [1]
    assert source.count(query(source)) == 1
    assert list(source.lookup(["1", "2"], query(source))) == ["1"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"from": "2026-03-02"}, [2, 3, 4, 5]),
        ({"from": "2026-03-02T00:00:00.001Z"}, [3, 4, 5]),
        ({"to": "2026-03-03"}, [1, 2]),
        ({"from": "2026-03-02", "to": "2026-03-03T00:00:01+00:00"}, [2, 3]),
        ({"from": "2026-03-03T08:00:00+08:00"}, [3, 4, 5]),
        ({"status": "saved"}, [1, 3, 5]),
        ({"status": ["offer", "applied"]}, [2, 4]),
        ({"status": "saved", "source": ["fuzu"]}, [1]),
        ({"status": None}, [1, 2, 3, 4, 5]),
    ],
)
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMP WITH TIME ZONE"])
def test_filters_take_the_first_edge_in_and_leave_the_second_out(
    make: Make, kind: str, raw: dict[str, Any], expected: list[int]
) -> None:
    # Given: SQLite keeps each time in the format in which it was written
    zone = "+00" if "ZONE" in kind else ""
    source = make(
        f"CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, status TEXT, source TEXT,"
        f" created_at {kind})",
        "INSERT INTO jobs VALUES"
        f" (1, 'u1', 'saved', 'fuzu', '2026-03-01 23:59:59.999{zone and '+00:00'}'),"
        f" (2, 'u1', 'applied', 'fuzu', '2026-03-02T00:00:00{zone and 'Z'}'),"
        f" (3, 'u1', 'saved', 'manual', '2026-03-03{' 00:00:00+00:00' if zone else ''}'),"
        f" (4, 'u1', 'offer', 'linkedin', '2026-03-03 00:00:01{zone and '+00:00'}'),"
        f" (5, 'u1', 'saved', 'linkedin', '2026-03-04 09:00{zone and '+00:00'}')",
        columns=("id",),
    )

    # When / Then
    assert ids(source, raw) == expected


def test_filters_compare_with_enumerations_of_the_database(postgres: Make) -> None:
    # Given
    source = postgres(
        "CREATE TYPE stage AS ENUM ('saved', 'offer')",
        "CREATE TABLE jobs (id UUID PRIMARY KEY, user_id UUID, status stage)",
        "INSERT INTO jobs VALUES (gen_random_uuid(), '6a1f3d2e-0000-4000-8000-000000000001',"
        " 'offer')",
        columns=("status",),
    )

    # When
    rows = read(source, {"status": ["offer"]}, "6a1f3d2e-0000-4000-8000-000000000001")

    # Then
    assert rows == [{"status": "offer"}]


@pytest.mark.parametrize(
    ("raw", "field", "said"),
    [
        ({"status": "hired"}, "status", "unknown value 'hired'; known: saved, applied"),
        ({"status": ["saved", 1]}, "status", "unknown value '1'"),
        ({"status": []}, "status", "one value or a list"),
        ({"source": "indeed"}, "source", "brightermonday, fuzu, linkedin, manual"),
        ({"from": "yesterday"}, "from", "write 2026-03-01 or 2026-03-01T12:00:00Z"),
        ({"to": 5}, "to", "'5' is not a date or time"),
        ({"from": "2026-03-02", "to": "2026-03-02T00:00:00Z"}, "to", "must be later than `from`"),
        ({"colour": "red"}, "colour", "unknown filter; known: from, to, status, source"),
    ],
)
def test_a_wrong_filter_is_named_with_what_is_right(
    sqlite: Make, raw: dict[str, Any], field: str, said: str
) -> None:
    # Given
    source = sqlite(NUMBERED)

    # When
    with pytest.raises(QueryError) as error:
        source.search(raw, NOW, user_id="u1")

    # Then
    (problem,) = error.value.problems
    assert problem["loc"] == (field,)
    assert said in problem["msg"]


def test_one_meaning_has_one_canonical_spelling(sqlite: Make) -> None:
    # Given
    source = sqlite(NUMBERED)

    # When
    one = source.search(
        {"status": ["offer", "applied", "offer"], "from": "2026-03-01"}, NOW, user_id="u1"
    )
    other = source.search(
        {"from": "2026-03-01T02:00:00+02:00", "status": ["applied", "offer"], "to": None},
        NOW,
        user_id="u1",
    )

    # Then
    assert one.query == other.query
    assert one.query["user_id"] == "u1"
    assert "user_id" not in one.echo

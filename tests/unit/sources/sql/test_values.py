"""The values of a row: unchanged, or converted by the type of their column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.clock import FakeClock
from exporter.contracts.pipeline import COLUMNS
from exporter.core.checkpoints import RowCounts
from exporter.errors import SourceRefused
from exporter.formats.json import JsonLines
from exporter.local import sample
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.source import SqlSource
from tests import encoding
from tests.unit.sources.sql.given import Make, ids, query, read


def test_a_row_of_postgresql_keeps_every_digit_and_gets_its_times_in_utc(postgres: Make) -> None:
    # Given
    source = postgres(
        "CREATE TABLE jobs (id UUID PRIMARY KEY, user_id TEXT, pay NUMERIC, rate DOUBLE PRECISION,"
        " nan NUMERIC, inf DOUBLE PRECISION, big BIGINT, ok BOOLEAN, tags TEXT[], raw JSON,"
        " binary_raw JSONB, created_at TIMESTAMPTZ, applied_at TIMESTAMP, day DATE, note TEXT)",
        "INSERT INTO jobs VALUES ('6a1f3d2e-0000-4000-8000-000000000001', 'u1',"
        " 12345678901234567890.1234567890, 0.1, 'NaN', '-Infinity', 9223372036854775807, true,"
        " ARRAY['a','b; c',NULL], '{\"n\": 1.10}', '[1.100000000000000000001, null]',"
        " '2026-03-04 21:00:00+09', '2026-03-04 12:00:00.5', '2026-03-04', E'l\u00edne\\n\"q\"')",
        columns=(
            "id", "pay", "rate", "nan", "inf", "big", "ok", "tags", "raw", "binary_raw",
            "created_at", "applied_at", "day", "note",
        ),
    )  # fmt: skip

    # When
    (row,) = source.fetch(query(source), source.start(None, 0)).rows

    # Then
    assert bytes(row).decode() == (
        '{"id":"6a1f3d2e-0000-4000-8000-000000000001","pay":12345678901234567890.1234567890,'
        '"rate":0.1,"nan":null,"inf":null,"big":9223372036854775807,"ok":true,'
        '"tags":["a","b; c",null],"raw":{"n": 1.10},"binary_raw":[1.100000000000000000001, null],'
        '"created_at":"2026-03-04T12:00:00Z","applied_at":"2026-03-04T12:00:00.500000Z",'
        '"day":"2026-03-04","note":"l\u00edne\\n\\"q\\""}'
    )


def test_a_row_of_sqlite_has_the_types_that_its_columns_mean(sqlite: Make) -> None:
    # Given
    source = sqlite(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, user_id TEXT, is_remote, flag BOOLEAN, tags TEXT,"
        " raw JSON, created_at TEXT, seen DATETIME, pay NUMERIC, note)",
        "INSERT INTO jobs VALUES ('1', 'u1', 1, 0, '[\"a\", 1.10]', '{\"n\": 1.10}',"
        " '2026-03-04 13:00:00+01:00', '2026-03-04 12:00:00', 1.5, NULL)",
        columns=("is_remote", "flag", "tags", "raw", "created_at", "seen", "pay", "note"),
    )

    # When
    (row,) = source.fetch(query(source), source.start(None, 0)).rows

    # Then
    assert bytes(row).decode() == (
        '{"is_remote":true,"flag":false,"tags":["a", 1.10],"raw":{"n": 1.10},'
        '"created_at":"2026-03-04T12:00:00Z","seen":"2026-03-04T12:00:00Z","pay":1.5,"note":null}'
    )


def test_values_that_are_not_what_their_column_means_are_given_as_they_are(sqlite: Make) -> None:
    # Given
    source = sqlite(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, user_id TEXT, is_remote, tags, created_at,"
        " applied_at, raw JSON)",
        "INSERT INTO jobs VALUES ('1', 'u1', 'maybe', 'a; b', 'last spring', 1700000000, '{oops')",
        columns=("is_remote", "tags", "created_at", "applied_at", "raw"),
    )

    # When / Then
    assert read(source) == [
        {
            "is_remote": "maybe",
            "tags": "a; b",
            "created_at": "last spring",
            "applied_at": 1700000000,
            "raw": "{oops",
        }
    ]


@pytest.mark.parametrize(
    ("name", "bytea"),
    [
        ("sqlite", "x'00ff'"),
        pytest.param("postgres", "'\\x00ff'", marks=pytest.mark.external),
    ],
)
def test_bytes_are_refused_by_the_name_of_their_column(
    request: pytest.FixtureRequest, name: str, bytea: str
) -> None:
    # Given
    kind = "BYTEA" if name == "postgres" else "BLOB"
    source = request.getfixturevalue(name)(
        f"CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, logo {kind})",
        f"INSERT INTO jobs VALUES (1, 'u1', {bytea})",
        columns=("id", "logo"),
    )

    # When / Then
    with pytest.raises(SourceRefused, match="column 'logo' has a value of type bytes"):
        read(source)


def test_a_type_that_json_does_not_have_is_refused_by_the_name_of_its_column(
    postgres: Make,
) -> None:
    # Given
    source = postgres(
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, host INET)",
        "INSERT INTO jobs VALUES (1, 'u1', '10.0.0.1')",
        columns=("id", "host"),
    )

    # When / Then
    with pytest.raises(SourceRefused, match="column 'host' has a value of type IPv4Address"):
        read(source)


def test_text_that_is_not_utf8_is_counted_in_the_file_and_loses_nothing_else(
    sqlite: Make,
) -> None:
    # Given
    source = sqlite(
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, note TEXT, pay NUMERIC)",
        "INSERT INTO jobs VALUES (1, 'u1', CAST(x'61ff62' AS TEXT), 1.5)",
        columns=("id", "note", "pay"),
    )
    (row,) = source.fetch(query(source), source.start(None, 0)).rows
    row_counts = RowCounts()

    # When
    line = encoding.encode(JsonLines(), [row], row_counts)

    # Then
    assert json.loads(line) == {"id": 1, "note": "a\ufffdb", "pay": 1.5}
    assert row_counts.replaced_characters == 1


def test_the_jobs_of_the_local_stack_are_of_the_contract(file: Path, made: list[SqlSource]) -> None:
    # Given
    sample.create(file, "local")
    made.append(SqlSource(SqlConfig(url=f"sqlite:///{file}"), FakeClock()))

    # When
    rows = read(made[0], user="local")

    # Then
    assert 250 < len(rows) < sample.JOB_COUNT
    assert [tuple(row) for row in rows] == [COLUMNS] * len(rows)
    assert {type(row["is_remote"]) for row in rows} == {bool}
    assert {type(row["tags"]) for row in rows} == {list}
    assert ids(made[0], {"status": ["offer"]}, "local")

"""Reading a table: whose rows, which of them, each once, and every value as it is."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exporter.checkpoints import Checkpoint, Tally
from exporter.clock import FakeClock
from exporter.config import SqlConfig
from exporter.errors import (
    ConfigurationError,
    QueryError,
    SourceRefused,
    SourceUnavailable,
    SourceUntrue,
)
from exporter.exports import Outcome, Spec
from exporter.formats.base import Dialect
from exporter.formats.json import JsonLines
from exporter.local import sample
from exporter.reading import Reading
from exporter.sources.id_list import IdList
from exporter.sources.sql import COLUMNS, SqlSource
from exporter.sources.sql_database import Database

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
COUNTED = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) "


@pytest.fixture
def made() -> Iterator[list[SqlSource]]:
    sources: list[SqlSource] = []
    yield sources
    for source in sources:
        source.close()


Make = Callable[..., SqlSource]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def sqlite(file: Path, made: list[SqlSource]) -> Make:
    """Runs statements on a fresh SQLite, then gives the source over it."""

    def make(*statements: str, **settings: Any) -> SqlSource:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in statements:
                connection.execute(statement)
        config = SqlConfig(type="sql", url=f"sqlite:///{file}", **settings)
        made.append(SqlSource(config, FakeClock()))
        return made[-1]

    return make


@pytest.fixture
def postgres(postgres_url: str, made: list[SqlSource]) -> Make:
    """The same over PostgreSQL."""

    def make(*statements: str, **settings: Any) -> SqlSource:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            for statement in statements:
                connection.execute(statement.encode())
        made.append(SqlSource(SqlConfig(type="sql", url=postgres_url, **settings), FakeClock()))
        return made[-1]

    return make


@pytest.fixture(params=["sqlite", "postgres"])
def make(request: pytest.FixtureRequest) -> Make:
    given: Make = request.getfixturevalue(request.param)
    return given


@pytest.fixture
def write(request: pytest.FixtureRequest, file: Path) -> Callable[[str], None]:
    """Changes the table behind the source's back."""

    def run(statement: str) -> None:
        if file.exists():
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute(statement)
            return
        with psycopg.connect(request.getfixturevalue("postgres_url")) as other:
            other.execute(statement.encode())

    return run


NUMBERED = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, note TEXT)"


def filled(count: int, user: str = "u1", first: int = 1) -> str:
    rows = ", ".join(f"({number}, '{user}', NULL)" for number in range(first, first + count))
    return f"INSERT INTO jobs VALUES {rows}"


def query(source: SqlSource, raw: Mapping[str, Any] | None = None, user: str = "u1") -> Any:
    return source.search(raw or {}, NOW, user_id=user).query


def read(source: SqlSource, raw: Mapping[str, Any] | None = None, user: str = "u1") -> list[Any]:
    """All rows of the query, parsed, page by page."""
    found: list[Any] = []
    asked, cursor = query(source, raw, user), source.start(None, 0)
    while cursor is not None:
        page = source.fetch(asked, cursor)
        found += [json.loads(bytes(row)) for row in page.rows]
        cursor = page.next
    return found


def ids(source: SqlSource, raw: Mapping[str, Any] | None = None, user: str = "u1") -> list[Any]:
    return [row["id"] for row in read(source, raw, user)]


# -- whose rows, and which ---------------------------------------------------------------------


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
    # Given: SQLite keeps each time in the spelling that it was given
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
        ({"status": []}, "status", "give one or a list"),
        ({"source": "indeed"}, "source", "brightermonday, fuzu, linkedin, manual"),
        ({"from": "yesterday"}, "from", "write 2026-03-01 or 2026-03-01T12:00:00Z"),
        ({"to": 5}, "to", "'5' is no date and no time"),
        ({"from": "2026-03-02", "to": "2026-03-02T00:00:00Z"}, "to", "not later than `from`"),
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


# -- each row once -----------------------------------------------------------------------------


def test_rows_that_come_and_go_while_it_reads_cost_none_of_the_others(
    make: Make, write: Callable[[str], None]
) -> None:
    # Given: two pages are read
    source = make(NUMBERED, filled(50, first=11), columns=("id",), page_size=10)
    asked, reading = query(source), _reading(source)
    cursor, found = source.start(None, 0), []
    for _ in range(2):
        page = source.fetch(asked, cursor)
        found += [json.loads(bytes(row))["id"] for row in reading.take(page)]
        cursor = page.next

    # When: rows go before and behind that place, and come before and at the end
    write("DELETE FROM jobs WHERE id IN (11, 12, 40, 41, 42)")
    write(filled(3, first=5))
    write(filled(7, first=100))
    while cursor is not None:
        page = source.fetch(asked, cursor)
        found += [json.loads(bytes(row))["id"] for row in reading.take(page)]
        cursor = page.next

    # Then
    assert found == [number for number in range(11, 61) if number not in (40, 41, 42)]
    proof = reading.completeness()
    assert (proof.total_at_start, proof.total_at_end, proof.exported) == (50, 47, 47)
    assert proof.outcome is Outcome.PARTIAL


def _reading(source: SqlSource) -> Reading:
    spec = Spec(
        id="e1",
        user_id="u1",
        surface="native",
        source="pipeline",
        query={},
        query_sha256="",
        request={},
        format="csv",
        dialect=Dialect(),
        file_name="jobs.csv",
    )
    at = Checkpoint(cursor=source.start(None, 0))
    return Reading(spec, at, identity=source.identity, tolerated_drift=source.tolerated_drift)


def test_changes_fail_an_export_only_where_the_operator_said_so(sqlite: Make) -> None:
    # Given
    lenient = sqlite(NUMBERED)
    strict = sqlite(tolerated_drift=0.0)

    # When / Then
    assert lenient.tolerated_drift > 1
    assert strict.tolerated_drift == 0


def test_a_snapshot_sees_one_moment_whatever_is_written_meanwhile(
    make: Make, write: Callable[[str], None]
) -> None:
    # Given
    source = make(NUMBERED, filled(50), columns=("id",), page_size=10)

    # When
    with source.snapshot(query(source), ["id"]) as snapshot:
        pages = snapshot.pages()
        found = list(next(pages))
        write("DELETE FROM jobs WHERE id > 20")
        write(filled(5, first=100))
        for page in pages:
            found += page

    # Then
    assert snapshot.total == len(found) == 50
    assert source.count(query(source)) == 25


def test_a_snapshot_that_gives_fewer_rows_than_it_counted_has_no_end(
    sqlite: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: a database that lost a row, as a broken index does
    source = sqlite(NUMBERED, filled(25), columns=("id",), page_size=10)
    whole = source._table.page

    def short(*args: Any, **options: Any) -> Any:
        rows, after = whole(*args, **options)
        return rows[1:], after

    # When
    with source.snapshot(query(source), ["id"]) as snapshot:
        monkeypatch.setattr(source._table, "page", short)
        pages = snapshot.pages()
        # Then
        with pytest.raises(SourceUntrue, match="22 rows after it had counted 25"):
            list(pages)


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
    with pytest.raises(SourceRefused, match="'id' holds datetime: name a column of integers"):
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


# -- every value as it is ----------------------------------------------------------------------


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


@pytest.mark.parametrize(("name", "bytea"), [("sqlite", "x'00ff'"), ("postgres", "'\\x00ff'")])
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
    with pytest.raises(SourceRefused, match="column 'logo' holds bytes"):
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
    with pytest.raises(SourceRefused, match="column 'host' holds IPv4Address"):
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
    tally = Tally()

    # When
    line = JsonLines().encode([row], tally)

    # Then
    assert json.loads(line) == {"id": 1, "note": "a\ufffdb", "pay": 1.5}
    assert tally.replaced_characters == 1


def test_the_jobs_of_the_local_stack_are_of_the_contract(file: Path, made: list[SqlSource]) -> None:
    # Given
    sample.create(file, "local")
    made.append(SqlSource(SqlConfig(type="sql", url=f"sqlite:///{file}"), FakeClock()))

    # When
    rows = read(made[0], user="local")

    # Then
    assert 250 < len(rows) < sample.JOBS
    assert [tuple(row) for row in rows] == [COLUMNS] * len(rows)
    assert {type(row["is_remote"]) for row in rows} == {bool}
    assert {type(row["tags"]) for row in rows} == {list}
    assert ids(made[0], {"status": ["offer"]}, "local")


# -- what is wrong is said ---------------------------------------------------------------------


def test_a_table_that_is_not_there_is_an_error_of_the_configuration(make: Make) -> None:
    # Given
    source = make(NUMBERED, table="postings", columns=("id",))

    # When / Then
    with pytest.raises(ConfigurationError, match=r"has no table 'postings': see `table`"):
        read(source)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"columns": ("id", "colour")}, "no column 'colour': see `columns` of the source"),
        ({"columns": ("id",), "owner": "tenant"}, "no column 'tenant': see `owner`"),
        ({"columns": ("id",), "key": "uid"}, "no column 'uid': see `key`"),
        ({}, "no column 'company_name'"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_its_setting(
    sqlite: Make, settings: dict[str, Any], said: str
) -> None:
    # Given
    source = sqlite(NUMBERED, **settings)

    # When / Then: to the operator, and as the reason why an export failed
    with pytest.raises(ConfigurationError, match=said):
        read(source)
    with pytest.raises(SourceRefused, match=said):
        read(source)


def test_a_filter_on_a_column_that_is_not_there_is_told(sqlite: Make) -> None:
    # Given
    source = sqlite(NUMBERED, columns=("id",))

    # When / Then
    with pytest.raises(SourceRefused, match="no column 'status'"):
        read(source, {"status": "saved"})


def test_a_table_in_a_schema_is_found_there(postgres: Make) -> None:
    # Given
    source = postgres(
        "CREATE SCHEMA IF NOT EXISTS crm",
        "DROP TABLE IF EXISTS crm.jobs",
        "CREATE TABLE crm.jobs (id INTEGER PRIMARY KEY, user_id TEXT)",
        "INSERT INTO crm.jobs VALUES (1, 'u1')",
        table="crm.jobs",
        columns=("id",),
    )

    # When / Then
    assert ids(source) == [1]


def test_a_database_file_that_is_not_there_is_not_made(
    tmp_path: Path, made: list[SqlSource]
) -> None:
    # Given
    file = tmp_path / "none.sqlite"
    made.append(SqlSource(SqlConfig(type="sql", url=f"sqlite:///{file}"), FakeClock()))

    # When / Then
    with pytest.raises(SourceUnavailable, match=r"none\.sqlite did not answer"):
        read(made[0])
    assert not file.exists()


def test_no_text_shows_the_password_of_the_url(postgres_url: str, made: list[SqlSource]) -> None:
    # Given
    password = postgres_url.split(":")[2].split("@")[0]
    wrong = postgres_url.replace(password, "s3cret-but-wrong")
    silent = "postgresql://exporter:s3cret-but-wrong@127.0.0.1:9/none?connect_timeout=1"

    for url in (wrong, silent):
        made.append(SqlSource(SqlConfig(type="sql", url=url), FakeClock()))
        # When
        with pytest.raises(SourceUnavailable) as error:
            read(made[-1])
        # Then
        assert "the postgresql database 127.0.0.1 did not answer" in str(error.value)
        assert "s3cret" not in str(error.value)
        assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("no url at all s3cret", "no database's"),
        ("nosuchbase://u:s3cret@h/d", "no database's"),
        ("postgresql+psycopg://u:s3cret@h:port/d", "no database's"),
        ("mysql+pymysql://u:s3cret@h/d", "driver that is not installed"),
        ("sqlite://", "must name a file"),
        ("sqlite:///jobs.sqlite?mode=memory", "must name a file"),
    ],
)
def test_a_url_that_cannot_work_is_told_without_showing_it(url: str, said: str) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        SqlSource(SqlConfig(type="sql", url=url), FakeClock())

    # Then
    assert said in str(error.value)
    assert "s3cret" not in str(error.value)


def test_an_owner_that_the_column_cannot_hold_is_refused(postgres: Make) -> None:
    # Given
    source = postgres("CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id UUID)", columns=("id",))

    # When / Then
    with pytest.raises(SourceRefused, match="invalid input syntax for type uuid"):
        read(source)


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_nothing_can_be_changed_by_reading(request: pytest.FixtureRequest, name: str) -> None:
    # Given
    source = request.getfixturevalue(name)(NUMBERED, filled(3), columns=("id",))
    database: Database = source._database

    # When
    with (
        pytest.raises((SourceRefused, SourceUnavailable), match=r"readonly|read-only"),
        database.reading() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM jobs")

    # Then
    assert ids(source) == [1, 2, 3]


def test_a_statement_is_ended_when_its_reader_has_left(sqlite: Make) -> None:
    # Given: rows that take minutes to count
    source = sqlite(
        "CREATE VIEW jobs AS " + COUNTED.format(10**9) + "SELECT i AS id, 'u1' AS user_id FROM n",
        columns=("id",),
    )
    snapshot = source.snapshot(query(source), ["id"])
    caught: list[Exception] = []

    def enter() -> None:
        try:
            with snapshot:
                pass
        except SourceUnavailable as error:
            caught.append(error)

    reader = threading.Thread(target=enter)
    reader.start()
    time.sleep(0.5)

    # When
    snapshot.interrupt()
    reader.join(30)

    # Then: and what was left can be read by others
    assert "interrupted" in str(caught[0])
    assert not reader.is_alive()
    with source._database.reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1


def test_a_statement_of_postgresql_is_ended_when_its_reader_has_left(postgres: Make) -> None:
    # Given
    source = postgres(
        "CREATE VIEW jobs AS SELECT i AS id, 'u1' AS user_id FROM generate_series(1, 2) i"
        " WHERE pg_sleep(30) IS NOT NULL",
        columns=("id",),
    )
    snapshot = source.snapshot(query(source), ["id"])
    timer = threading.Timer(1.0, snapshot.interrupt)
    timer.start()
    begun = time.monotonic()

    # When
    with pytest.raises(SourceUnavailable, match="cancel"), snapshot:
        pass

    # Then
    timer.join()
    assert time.monotonic() - begun < 25


def test_a_reader_that_left_before_it_began_is_not_read_for(sqlite: Make) -> None:
    # Given
    source = sqlite(NUMBERED, filled(3), columns=("id",))
    snapshot = source.snapshot(query(source), ["id"])

    # When
    snapshot.interrupt()

    # Then
    with pytest.raises(SourceUnavailable), snapshot:
        pass


class _Spent:
    def take(self) -> float:
        return 90.0

    def hold(self, seconds: float) -> None:
        raise AssertionError("nothing to hold")


def test_a_rate_that_is_used_up_makes_the_export_wait(file: Path) -> None:
    # Given
    source = SqlSource(SqlConfig(type="sql", url=f"sqlite:///{file}"), FakeClock(), _Spent())

    # When
    calls: Sequence[Callable[[], object]] = (
        lambda: source.fetch(query(source), source.start(None, 0)),
        lambda: source.count(query(source)),
        lambda: source.lookup(["1"], query(source)),
    )
    for call in calls:
        with pytest.raises(SourceUnavailable) as error:
            call()
        # Then
        assert error.value.retry_after == 90.0

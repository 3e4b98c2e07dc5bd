"""The statements of a source: they change nothing and end when their reader stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from exporter.clock import FakeClock
from exporter.errors import SourceRefused, SourceUnavailable
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.database import Database
from exporter.sources.sql.source import SqlSource
from tests.unit.sources.sql.given import NUMBERED, Make, filled, ids, query

COUNTED = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) "


@pytest.mark.parametrize("name", ["sqlite", pytest.param("postgres", marks=pytest.mark.external)])
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


@pytest.mark.external
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

    # Then: and other connections can still read
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
    def reserve(self) -> float:
        return 90.0

    def pause_for(self, seconds: float) -> None:
        raise AssertionError("nothing to hold")

    def record(self, seconds: float, status: int | None) -> None:
        raise AssertionError("nothing was sent")


def test_a_rate_that_is_used_up_makes_the_export_wait(file: Path) -> None:
    # Given
    source = SqlSource(SqlConfig(url=f"sqlite:///{file}"), FakeClock(), _Spent())

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

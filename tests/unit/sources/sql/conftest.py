"""SQL sources under test: one over a new SQLite database, one over a new PostgreSQL schema."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from exporter.clock import FakeClock
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.source import SqlSource
from tests.unit.sources.sql.given import Make


@pytest.fixture
def made() -> Iterator[list[SqlSource]]:
    sources: list[SqlSource] = []
    yield sources
    for source in sources:
        source.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite"


@pytest.fixture
def sqlite(file: Path, made: list[SqlSource]) -> Make:
    """Returns a function that runs statements on a SQLite file and makes a source over it."""

    def make(*statements: str, **settings: Any) -> SqlSource:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("PRAGMA journal_mode = WAL")
            for statement in statements:
                connection.execute(statement)
        config = SqlConfig(url=f"sqlite:///{file}", **settings)
        made.append(SqlSource(config, FakeClock()))
        return made[-1]

    return make


@pytest.fixture
def postgres(postgres_url: str, made: list[SqlSource]) -> Make:
    """Returns a function that runs statements on an empty PostgreSQL and makes a source over it."""

    def make(*statements: str, **settings: Any) -> SqlSource:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            for statement in statements:
                connection.execute(statement.encode())
        made.append(SqlSource(SqlConfig(url=postgres_url, **settings), FakeClock()))
        return made[-1]

    return make


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.external)])
def make(request: pytest.FixtureRequest) -> Make:
    given: Make = request.getfixturevalue(request.param)
    return given


@pytest.fixture
def write(request: pytest.FixtureRequest, file: Path) -> Callable[[str], None]:
    """Returns a function that changes the table over a connection of its own."""

    def run(statement: str) -> None:
        if file.exists():
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute(statement)
            return
        with psycopg.connect(request.getfixturevalue("postgres_url")) as other:
            other.execute(statement.encode())

    return run

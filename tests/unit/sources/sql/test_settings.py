"""Settings of a source that cannot work, and the errors that they cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.clock import FakeClock
from exporter.errors import ConfigurationError, SourceRefused, SourceUnavailable
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.source import SqlSource
from tests.unit.sources.sql.given import NUMBERED, Make, ids, read


def test_a_table_that_is_not_there_is_an_error_of_the_configuration(make: Make) -> None:
    # Given
    source = make(NUMBERED, table="postings", columns=("id",))

    # When / Then
    with pytest.raises(ConfigurationError, match=r"has no table 'postings': correct `table`"):
        read(source)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"columns": ("id", "colour")}, "no column 'colour': correct `columns` of the source"),
        ({"columns": ("id",), "owner": "tenant"}, "no column 'tenant': correct `owner`"),
        ({"columns": ("id",), "key": "uid"}, "no column 'uid': correct `key`"),
        ({}, "no column 'company_name'"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_its_setting(
    sqlite: Make, settings: dict[str, Any], said: str
) -> None:
    # Given
    source = sqlite(NUMBERED, **settings)

    # When / Then: an error for the operator, and the reason of a failed export
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
    made.append(SqlSource(SqlConfig(url=f"sqlite:///{file}"), FakeClock()))

    # When / Then
    with pytest.raises(SourceUnavailable, match="sqlite database did not answer") as error:
        read(made[0])
    assert str(tmp_path) not in str(error.value)
    assert error.value.upstream == str(file)
    assert not file.exists()


def test_no_text_shows_the_password_of_the_url(postgres_url: str, made: list[SqlSource]) -> None:
    # Given
    password = postgres_url.split(":")[2].split("@")[0]
    wrong = postgres_url.replace(password, "s3cret-but-wrong")
    silent = "postgresql://exporter:s3cret-but-wrong@127.0.0.1:9/none?connect_timeout=1"

    for url in (wrong, silent):
        made.append(SqlSource(SqlConfig(url=url), FakeClock()))
        # When
        with pytest.raises(SourceUnavailable) as error:
            read(made[-1])
        # Then
        assert "the postgresql database did not answer" in str(error.value)
        assert error.value.upstream == "127.0.0.1"
        for hidden in ("s3cret", "127.0.0.1", "port", '"exporter"', "none"):
            assert hidden not in str(error.value)
        assert error.value.__suppress_context__


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nosuchbase://u:s3cret@h/d", "not a database URL"),
        ("mysql+pymysql://u:s3cret@h/d", "driver that is not installed"),
        ("sqlite://", "must name a file"),
        ("sqlite:///jobs.sqlite?mode=memory", "must name a file"),
    ],
)
def test_a_url_that_cannot_work_is_told_without_showing_it(url: str, said: str) -> None:
    # When
    with pytest.raises(ConfigurationError) as error:
        SqlSource(SqlConfig(url=url), FakeClock())

    # Then
    assert said in str(error.value)
    assert "s3cret" not in str(error.value)


def test_an_owner_that_the_column_cannot_hold_is_refused(postgres: Make) -> None:
    # Given
    source = postgres("CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id UUID)", columns=("id",))

    # When / Then
    with pytest.raises(SourceRefused, match="invalid input syntax for type uuid"):
        read(source)

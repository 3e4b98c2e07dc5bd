"""Changes of a table during an export: each row that stays is read once."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Outcome
from exporter.errors import SourceUntrue
from exporter.run.page_reader import PageReader
from exporter.sources.sql.source import SqlSource
from tests.specs import spec
from tests.unit.sources.sql.given import NUMBERED, Make, filled, query


@pytest.mark.external
def test_rows_that_come_and_go_while_it_reads_cost_none_of_the_others(
    make: Make, write: Callable[[str], None]
) -> None:
    # Given: two pages have been read
    source = make(NUMBERED, filled(50, first=11), columns=("id",), page_size=10)
    asked, reading = query(source), _reading(source)
    cursor, found = source.start(None, 0), []
    for _ in range(2):
        page = source.fetch(asked, cursor)
        found += [json.loads(bytes(row))["id"] for row in reading.accept(page)]
        cursor = page.next

    # When: rows are deleted before and after that key, and added before it and at the end
    write("DELETE FROM jobs WHERE id IN (11, 12, 40, 41, 42)")
    write(filled(3, first=5))
    write(filled(7, first=100))
    while cursor is not None:
        page = source.fetch(asked, cursor)
        found += [json.loads(bytes(row))["id"] for row in reading.accept(page)]
        cursor = page.next

    # Then
    assert found == [number for number in range(11, 61) if number not in (40, 41, 42)]
    proof = reading.completeness()
    assert (proof.total_at_start, proof.total_at_end, proof.exported) == (50, 47, 47)
    assert proof.outcome is Outcome.PARTIAL


def _reading(source: SqlSource) -> PageReader:
    at = Checkpoint(cursor=source.start(None, 0))
    return PageReader(spec(), at, identity=source.identity, tolerated_drift=source.tolerated_drift)


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
        with pytest.raises(SourceUntrue, match="22 rows after a count of 25"):
            list(pages)

"""The first rows of an export, from its beginning to the end of its file's retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from exporter.config import Config
from exporter.core.checkpoints import Row
from exporter.formats import registry
from exporter.run.run_slice import Ending
from exporter.service import previews
from exporter.service.exports import ExportService
from exporter.service.previews import FirstRows
from exporter.settings import Settings
from tests.harness import LIMITS, Bench, postings

ROWS = postings(250)
SLOW = 14.0
"""Seconds for a page, so that each slice gets two of them."""
LARGE_PARTS = msgspec.structs.replace(LIMITS, part_size=100_000)
every_format = pytest.mark.parametrize("format", registry.FORMATS)


class _Export(Bench):
    def __init__(self, rows: Sequence[Row] = ROWS, **options: Any) -> None:
        super().__init__(rows, **options)
        self.service = ExportService(
            settings=Settings(),
            config=Config(sources={}),
            store=self.memory_store,
            storage=self.storage,
            clock=self.clock,
        )

    def first_rows(self) -> FirstRows | None:
        export = self.service.find("u1", self.spec.id)
        assert export is not None
        return previews.first_rows(self.service, export)


def lines(rows: Sequence[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)


def test_a_queued_export_has_no_first_rows_and_costs_the_store_no_request() -> None:
    # Given
    export = _Export()
    # When
    found = export.first_rows()
    # Then
    assert found is None
    assert export.seams.calls == []


@every_format
def test_a_running_export_has_its_committed_rows_as_partial(format: str) -> None:  # noqa: A002
    # Given
    export = _Export(format=format, compression="gzip", seconds_a_page=SLOW)
    assert export.slice() is Ending.HANDED_OVER
    # When
    found = export.first_rows()
    # Then
    assert found is not None
    assert found.is_partial
    assert found.data.count(b"Engineer") == export.export.rows > 0
    assert found.media_type.startswith("text/csv" if format == "csv" else "application/x-ndjson")


@every_format
@pytest.mark.parametrize("compression", registry.COMPRESSIONS)
@pytest.mark.parametrize("limits", [LIMITS, LARGE_PARTS], ids=["parts", "whole"])
def test_a_finished_export_has_the_first_hundred_rows_of_its_file(
    format: str,  # noqa: A002
    compression: str,
    limits: Any,
) -> None:
    # Given
    export = _Export(format=format, compression=compression, limits=limits)
    export.run()
    # When
    found = export.first_rows()
    # Then
    assert found is not None
    assert not found.is_partial
    if format == "csv":
        assert found.data.startswith(b"_id,title,n\r\n000000,")
        assert found.data.endswith(b'remote",99.10\r\n')
    else:
        assert found.data == lines(ROWS[:100])


@pytest.mark.parametrize("compression", registry.COMPRESSIONS)
def test_the_first_rows_are_those_before_the_requested_ids_that_do_not_exist(
    compression: str,
) -> None:
    # Given
    ids = ["000001", "none", "000003", "nothing"]
    export = _Export(format="json", ids=ids, compression=compression)
    export.run()
    # When
    found = export.first_rows()
    # Then
    assert found is not None
    assert found.data == lines([ROWS[1], ROWS[3]])


@pytest.mark.parametrize("compression", registry.COMPRESSIONS)
def test_of_a_file_in_volumes_the_first_volume_is_shown(compression: str) -> None:
    # Given
    export = _Export(format="csv", rows_per_file=7, compression=compression)
    export.run()
    # When
    found = export.first_rows()
    # Then
    assert found is not None
    assert found.data.count(b"_id,title,n") == 1
    assert found.data.count(b"Engineer") == 7


def test_the_first_rows_end_after_a_whole_row_at_the_largest_size() -> None:
    # Given
    rows = [b'{"_id":"%06d","text":"%s"}' % (n, b"x" * 10_000) for n in range(100)]
    export = _Export(rows, format="json")
    export.run()
    # When
    found = export.first_rows()
    # Then
    assert found is not None
    assert found.data == lines(rows[:26])
    assert len(found.data) <= 256 * 1024


def test_an_export_that_ends_meanwhile_has_the_first_rows_of_its_file() -> None:
    # Given: it was found while it ran
    export = _Export(format="json", seconds_a_page=SLOW)
    export.slice()
    running = export.service.find("u1", "e1")
    assert running is not None
    export.run()
    # When
    found = previews.first_rows(export.service, running)
    # Then
    assert found is not None
    assert (found.data, found.is_partial) == (lines(ROWS[:100]), False)


def test_an_export_about_to_end_has_the_first_rows_of_its_published_file() -> None:
    # Given: all but the file is deleted, and the end is not recorded yet
    export = _Export(format="json", seconds_a_page=SLOW)
    found: list[FirstRows | None] = []
    end = export.memory_store.end

    def watched(*args: Any, **fields: Any) -> bool:
        found.append(export.first_rows())
        return end(*args, **fields)

    export.memory_store.end = watched  # type: ignore[method-assign]
    # When
    export.run()
    # Then
    assert found == [FirstRows(lines(ROWS[:100]), "application/x-ndjson", is_partial=True)]


def test_the_first_rows_are_gone_with_the_file() -> None:
    # Given
    export = _Export()
    export.run()
    # When
    export.clock.advance(LIMITS.keep_file.total_seconds())
    # Then
    assert export.first_rows() is None


def test_an_empty_export_has_its_header() -> None:
    # Given
    export = _Export(())
    export.run()
    # When
    found = export.first_rows()
    # Then
    assert found is not None
    assert found.data == b"_id,title,n\r\n"

"""Tests of the JSON envelope: the text around the rows, and the unchanged rows."""

from __future__ import annotations

import json

import pytest

from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Dialect
from exporter.formats import registry
from exporter.formats.envelope import Envelope
from tests.encoding import file_of

AT = "2026-03-04T12:00:00Z"


def test_the_total_of_rows_written_follows_the_rows() -> None:
    # Given
    fmt, row_counts = registry.make("json_envelope", Dialect(exported_at=AT), ()), RowCounts()

    # When
    file = file_of(fmt, [[b'{"id":"1"}', b'{"id":"2"}'], [], [b'{"id":"3"}']], row_counts)

    # Then
    assert file == (
        b'{"exported_at":"2026-03-04T12:00:00Z","jobs":[\n{"id":"1"},\n{"id":"2"},\n{"id":"3"}\n]'
        b',"total":3}\n'
    )


def test_a_total_known_beforehand_precedes_the_rows_as_in_the_contract() -> None:
    # Given
    fmt = Envelope(dialect=Dialect(exported_at=AT), total=1)

    # When
    file = file_of(fmt, [[b'{"id":"1"}']])

    # Then
    assert list(json.loads(file)) == ["exported_at", "total", "jobs"]
    assert json.loads(file) == {"exported_at": AT, "total": 1, "jobs": [{"id": "1"}]}


@pytest.mark.parametrize("total", [None, 0])
def test_an_envelope_without_rows_is_valid_json(total: int | None) -> None:
    # Given
    fmt = Envelope(dialect=Dialect(exported_at=AT), total=total)

    # When
    file = file_of(fmt, [[]])

    # Then
    assert json.loads(file) == {"exported_at": AT, "total": 0, "jobs": []}


def test_an_unknown_time_of_export_is_null() -> None:
    # When
    fmt = registry.make("json_envelope", Dialect(), ())

    # Then
    assert json.loads(file_of(fmt, []))["exported_at"] is None


def test_a_row_on_several_lines_is_one_value_between_two_commas() -> None:
    # Given
    rows = [b'{\n "id": 1.10,\n "t": "a\\nb"\n}', b'{"id":2,\r\n"t":",\\n"}']
    fmt = Envelope(dialect=Dialect(exported_at=AT))

    # When
    file = file_of(fmt, [rows])

    # Then
    assert [job["t"] for job in json.loads(file)["jobs"]] == ["a\nb", ",\n"]
    assert b"1.10" in file
    assert file.count(b"\n") == 4


def test_with_columns_a_posting_has_only_these_fields() -> None:
    # Given
    fmt, row_counts = (
        registry.make("json_envelope", Dialect(exported_at=AT), ("b", "a")),
        RowCounts(),
    )

    # When
    file = file_of(fmt, [[b'{"a":1,"b":null,"c":3}']], row_counts)

    # Then
    assert b'{"b":null,"a":1}' in file
    assert row_counts.unmapped_fields == {"c": 1}

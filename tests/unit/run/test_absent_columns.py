"""Requested columns that no row has are named in the result, however the file was made."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from exporter.core.checkpoints import RowCounts
from exporter.core.exports import State
from exporter.formats import registry
from exporter.run.run_slice import Ending
from tests.harness import LIMITS, Bench, Crash, postings

FORMATS = tuple(registry.FORMATS)
GIVEN = ("_id", "job_titel", "late", "null", "n.min")
CUT = msgspec.structs.replace(LIMITS, partition_rows=60)


def rows(count: int, *, late: int) -> list[bytes]:
    """Rows with the field `null`, which is always null; those from `late` on have a field more."""
    tail = b',"null":null}'
    found = [one[:-1] + tail for one in postings(count)]
    return [one[:-1] + b',"late":1}' if place >= late else one for place, one in enumerate(found)]


def absent(bench: Bench) -> list[str] | None:
    assert bench.export.state is State.FINISHED
    assert bench.export.result is not None
    return bench.export.result.row_counts.absent_columns


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("late", [0, 5, 94, 95])
def test_only_columns_of_no_row_are_absent(format: str, late: int) -> None:  # noqa: A002
    # Given
    bench = Bench(rows(95, late=late), format=format, columns=GIVEN)

    # When
    bench.run()

    # Then
    never = ["job_titel", "late", "n.min"] if late == 95 else ["job_titel", "n.min"]
    assert absent(bench) == never


@pytest.mark.parametrize("format", FORMATS)
def test_rows_that_are_read_leniently_count(format: str) -> None:  # noqa: A002
    # Given: a row with NaN, and one with a name that no generated code can have
    odd = [b'{"_id":"a","n":NaN}', b'{"\\"q":1,"_id":"b"}']
    bench = Bench(odd, format=format, columns=("_id", "n", '"q', "gone"))

    # When
    bench.run()

    # Then
    assert absent(bench) == ["gone"]


def test_many_fields_are_counted_although_few_of_them_are_learned() -> None:
    # Given
    names = [f"f{number}" for number in range(300)]
    row = msgspec.json.encode({"_id": "a", **dict.fromkeys(names, 1)})
    bench = Bench([row], columns=("_id", "gone", *names))

    # When
    bench.run()

    # Then
    assert absent(bench) == ["gone"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("late", [0, 20, 95])
def test_slices_and_lost_workers_keep_what_was_seen(format: str, late: int) -> None:  # noqa: A002
    # Given: `late` is in the rows of one slice only
    found = rows(95, late=95)
    found[late:late] = [b'{"_id":"only","late":1}']
    bench = Bench(found, format=format, columns=GIVEN, seconds_a_page=20)
    died = 0

    # When: every third slice dies
    while bench.export.state is not State.FINISHED:
        bench.seams.die_at = len(bench.seams.calls) + 4 if died < 3 else None
        try:
            bench.slice()
        except Crash:
            died += 1
            bench.bury()
        bench.clock.advance(1)
        bench.memory_store.sweep()

    # Then
    assert died == 3
    assert absent(bench) == ["job_titel", "n.min"]


@pytest.mark.parametrize("late", [0, 130, 249, 250])
def test_partitions_are_asked_all(late: int) -> None:
    # Given
    bench = Bench(rows(250, late=late), columns=GIVEN, limits=CUT)
    bench.listed.read_ahead = 2

    # When
    endings = bench.run()

    # Then
    assert endings[0] is Ending.CUT
    assert absent(bench) == ["job_titel", *(["late"] if late == 250 else []), "n.min"]


@pytest.mark.parametrize("format", ["csv", "json"])
def test_columns_that_were_not_requested_are_not_recorded(format: str) -> None:  # noqa: A002
    # Given
    bench = Bench([b'{"_id":"a"}'], format=format)

    # When
    bench.run()

    # Then
    assert not absent(bench)


def test_an_export_of_an_earlier_version_goes_on_without_a_claim() -> None:
    # Given: a checkpoint without the field
    old: Any = msgspec.json.decode(msgspec.json.encode(RowCounts()))
    del old["absent_columns"]

    # When
    counts = msgspec.convert(old, RowCounts)
    whole = RowCounts(absent_columns=["a"])
    whole.include(counts)

    # Then
    assert counts.absent_columns is None
    assert counts.copy().absent_columns is None
    assert whole.absent_columns is None

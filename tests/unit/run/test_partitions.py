"""Tests of the plan of partitions, and of the checks that they fit together."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from exporter.core.checkpoints import Checkpoint, Packed, RowCounts
from exporter.core.exports import EndReason, Export, Partition, Phase, State
from exporter.errors import SourceMoved
from exporter.run import partitions
from exporter.sources.base import Page
from tests.specs import spec


@given(
    total=st.integers(0, 100_000),
    limit=st.none() | st.integers(1, 100_000),
    offset=st.integers(0, 5_000),
    page_rows=st.integers(1, 300),
    min_rows=st.integers(1, 10_000),
    max_partitions=st.integers(1, 20),
)
def test_partitions_cover_every_row_once_and_begin_at_pages(
    total: int, limit: int | None, offset: int, page_rows: int, min_rows: int, max_partitions: int
) -> None:
    # Given
    asked = spec(limit=limit, offset=offset)

    # When
    cut = partitions.plan(
        asked,
        total,
        page_rows=page_rows,
        min_rows=min_rows,
        max_partitions=max_partitions,
        page_bytes=9,
    )

    # Then
    wanted = min(max(total - offset, 0), total if limit is None else limit)
    assert len(cut) <= max_partitions
    if cut:
        assert [one.place for one in cut] == list(range(len(cut)))
        assert [one.offset for one in cut] == [
            sum(one.rows for one in cut[:n]) for n in range(len(cut))
        ]
        assert sum(one.rows for one in cut) == wanted
        assert all(one.offset % page_rows == 0 and one.rows > 0 for one in cut)
        # Behind an offset the first page may have been incomplete.
        assert {one.page_rows for one in cut} == {0 if offset else page_rows}
    else:
        assert wanted < 2 * min_rows or max_partitions < 2


def test_an_export_is_read_as_one_if_cutting_is_off_or_its_volumes_are_counted() -> None:
    # Given
    of_files = spec(rows_per_file=100)

    # When, Then
    assert partitions.plan(spec(), 1_000, page_rows=10, min_rows=0, max_partitions=8) == []
    assert partitions.plan(of_files, 1_000, page_rows=10, min_rows=10, max_partitions=8) == []
    assert len(partitions.plan(spec(), 1_000, page_rows=10, min_rows=10, max_partitions=8)) == 8


@pytest.mark.parametrize(
    ("total", "duplicates", "says"), [(101, 0, "announces 101 rows, 100"), (100, 1, "came twice")]
)
def test_a_list_that_moves_is_not_read_in_partitions(
    total: int, duplicates: int, says: str
) -> None:
    # Given
    partition = Partition(1, 50, 50, 100)
    page = Page(rows=[b"{}"], next=None, total=total)

    # When, Then
    with pytest.raises(SourceMoved, match=says):
        partitions.check_unmoved(partition, page, Checkpoint(cursor=None, duplicates=duplicates))


def _end(
    place: int,
    rows: int,
    data: bytes = b"",
    *,
    read: int | None = None,
    seen: str = "",
    head: str = "",
    state: State = State.FINISHED,
) -> Export:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Export(
        spec=spec(),
        state=state,
        phase=Phase.DONE,
        progress=1.0,
        created_at=now,
        updated_at=now,
        partition=Partition(place, 10 * place, rows, 25),
        checkpoint=Checkpoint(
            cursor=None,
            end_reason=EndReason.TOTAL_REACHED,
            rows=rows if read is None else read,
            pages=1,
            seen=seen,
            head=head,
            row_counts=RowCounts(guarded_cells=1, unmapped_fields={"a": rows}),
            packed=Packed(is_open=True, rows=rows, crc=isal_zlib.crc32(data), length=len(data)),
        ),
    )


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_what_partitions_counted_is_what_one_reader_would_have_counted(
    first: bytes, second: bytes, third: bytes
) -> None:
    # Given
    pieces = [_end(0, 10, first), _end(1, 10, second), _end(2, 5, third)]

    # When
    joined = partitions.join(spec(), pieces)

    # Then
    whole = first + second + third
    assert (joined.packed.crc, joined.packed.length) == (isal_zlib.crc32(whole), len(whole))
    assert (joined.packed.is_open, joined.packed.rows) == (True, 25)
    assert joined.row_counts == RowCounts(guarded_cells=3, unmapped_fields={"a": 25})
    assert (joined.rows, joined.fetched, joined.pages) == (25, 25, 3)
    assert joined.end_reason is EndReason.TOTAL_REACHED


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (_end(1, 10, head="AAAAAAAAAAE="), "e1/1 begins with 1 rows of the one before"),
        (_end(1, 10, read=9), "e1/1 has 9 of its 10 rows"),
        (_end(1, 10, state=State.CANCELED), "e1/1 was given up"),
    ],
)
def test_partitions_that_do_not_fit_are_not_joined(second: Export, says: str) -> None:
    # Given
    first = _end(0, 10, seen="AAAAAAAAAAE=")

    # When, Then
    with pytest.raises(SourceMoved, match=says):
        partitions.join(spec(), [first, second])

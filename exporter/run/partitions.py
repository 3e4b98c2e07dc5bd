"""Plans the partitions of an export, and checks that their rows fit together.

In a list that is read by page number, rows move to other pages when rows are added or removed. A
single reader, from the first page to the last, notices rows that come twice. Parallel readers do
not notice this where one partition ends and the next begins. Partitions therefore tolerate no
change: if rows are seen to move, the partitions are dropped and the export is read again without
partitions.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from exporter.core.checkpoints import Checkpoint, Packed, RowCounts
from exporter.core.exports import Export, Partition, Spec, State
from exporter.errors import SourceMoved
from exporter.formats import compression
from exporter.formats.base import Format
from exporter.formats.registry import FORMATS
from exporter.run import row_ids
from exporter.sources.base import Page


def plan(
    spec: Spec,
    total: int,
    *,
    page_rows: int,
    min_rows: int,
    max_partitions: int,
    first_rows: str = "",
    page_bytes: int = 0,
) -> list[Partition]:
    """Returns partitions of whole pages and about equal length that cover all rows of the export.

    `total` is the number of rows that the source announced, `page_rows` the number of rows on a
    page, `first_rows` the digests of its first rows, `page_bytes` the size of a page if all pages
    are alike, else 0. Returns an empty list if the export is too small for two partitions of
    `min_rows` rows, if `min_rows` or `page_rows` is 0, if the spec lists ids or limits the rows per
    file, or if files of the format cannot be joined.
    """
    rows = max(total - spec.offset, 0)
    if spec.limit is not None:
        rows = min(rows, spec.limit)
    count = min(max_partitions, rows // min_rows) if min_rows else 0
    is_whole = spec.ids is None and spec.rows_per_file is None and FORMATS[spec.format].joinable
    if count < 2 or page_rows < 1 or not is_whole:
        return []
    length = -(-rows // (count * page_rows)) * page_rows
    # Behind an offset, the first page may be incomplete and tell nothing of the others.
    pages = (page_rows, page_bytes) if page_bytes and not spec.offset else (0, 0)
    return [
        Partition(place, offset, min(length, rows - offset), total, first_rows, *pages)
        for place, offset in enumerate(range(0, rows, length))
    ]


def partition_spec(spec: Spec, partition: Partition) -> Spec:
    """Returns a copy of the spec that selects only the rows of the partition.

    The partition that contains the last announced row is not bounded by its own number of rows,
    only by the limit of the export: a source may have more rows than it announced, so the end of
    the list must be proven there.
    """
    offset = spec.offset + partition.offset
    limit: int | None = partition.rows
    if offset + partition.rows >= partition.total:
        limit = None if spec.limit is None else spec.limit - partition.offset
    return msgspec.structs.replace(spec, limit=limit, offset=offset)


def initial_packed(partition: Partition) -> Packed:
    """Returns the state of the file encoder at the start of a partition.

    The first partition begins the file; later partitions continue an open volume.
    """
    if partition.place == 0:
        return Packed()
    return Packed(is_open=True, rows=partition.offset)


def check_unmoved(partition: Partition, page: Page, at: Checkpoint) -> None:
    """Raises SourceMoved if the source has visibly changed since the export was partitioned.

    `page` is the page that was just accepted, `at` the position after it.
    """
    if page.total != partition.total:
        raise SourceMoved(
            f"the source announces {page.total} rows, {partition.total} when the export was cut"
        )
    if at.duplicates:
        raise SourceMoved(f"{at.duplicates} rows came twice in partition {partition.place}")


def join(spec: Spec, pieces: Sequence[Export]) -> Checkpoint:
    """Returns the checkpoint of the whole export, made from the checkpoints of its partitions.

    `pieces` are all partitions in order; all must have ended. Raises SourceMoved if a partition did
    not finish or has another number of rows than planned, or if a partition begins with rows with
    which the previous one ends.
    """
    ends: list[Checkpoint] = []
    for one in pieces:
        if one.state is not State.FINISHED or one.checkpoint is None or one.partition is None:
            raise SourceMoved(f"partition {one.id} was given up")
        if one.checkpoint.rows != one.partition.rows:
            raise SourceMoved(
                f"partition {one.id} has {one.checkpoint.rows} of its {one.partition.rows} rows"
            )
        if ends and (again := len(_common(ends[-1].seen, one.checkpoint.head))):
            raise SourceMoved(f"partition {one.id} begins with {again} rows of the one before")
        ends.append(one.checkpoint)
    row_counts = RowCounts(absent_columns=list(spec.column_names))
    for end in ends:
        row_counts.include(end.row_counts)
    rows = sum(end.rows for end in ends)
    announced = next(one.partition.total for one in pieces if one.partition)
    total = max(announced - spec.offset, 0)
    return Checkpoint(
        cursor=None,
        end_reason=ends[-1].end_reason,
        rows=rows,
        fetched=rows,
        pages=sum(end.pages for end in ends),
        total_at_start=total,
        total_at_end=total,
        row_counts=row_counts,
        packed=_join_packed(FORMATS[spec.format], rows, [end.packed for end in ends]),
    )


def _join_packed(format_type: type[Format], rows: int, ends: Sequence[Packed]) -> Packed:
    state = format_type.join([format_type.state_type.load(end) for end in ends])
    compressed = compression.join([compression.State(end.crc, end.length) for end in ends])
    return Packed(
        is_open=True,
        rows=rows,
        state=state.dump(),
        crc=compressed.crc,
        length=compressed.length,
    )


def _common(some: str, others: str) -> set[int]:
    return set(row_ids.unpack(some)) & set(row_ids.unpack(others))

"""Cutting one export into partitions that are read side by side, and knowing that they still fit.

A list that is read by page number moves when rows are added or removed. Whoever reads it alone
from its first page to its last notices rows that come twice; several who begin in the middle do
not, where one ends and the next begins. So partitions tolerate nothing: if the list is seen to
move, they are given up and the export is read once more, as one.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
from isal import isal_zlib

from exporter.core.checkpoints import Checkpoint, Packed, RowCounts
from exporter.core.exports import Export, Partition, Spec, State
from exporter.errors import SourceMoved
from exporter.run.page_reader import DIGEST
from exporter.sources.base import Page


def cut(spec: Spec, total: int, *, page_rows: int, least: int, most: int) -> list[Partition]:
    """Stretches of about equal length, each whole pages, that together are the export.

    `total` is what the source announced. Empty if they would have fewer than `least` rows each
    even as two, if `least` is 0, or if the export's parts must be told apart (ids, volumes).
    """
    rows = max(total - spec.offset, 0)
    if spec.limit is not None:
        rows = min(rows, spec.limit)
    count = min(most, rows // least) if least else 0
    if count < 2 or spec.ids is not None or spec.rows_per_file is not None or page_rows < 1:
        return []
    length = -(-rows // (count * page_rows)) * page_rows
    return [
        Partition(place, offset, min(length, rows - offset), total)
        for place, offset in enumerate(range(0, rows, length))
    ]


def narrowed(spec: Spec, partition: Partition) -> Spec:
    """The export as if only that stretch of it had been asked for.

    The last stretch of all rows has no end but the source's own: that nothing follows has to show
    there, for a source may announce fewer rows than it has.
    """
    offset = spec.offset + partition.offset
    limit: int | None = partition.rows
    if offset + partition.rows >= partition.total:
        limit = None if spec.limit is None else spec.limit - partition.offset
    return msgspec.structs.replace(spec, limit=limit, offset=offset)


def packed(partition: Partition) -> Packed:
    """Where the making of the partition's bytes begins: the first one begins the file, any other
    goes on with it."""
    if partition.place == 0:
        return Packed()
    return Packed(is_open=True, rows=partition.offset)


def check(partition: Partition, page: Page, at: Checkpoint) -> None:
    """Raises SourceMoved if the page just taken, up to `at`, shows that the list moved since the
    export was cut."""
    if page.total != partition.total:
        raise SourceMoved(
            f"the source announces {page.total} rows, {partition.total} when the export was cut"
        )
    if at.duplicates:
        raise SourceMoved(f"{at.duplicates} rows came twice in partition {partition.place}")


def joined(spec: Spec, pieces: Sequence[Export]) -> Checkpoint:
    """Where an export stands whose partitions, in order, have all ended.

    Raises SourceMoved if one was given up or is short, or if two hold the same rows where they
    meet.
    """
    ends: list[Checkpoint] = []
    for one in pieces:
        if one.state is not State.FINISHED or one.checkpoint is None or one.partition is None:
            raise SourceMoved(f"partition {one.id} was given up")
        if one.checkpoint.rows != one.partition.rows:
            raise SourceMoved(
                f"partition {one.id} has {one.checkpoint.rows} of its {one.partition.rows} rows"
            )
        if ends and (again := len(_digests(ends[-1].seen) & _digests(one.checkpoint.head))):
            raise SourceMoved(f"partition {one.id} begins with {again} rows of the one before")
        ends.append(one.checkpoint)
    row_counts = RowCounts()
    crc = length = 0
    for end in ends:
        row_counts.include(end.row_counts)
        crc = isal_zlib.crc32_combine(crc, end.packed.crc, end.packed.length)
        length += end.packed.length
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
        packed=Packed(is_open=True, rows=rows, crc=crc, length=length),
    )


def _digests(stored: str) -> set[bytes]:
    raw = base64.b64decode(stored)
    return {raw[i : i + DIGEST] for i in range(0, len(raw), DIGEST)}

"""JSON in an envelope: one object around all postings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from exporter.core.checkpoints import Row, RowCounts
from exporter.formats.json import JsonLines


class Envelope:
    """`{"exported_at": …, "jobs": […], "total": N}`, in UTF-8, with one posting a line.

    Rows are written as JSON Lines writes them, values untouched. `total` is the number of postings
    written. It stands last, because while a file is written nobody knows it; who does know it
    beforehand gives it here, and it stands before `jobs`, as the contract shows it.
    """

    content_type = "application/json"
    extension = "json"

    def __init__(
        self, columns: Sequence[str] = (), *, exported_at: str | None, total: int | None = None
    ) -> None:
        self._lines = JsonLines(columns)
        self._exported_at = msgspec.json.encode(exported_at)
        self._total = total

    def open(self) -> bytes:
        total = b"" if self._total is None else b'"total":%d,' % self._total
        return b'{"exported_at":%b,%b"jobs":[' % (self._exported_at, total)

    def encode(self, rows: Sequence[Row], row_counts: RowCounts, written: int = 0) -> bytes:
        lines = self._lines.lines(rows, row_counts)
        if not lines:
            return b""
        lines[0] = (b",\n" if written else b"\n") + lines[0]
        return b",\n".join(lines)

    def close(self, written: int = 0) -> bytes:
        return b"\n]}\n" if self._total is not None else b'\n],"total":%d}\n' % written

"""The format `json_envelope`: one JSON object around all postings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from exporter.core.checkpoints import Row, RowCounts
from exporter.formats.json import JsonLines


class Envelope:
    """Writes `{"exported_at": …, "jobs": […], "total": N}`, in UTF-8, with one posting per line.

    Rows are written as in JSON Lines, with unchanged values. `total` is the number of postings
    written. The field is written after `jobs`, because the number is not known before the last row.
    If the constructor gets the number as `total`, the field is written before `jobs`, as in the
    contract.
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

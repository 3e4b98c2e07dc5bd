"""The format `json_envelope`: one JSON object around all postings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Dialect
from exporter.errors import SourceUntrue
from exporter.formats.base import PLAIN, Format, State
from exporter.formats.json import JsonLines


class Envelope(Format):
    """Writes `{"exported_at": …, "jobs": […], "total": N}`, in UTF-8, with one posting per line.

    Rows are written as in JSON Lines, with unchanged values. `total` is the number of postings
    written. The field is written after `jobs`, because the number is not known before the last row.
    If the constructor gets the number as `total`, the field is written before `jobs`, as in the
    contract.
    """

    extension = "json"
    media_type = "application/json"
    summary = "one object: `exported_at`, `jobs`, `total`"
    options = frozenset({"exported_at"})
    joinable = True

    def __init__(
        self, columns: Sequence[str] = (), dialect: Dialect = PLAIN, *, total: int | None = None
    ) -> None:
        self._lines = JsonLines(columns)
        self._exported_at = msgspec.json.encode(dialect.exported_at)
        self._total = total

    def open(self, state: State, out: Buffer) -> None:  # noqa: ARG002
        total = b"" if self._total is None else b'"total":%d,' % self._total
        out += b'{"exported_at":%b,%b"jobs":[' % (self._exported_at, total)

    def encode(self, rows: Sequence[Row], row_counts: RowCounts, state: State, out: Buffer) -> None:
        if not rows:
            return
        begin = len(out)
        out += b",\n" if state.rows else b"\n"
        try:
            self._lines.append(rows, row_counts, out, b",\n")
        except SourceUntrue:
            out.truncate(begin)
            raise
        out.truncate(len(out) - 2)

    def close(self, state: State, out: Buffer) -> None:
        out += b"\n]}\n" if self._total is not None else b'\n],"total":%d}\n' % state.rows

    @classmethod
    def first_rows(cls, data: bytes, rows: int) -> bytes:
        """Returns the first rows as JSON Lines, without the object around them."""
        _, _, lines = super().first_rows(data, rows + 1).partition(b"\n")
        found = [one.removesuffix(b",") for one in lines.split(b"\n")[:-1] if one[:1] != b"]"]
        return b"".join(one + b"\n" for one in found)

    @staticmethod
    def count(file: Path) -> int:
        # The rows are the lines between the first, which opens the list, and that which closes it.
        with file.open("rb") as lines:
            for number, line in enumerate(lines):
                if line.startswith(b"]"):
                    return number - 1
        raise ValueError(f"{file} ends before its closing line: it is not the whole envelope")

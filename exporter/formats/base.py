"""The interface of a file format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from exporter.core.checkpoints import Row, RowCounts


class Format(Protocol):
    """Turns rows into bytes without state between calls, so any worker can continue a file.

    The file is `open() + encode(page 1) + … + encode(page n) + close()`; the bytes are the same
    whichever worker makes which call.
    """

    content_type: str
    """Media type of the uncompressed file."""
    extension: str
    """File name extension, without a dot."""

    def open(self) -> bytes:
        """Returns the bytes before the first row."""

    def encode(self, rows: Sequence[Row], row_counts: RowCounts, written: int = 0) -> bytes:
        """Returns the bytes of the rows.

        `written` is the number of rows that precede these rows in the same volume. Each value that
        is changed or left out is counted in `row_counts`. Raises SourceUntrue if a row is not a
        JSON object.
        """

    def close(self, written: int = 0) -> bytes:
        """Returns the bytes after the last row; `written` is the number of rows in the volume."""

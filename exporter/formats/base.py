"""The seam between rows and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from exporter.core.checkpoints import Row, RowCounts


class Format(Protocol):
    """Turns rows into bytes, keeping no state, so that any worker can go on with a file.

    `open() + encode(page 1) + … + encode(page n) + close()` is the file, however the pages
    are spread over workers.
    """

    content_type: str
    extension: str

    def open(self) -> bytes:
        """What stands before the first row."""

    def encode(self, rows: Sequence[Row], row_counts: RowCounts, written: int = 0) -> bytes:
        """The rows as bytes; what had to be changed or left out is counted into the tally.

        Never changes a value in silence. Raises SourceUntrue if a row is not a JSON object.
        """

    def close(self, written: int = 0) -> bytes:
        """What stands after the last row."""

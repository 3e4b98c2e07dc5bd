"""The seam between rows and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from exporter.checkpoints import Tally

Row = msgspec.Raw | bytes
"""The JSON text of one posting, one object, exactly as the source gave it. A Raw is a value that
msgspec cut out of a text, so its syntax is known to be right; of bytes nothing is known."""


class Dialect(msgspec.Struct, frozen=True):
    """How one contract wants a format, as data."""

    guard: bool = False
    """Whether CSV text cells that a spreadsheet would run as a formula get a leading
    apostrophe. Off for machines, whose readers must see the value; on for files people open."""
    joined: bool = False
    """Whether a CSV cell of a list shows its values joined by "; " instead of as JSON text."""
    exported_at: str | None = None
    """When the export was asked for, as its file says it; fixed here, so that whoever goes on
    with the file writes the same."""


class Format(Protocol):
    """Turns rows into bytes, keeping no state, so that any worker can go on with a file.

    `open() + encode(page 1) + … + encode(page n) + close()` is the file, however the pages
    are spread over workers.
    """

    content_type: str
    extension: str

    def open(self) -> bytes:
        """What stands before the first row."""

    def encode(self, rows: Sequence[Row], tally: Tally, written: int = 0) -> bytes:
        """The rows as bytes; what had to be changed or left out is counted into the tally.

        Never changes a value in silence. Raises SourceUntrue if a row is not a JSON object.
        """

    def close(self, written: int = 0) -> bytes:
        """What stands after the last row."""

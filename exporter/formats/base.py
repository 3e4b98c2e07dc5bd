"""The seam between rows and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from exporter.checkpoints import Tally

Row = msgspec.Raw | bytes
"""The JSON text of one posting, one object, exactly as the source gave it."""


class Dialect(msgspec.Struct, frozen=True):
    """How one contract wants a format, as data."""

    guard: bool = False
    """Whether CSV text cells that a spreadsheet would run as a formula get a leading
    apostrophe. Off for machines, whose readers must see the value; on for files people open."""


class Format(Protocol):
    """Turns rows into bytes, keeping no state, so that any worker can go on with a file.

    `open() + encode(page 1) + … + encode(page n) + close()` is the file, however the pages
    are spread over workers.
    """

    content_type: str
    extension: str

    def open(self) -> bytes:
        """What stands before the first row."""

    def encode(self, rows: Sequence[Row], tally: Tally) -> bytes:
        """The rows as bytes; what had to be changed or left out is counted into the tally.

        Never changes a value in silence. Raises SourceUntrue if a row is not a JSON object.
        """

    def close(self) -> bytes:
        """What stands after the last row."""

"""All that is needed to go on with an export after its worker is gone."""

from __future__ import annotations

from typing import Any

import msgspec

Cursor = Any
"""A JSON value that asks a source for a page; only the source knows what it means."""


Row = msgspec.Raw | bytes
"""The JSON text of one posting, one object, exactly as the source gave it. A Raw is a value that
msgspec cut out of a text, so its syntax is known to be right; of bytes nothing is known."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One uploaded part; its number is its place in the checkpoint, counted from 1."""

    etag: str
    size: int


class Tail(msgspec.Struct, frozen=True):
    """Encoded pages too few for a part, kept as an object of their own between two slices."""

    key: str
    size: int


class RowCounts(msgspec.Struct):
    """What the encoder changed or could not place, counted; grows with each encoded page."""

    guarded_cells: int = 0
    """Text cells that got a leading apostrophe, so that no spreadsheet runs them."""
    replaced_characters: int = 0
    """Characters that UTF-8 cannot carry (lone surrogates), written as U+FFFD."""
    unmapped_fields: dict[str, int] = msgspec.field(default_factory=dict)
    """Fields that rows had beside the columns, and in how many rows."""
    nulled_numbers: int = 0
    """NaN and infinities, which JSON cannot carry, written as null in JSON files."""

    def copy(self) -> RowCounts:
        return RowCounts(
            self.guarded_cells,
            self.replaced_characters,
            dict(self.unmapped_fields),
            self.nulled_numbers,
        )

    def include(self, other: RowCounts) -> None:
        """Add what another tally counted."""
        self.guarded_cells += other.guarded_cells
        self.replaced_characters += other.replaced_characters
        self.nulled_numbers += other.nulled_numbers
        for name, rows in other.unmapped_fields.items():
            self.unmapped_fields[name] = self.unmapped_fields.get(name, 0) + rows


class Volume(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of the file that is whole by itself."""

    rows: int
    offset: int
    """Bytes of the file before it."""
    size: int


class Packed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the making of the file's bytes stands; see `packing.Packing`."""

    is_open: bool = False
    """Whether a volume was begun and not ended."""
    rows: int = 0
    """Rows in the open volume."""
    crc: int = 0
    length: int = 0
    """CRC-32 and bytes of the open volume before compression; 0 without compression."""
    volumes: tuple[Volume, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """A point between two pages to which every byte is durable; nothing after it counts.

    Parts stand inside, not in a list of their own: one value is one write, so a checkpoint
    is whole or absent. At about 45 bytes a part this is far below 1 % of the part it commits.
    """

    cursor: Cursor
    """The next page to fetch; meaningless once `end_reason` is set."""
    end_reason: str | None = None
    """Why no page follows; see `exports.EndReason`. None while pages remain."""
    rows: int = 0
    """Rows in all committed bytes."""
    fetched: int = 0
    """Rows that the source gave, those that came twice included."""
    duplicates: int = 0
    """Rows left out because their id had just come before."""
    over_limit: int = msgspec.field(default=0, name="beyond")
    """Rows of the last page that the limit cut off."""
    pages: int = 0
    landmark: Cursor = None
    """A cursor passed earlier: if it comes again, the pages go round in a circle."""
    seen: str = ""
    """Digests of the latest ids, in base64."""
    head: str = ""
    """The same of the first page's ids, in a partition: the one before must not end with them."""
    total_at_start: int | None = None
    """Rows that the source announced with its first page, if it announces."""
    total_at_end: int | None = None
    """Rows that the source announced with the latest page."""
    key: str | None = None
    """Object key of the open upload."""
    upload_id: str | None = None
    parts: tuple[Part, ...] = ()
    tail: Tail | None = None
    row_counts: RowCounts = msgspec.field(default_factory=RowCounts, name="tally")
    packed: Packed = Packed()
    unknown: str = ""
    """Ids that were asked for and that the source does not have: one a line, deflated, in
    base64."""

    @property
    def uploaded(self) -> int:
        """Bytes in parts, without the tail."""
        return sum(part.size for part in self.parts)

    def evolve(self, **changes: Any) -> Checkpoint:
        """The same checkpoint with some fields changed."""
        return msgspec.structs.replace(self, **changes)

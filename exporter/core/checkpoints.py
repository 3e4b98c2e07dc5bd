"""Checkpoints: all that another worker needs to continue an export."""

from __future__ import annotations

from typing import Any

import msgspec

Cursor = Any
"""A JSON value that asks a source for a page; only the source interprets it."""


Row = msgspec.Raw | bytes
"""The JSON text of one posting (one JSON object), exactly as the source gave it.

msgspec has checked the JSON syntax of a `msgspec.Raw`; the syntax of `bytes` is unchecked.
"""


class ConvertedRow(bytes):
    """A row in UTF-8 that the source sent in another encoding."""


class Part(msgspec.Struct, frozen=True, array_like=True):
    """A stored piece of a file; its place is its position in `FileState.parts`."""

    etag: str
    """The destination's receipt: for S3, the etag of the part."""
    size: int
    """Bytes of the piece that come before the position of the checkpoint.

    This is the whole piece, except for the last piece of a checkpoint with an `overhang`.
    """


class Tail(msgspec.Struct, frozen=True):
    """An object with the encoded rows after the last piece, which are too few for a piece.

    The object is stored when a slice ends; the next slice reads it and continues after it.
    """

    key: str
    size: int


class FileState(msgspec.Struct, frozen=True):
    """State of an unfinished file: all that another worker needs to continue it.

    Only the destination makes and interprets it, see `exporter.storage.base.FileWriter`. Other code
    reads `uploaded` and stores the rest as it is. The list of pieces is a field and not a separate
    record: one value is one write, so a checkpoint is stored completely or not at all. At about
    60 bytes for each piece the list is far below 1 % of the data that it commits.
    """

    key: str | None = None
    """Key under which the file will be published; None before the first piece."""
    upload_id: str | None = None
    """The destination's name of the unfinished file; None before the first piece.

    For S3, this is the id of the multipart upload.
    """
    parts: tuple[Part, ...] = ()
    """Pieces stored so far, in the order of the file."""
    part_size: int = 0
    """Size in bytes of every piece of the file but the last; 0 until it is chosen.

    Some stores, such as Cloudflare R2, refuse a file whose parts differ in size. Where the store
    takes it, the pieces of a composed file have other sizes.
    """
    overhang: int = 0
    """Bytes at the end of the last piece that come after the position of the checkpoint.

    Pieces end in the middle of a page. A worker that takes over drops these bytes. A slice that
    ends regularly stores a checkpoint without an overhang.
    """
    tail: Tail | None = None
    """Object with the bytes after the last piece; None if the pieces hold all bytes."""
    checksums: tuple[str, ...] | None = None
    """Checksums of the pieces, with which the destination checks the whole file.

    For S3, CRC64NVME; None: the destination got other checksums, or none, with the pieces.
    """

    @property
    def uploaded(self) -> int:
        """Number of bytes before the position that the pieces hold; the tail is not included."""
        return sum(part.size for part in self.parts)

    @property
    def stored_parts(self) -> tuple[Part, ...]:
        """The pieces with the sizes that they have at the destination, the overhang included."""
        if not self.overhang:
            return self.parts
        last = self.parts[-1]
        return (*self.parts[:-1], Part(last.etag, last.size + self.overhang))


class RowCounts(msgspec.Struct):
    """Counts of values that the encoder changed and of fields that have no column.

    The counts grow with each encoded page.
    """

    guarded_cells: int = 0
    """Number of text cells that got a leading apostrophe.

    With it, spreadsheets do not run the text as a formula.
    """
    replaced_characters: int = 0
    """Number of characters that were replaced by U+FFFD.

    These are lone surrogates, which UTF-8 cannot encode.
    """
    unmapped_fields: dict[str, int] = msgspec.field(default_factory=dict)
    """Number of rows that have a field without a column, by the name of the field."""
    nulled_numbers: int = 0
    """Number of NaNs and infinities, which JSON does not have; they are written as null."""
    absent_columns: list[str] | None = None
    """Requested columns that no row has had so far, not even as null.

    None: not recorded, because the request named no columns, or the first rows were written by a
    version that did not record this.
    """
    converted_rows: int = 0
    """Number of rows that the source sent in another encoding than UTF-8."""

    def copy(self) -> RowCounts:
        """Returns an independent copy."""
        return msgspec.structs.replace(
            self,
            unmapped_fields=dict(self.unmapped_fields),
            absent_columns=self.absent_columns and list(self.absent_columns),
        )

    def include(self, other: RowCounts) -> None:
        """Adds the counts of `other`."""
        self.guarded_cells += other.guarded_cells
        self.replaced_characters += other.replaced_characters
        self.nulled_numbers += other.nulled_numbers
        self.converted_rows += other.converted_rows
        for name, rows in other.unmapped_fields.items():
            self.unmapped_fields[name] = self.unmapped_fields.get(name, 0) + rows
        if self.absent_columns is not None:
            others = other.absent_columns
            self.absent_columns = (
                None if others is None else [one for one in self.absent_columns if one in others]
            )


class Volume(msgspec.Struct, frozen=True, array_like=True):
    """A byte range of the file that is a complete file by itself."""

    rows: int
    offset: int
    """Bytes of the file before the volume."""
    size: int
    """Bytes of the volume."""


class Packed(msgspec.Struct, frozen=True, omit_defaults=True):
    """The encoder's state at a checkpoint; see `exporter.run.packer.FileEncoder`."""

    is_open: bool = False
    """Whether a volume was begun and is not yet ended."""
    rows: int = 0
    """Rows in the open volume."""
    state: dict[str, Any] = {}
    """What the format must know of the open volume beside `rows`; see `formats.base.State`."""
    crc: int = 0
    length: int = 0
    """Size of the open volume before compression, in bytes.

    `crc` is the CRC-32 of the same bytes (gzip only). Both are 0 without compression; see
    `formats.compression.State`.
    """
    volumes: tuple[Volume, ...] = ()
    """Volumes that have ended."""


class Checkpoint(FileState, frozen=True, kw_only=True):
    """A position between two pages; all bytes before the position are durable.

    The next worker discards everything after the position and continues there.
    """

    cursor: Cursor
    """Cursor of the next page to fetch; meaningless once `end_reason` is set."""
    end_reason: str | None = None
    """Proof that no page follows, see `exports.EndReason`; None while pages remain."""
    rows: int = 0
    """Rows in all committed bytes."""
    fetched: int = 0
    """Number of rows that the source returned, plus the requested ids that it does not have.

    Duplicates and rows beyond the limit are included.
    """
    duplicates: int = 0
    """Rows left out because a row with the same id came shortly before."""
    over_limit: int = msgspec.field(default=0, name="beyond")
    """Number of rows on the last page that are not exported, because of the limit."""
    pages: int = 0
    """Pages read so far."""
    landmark: Cursor = None
    """An earlier cursor, kept for loop detection: if the source returns it again, pages repeat."""
    seen: str = ""
    """Digests of the latest row ids, in base64; used to remove duplicates."""
    head: str = ""
    """Digests of the ids of the first rows, in base64.

    If many of these rows come again, the source repeats its list. If the previous partition ends
    with one of them, rows have moved between the partitions.
    """
    again: int = 0
    """Count of first rows that came again; see `exporter.run.row_ids.FirstRows`."""
    repeated: int = 0
    """Number of rows in a row, up to the latest, that came shortly before."""
    total_at_start: int | None = None
    """Rows that the source announced with the first page; None if it announces no total."""
    total_at_end: int | None = None
    """Rows that the source announced with the latest page; None if it announces no total."""
    row_counts: RowCounts = msgspec.field(default_factory=RowCounts, name="tally")
    packed: Packed = Packed()
    unknown: str = ""
    """Requested ids that the source does not have: one id per line, zlib-compressed, in base64."""

    @property
    def file(self) -> FileState:
        """The state of the file at this position."""
        return FileState(**{name: getattr(self, name) for name in FileState.__struct_fields__})

    def with_file(self, state: FileState) -> Checkpoint:
        """Returns a copy of the checkpoint with another state of the file."""
        return self.evolve(**msgspec.structs.asdict(state))

    def evolve(self, **changes: Any) -> Checkpoint:
        """Returns a copy of the checkpoint with some fields changed."""
        return msgspec.structs.replace(self, **changes)

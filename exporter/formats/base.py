"""The interface of a file format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Packed, Row, RowCounts
from exporter.core.exports import Dialect

PLAIN = Dialect()
"""The dialect without any option."""


class State(msgspec.Struct):
    """The position of a format in an open volume, from which any worker continues the volume.

    The checkpoint keeps it. A format that must know more than the number of rows has a subclass
    with further fields, each with a default; the methods of the format change them in place.
    """

    rows: int = 0
    """Rows before the next one: of the open volume, and of the partitions before.

    The caller of `Format.encode` counts them, after each call.
    """

    @classmethod
    def load(cls, packed: Packed) -> Self:
        """Returns the state that a checkpoint has kept."""
        return msgspec.convert({**packed.state, "rows": packed.rows}, cls)

    def dump(self) -> dict[str, Any]:
        """Returns the fields that `Packed.state` keeps: all but `rows`, as JSON values."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        del fields["rows"]
        return fields


class Format(ABC):
    """Turns rows into bytes that any worker can continue; see `registry` for how to add one.

    A volume is `open`, then `encode` for each page, then `close`; each call appends its bytes to
    `out`. After `pause`, the next call may be made by another worker, which has only the state: the
    file has the same content, whichever worker makes which call.
    """

    extension: ClassVar[str]
    """File name extension, without a dot."""
    media_type: ClassVar[str]
    """Media type of the uncompressed file."""
    summary: ClassVar[str] = ""
    """Text in parentheses after the name of the format in the documentation."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields of `Dialect` that change the file."""
    needs_columns: ClassVar[bool] = False
    """Whether a file needs columns; without columns, other formats write all fields of a row."""
    compressible: ClassVar[bool] = True
    """Whether a file may be compressed; False for a format that compresses within the file."""
    joinable: ClassVar[bool] = False
    """Whether the bytes of partitions may be laid end to end to become the bytes of the export.

    The first partition begins with `open`. The others begin with a state that has only `rows`, the
    number of rows before the partition. `close` gets what `join` makes of the states at their ends.
    An export in another format is not partitioned.
    """
    preview_type: ClassVar[str] = "application/x-ndjson"
    """Media type of what `first_rows` returns."""
    state_type: ClassVar[type[State]] = State

    @abstractmethod
    def __init__(self, columns: Sequence[str] = (), dialect: Dialect = PLAIN) -> None:
        """Makes the format for these columns; without columns it writes all fields."""

    def open(self, state: Any, out: Buffer) -> None:  # noqa: B027 - by default nothing
        """Appends the bytes before the first row; `state` is new."""

    @abstractmethod
    def encode(self, rows: Sequence[Row], row_counts: RowCounts, state: Any, out: Buffer) -> None:
        """Appends the bytes of the rows, or holds them back until a later call.

        Each value that is changed or left out is counted in `row_counts`. Raises SourceUntrue if a
        row is not a JSON object; nothing is appended then.
        """

    def pause(self, state: Any, out: Buffer) -> None:  # noqa: B027 - by default nothing
        """Appends all bytes of the rows so far that are held back."""

    def close(self, state: Any, out: Buffer) -> None:  # noqa: B027 - by default nothing
        """Appends all bytes that are held back, and the bytes after the last row."""

    @classmethod
    def join(cls, states: Sequence[Any]) -> Any:
        """Returns the state at the end of the last partition, given those at the end of each."""
        return states[-1]

    @classmethod
    def first_rows(cls, data: bytes, rows: int) -> bytes:
        """Returns the first rows of an uncompressed file that begins with `data`, at most so many.

        A row whose end is not in `data` is left out. By default a row is a line.
        """
        end = 0
        while rows and (found := data.find(b"\n", end)) >= 0:
            end, rows = found + 1, rows - 1
        return data[:end]

    @staticmethod
    @abstractmethod
    def count(file: Path) -> int:
        """Returns the number of rows of an uncompressed file, counted by reading all of it.

        Memory use does not grow with the file. Raises ValueError for a file that was cut off, if
        this can be seen.
        """

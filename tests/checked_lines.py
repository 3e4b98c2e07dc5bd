"""A format as it is added: this file, and one line in the registry."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from isal import isal_zlib

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Dialect
from exporter.formats.base import PLAIN, Format, State
from exporter.formats.json import JsonLines

_HELD_BYTES = 500


class LinesState(State):
    """The CRC-32 of all lines, and their size."""

    crc: int = 0
    size: int = 0


class CheckedLines(Format):
    """Writes a line for each row, and a footer with the number of rows and the CRC of all lines.

    Lines are held back until there are many, as by a format that writes groups of rows.
    """

    extension = "lines"
    media_type = "text/x-checked-lines"
    summary = "JSON Lines and a checksum"
    state_type = LinesState

    def __init__(self, columns: Sequence[str] = (), dialect: Dialect = PLAIN) -> None:
        self._lines = JsonLines(columns)
        self._held = b""

    def open(self, state: LinesState, out: Buffer) -> None:
        out += b"#lines\n"

    def encode(
        self, rows: Sequence[Row], row_counts: RowCounts, state: LinesState, out: Buffer
    ) -> None:
        self._held += b"".join(line + b"\n" for line in self._lines.lines(rows, row_counts))
        if len(self._held) >= _HELD_BYTES:
            self.pause(state, out)

    def pause(self, state: LinesState, out: Buffer) -> None:
        state.crc = zlib.crc32(self._held, state.crc)
        state.size += len(self._held)
        out += self._held
        self._held = b""

    def close(self, state: LinesState, out: Buffer) -> None:
        self.pause(state, out)
        out += footer(state.rows, state.crc)

    @staticmethod
    def count(file: Path) -> int:
        last = b""
        with file.open("rb") as lines:
            for last in lines:  # noqa: B007 - the last line is the footer
                pass
        found = re.fullmatch(rb"#(\d+) [0-9a-f]{8}\n", last)
        if found is None:
            raise ValueError(f"{file} has no footer")
        return int(found[1])


class JoinableLines(CheckedLines):
    """The same, of partitions that are read side by side."""

    joinable = True

    @classmethod
    def join(cls, states: Sequence[LinesState]) -> LinesState:
        crc = size = 0
        for state in states:
            crc = isal_zlib.crc32_combine(crc, state.crc, state.size)
            size += state.size
        return LinesState(states[-1].rows, crc, size)


def footer(rows: int, crc: int) -> bytes:
    return b"#%d %08x\n" % (rows, crc)

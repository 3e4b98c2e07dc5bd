"""Cuts the encoded bytes of a file into pieces of one size."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from exporter.core.checkpoints import Checkpoint
from exporter.run.packer import FileEncoder
from exporter.run.uploads import Position
from exporter.storage.base import FileWriter

NOTED_SHARE = 0.5
"""Share of a piece after which the next position is noted, at the end of a page.

A checkpoint names a noted position; what comes after it is lost if the worker dies. For compressed
files, each noted position costs a flush of the compressor.
"""


class CutPiece(NamedTuple):
    """Bytes of the next piece, and the latest noted position before their end, if it is new."""

    data: bytearray
    position: Position | None


class PieceCutter:
    """Cuts pieces of one size off the buffer of a FileEncoder; the rest stays for the last piece.

    A piece ends in the middle of a page. The positions at which another worker can continue, each
    at the end of a page, are noted as they pass.
    """

    def __init__(self, encoder: FileEncoder, file: FileWriter) -> None:
        """Cuts pieces of the size that `file` wants."""
        self._encoder = encoder
        self._file = file
        self._noted: deque[Position] = deque()
        self._noted_bytes = encoder.size
        self._is_expected = False

    def expect(self, rows: int, expected_rows: int) -> None:
        """Announces the size of the file by the bytes of its first rows, once there are enough.

        `rows` is the number of rows encoded so far; `expected_rows` is the announced number, 0 if
        it is unknown.
        """
        enough = NOTED_SHARE * self._file.piece_size
        if not self._is_expected and self._encoder.ready_bytes >= enough:
            self._is_expected = True
            self._file.expect(self._encoder.size * expected_rows // max(rows, 1))

    @property
    def is_position_due(self) -> bool:
        """True if NOTED_SHARE of a piece was encoded since the last position was noted."""
        made = self._encoder.taken + self._encoder.ready_bytes
        return made - self._noted_bytes >= NOTED_SHARE * self._file.piece_size

    def note(self, at: Checkpoint) -> None:
        """Notes the position at which all encoded bytes are in the buffer; see `settle`."""
        self._noted_bytes = self._encoder.size
        self._noted.append(Position(at, self._noted_bytes))

    def next_full(self) -> CutPiece | None:
        """Returns the next piece; None if the buffer may be the last piece of the file."""
        if self._encoder.ready_bytes <= self._file.piece_size:
            return None
        data = self._encoder.take(self._file.piece_size)
        position = None
        while self._noted and self._noted[0].bytes_before <= self._encoder.taken:
            position = self._noted.popleft()
        return CutPiece(data, position)

    def last(self, at: Checkpoint) -> CutPiece:
        """Returns the last piece, which may be empty; `at` is the end of the file."""
        end = Position(at, self._encoder.size)
        return CutPiece(self._encoder.take(self._file.piece_size), end)

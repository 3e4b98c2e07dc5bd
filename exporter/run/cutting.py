"""Cuts the encoded bytes of a file into parts of one size."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from exporter.core.checkpoints import Checkpoint
from exporter.run.packer import FileEncoder
from exporter.run.uploads import Position
from exporter.storage.export_file import part_size

NOTED_SHARE = 0.5
"""Share of a part after which the next position is noted, at the end of a page.

A checkpoint names a noted position; what comes after it is lost if the worker dies. For compressed
files, each noted position costs a flush of the compressor.
"""


class CutPart(NamedTuple):
    """Bytes of the next part, and the latest noted position before their end, if it is new."""

    data: bytearray
    position: Position | None


class PartCutter:
    """Cuts parts of one size off the buffer of a FileEncoder; the rest stays for the last part.

    A part ends in the middle of a page. The positions at which another worker can continue, each at
    the end of a page, are noted as they pass.
    """

    def __init__(self, encoder: FileEncoder, base: int, size: int) -> None:
        """Cuts parts of `size` bytes; if that is 0, a size of `base` or more is chosen."""
        self.size = size or base
        self._is_chosen = size > 0
        self._base = base
        self._encoder = encoder
        self._noted: deque[Position] = deque()
        self._noted_bytes = encoder.size

    @property
    def chosen_size(self) -> int:
        """Size of all parts but the last; 0 if it is not chosen yet."""
        return self.size if self._is_chosen else 0

    def choose_size(self, rows: int, expected_rows: int) -> None:
        """Chooses the size of all parts by the bytes of the first rows, once there are enough.

        `rows` is the number of rows encoded so far; `expected_rows` is the announced number, 0 if
        it is unknown.
        """
        if not self._is_chosen and self._encoder.ready_bytes >= NOTED_SHARE * self._base:
            self._is_chosen = True
            self.size = part_size(self._base, self._encoder.size * expected_rows // max(rows, 1))

    @property
    def is_position_due(self) -> bool:
        """True if NOTED_SHARE of a part was encoded since the last position was noted."""
        made = self._encoder.taken + self._encoder.ready_bytes
        return made - self._noted_bytes >= NOTED_SHARE * self.size

    def note(self, at: Checkpoint) -> None:
        """Notes the position at which all encoded bytes are in the buffer; see `settle`."""
        self._noted_bytes = self._encoder.size
        self._noted.append(Position(at, self._noted_bytes))

    def next_full(self) -> CutPart | None:
        """Returns the next part; None if the buffer may be the last part of the file."""
        if self._encoder.ready_bytes <= self.size:
            return None
        data = self._encoder.take(self.size)
        position = None
        while self._noted and self._noted[0].bytes_before <= self._encoder.taken:
            position = self._noted.popleft()
        return CutPart(data, position)

    def last(self, at: Checkpoint) -> CutPart:
        """Returns the last part, which may be empty; `at` is the end of the file."""
        end = Position(at, self._encoder.size)
        return CutPart(self._encoder.take(self.size), end)

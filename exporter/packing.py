"""Rows on their way to a file: encoded, cut into volumes, compressed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from isal import isal_zlib

from exporter.checkpoints import Packed, Tally, Volume
from exporter.formats.base import Format, Row

COMPRESSIONS = ("none", "gzip")
"""The names that `Packing` knows."""
SUFFIXES = {"none": "", "gzip": ".gz"}
CONTENT_TYPES = {"gzip": "application/gzip"}
_LEVEL = 1
"""Of isal: 20 times as fast as zlib's default, for a file a quarter larger."""


class Packing:
    """Makes the bytes of one file from rows, in any number of slices.

    `buffer` holds what was made and is not yet stored. What stands in it after `settle` needs
    nothing of this process any more: with the `Packed` that `settle` returns, another goes on.

    A volume is a stretch of the file that is whole by itself: `rows_per_volume` rows with whatever
    the format puts before and after them; compressed, one gzip member. So volumes can be handed
    out as files of their own, although they are written and published as one. Without
    `rows_per_volume` the whole file is one volume: a single member, because several programs read
    only the first of many.
    """

    def __init__(
        self,
        encoder: Format,
        at: Packed,
        *,
        compression: str,
        rows_per_volume: int | None,
        stored: int,
        buffer: bytearray,
    ) -> None:
        """`stored` bytes stand before those of `buffer`, which the last slice left over."""
        self.buffer = buffer
        self._encoder = encoder
        self._most = rows_per_volume
        self._stored = stored
        self._volumes = list(at.volumes)
        self._rows = at.rows
        self._is_open = at.is_open
        self._stream: _Stream = _Gzip(at.crc, at.length) if compression == "gzip" else _Plain()

    def add(self, rows: Sequence[Row], tally: Tally) -> None:
        """Append the rows. Raises SourceUntrue as `Format.encode` does."""
        while rows:
            if not self._is_open:
                self._begin()
            room = len(rows) if self._most is None else self._most - self._rows
            some, rows = rows[:room], rows[room:]
            self.buffer += self._stream.take(self._encoder.encode(some, tally, self._rows))
            self._rows += len(some)
            if self._rows == self._most:
                self._end()

    def settle(self) -> Packed:
        """Complete the buffer to a place where another process can go on, and say where it is."""
        if self._is_open:
            self.buffer += self._stream.pause()
        crc, length = self._stream.state()
        return Packed(
            is_open=self._is_open,
            rows=self._rows,
            crc=crc,
            length=length,
            volumes=tuple(self._volumes),
        )

    def taken(self) -> None:
        """The buffer was stored; the next one begins."""
        self._stored += len(self.buffer)
        self.buffer = bytearray()

    def close(self, unknown: Sequence[str] = ()) -> Volume | None:
        """End the file; ids that the source did not have follow, as a volume of their own.

        Returns that volume, if there are any.
        """
        if not self._is_open and not self._volumes:
            self._begin()
        if self._is_open:
            self._end()
        if not unknown:
            return None
        begun = self._size
        self.buffer += self._stream.begin()
        self.buffer += self._stream.take("".join(f"{one}\n" for one in unknown).encode())
        self.buffer += self._stream.end()
        return Volume(len(unknown), begun, self._size - begun)

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """Those that have ended."""
        return tuple(self._volumes)

    @property
    def _size(self) -> int:
        return self._stored + len(self.buffer)

    def _begin(self) -> None:
        self._is_open = True
        self.buffer += self._stream.begin()
        self.buffer += self._stream.take(self._encoder.open())

    def _end(self) -> None:
        self.buffer += self._stream.take(self._encoder.close(self._rows))
        self.buffer += self._stream.end()
        begun = sum(volume.size for volume in self._volumes)
        self._volumes.append(Volume(self._rows, begun, self._size - begun))
        self._is_open = False
        self._rows = 0


class _Stream(Protocol):
    """Compresses one volume after another."""

    def begin(self) -> bytes: ...

    def take(self, data: bytes) -> bytes: ...

    def pause(self) -> bytes:
        """What makes all that was given so far readable without anything that follows."""

    def end(self) -> bytes: ...

    def state(self) -> tuple[int, int]:
        """Checksum and length of what the open volume was given."""


class _Plain:
    def begin(self) -> bytes:
        return b""

    def take(self, data: bytes) -> bytes:
        return data

    def pause(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""

    def state(self) -> tuple[int, int]:
        return 0, 0


class _Gzip:
    """One gzip member a volume. A pause is a full flush: what follows refers to nothing before
    it, so a fresh compressor goes on there."""

    # Deflate; no name and no time, so that equal rows give equal bytes; unknown system.
    _HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

    def __init__(self, crc: int, length: int) -> None:
        self._crc = crc
        self._length = length
        self._deflate = self._fresh()

    def begin(self) -> bytes:
        self._crc = self._length = 0
        return self._HEADER

    def take(self, data: bytes) -> bytes:
        self._crc = isal_zlib.crc32(data, self._crc)
        self._length += len(data)
        return self._deflate.compress(data)

    def pause(self) -> bytes:
        return self._deflate.flush(isal_zlib.Z_FULL_FLUSH)

    def end(self) -> bytes:
        tail = self._deflate.flush(isal_zlib.Z_FINISH)
        self._deflate = self._fresh()
        return tail + struct.pack("<II", self._crc, self._length & 0xFFFFFFFF)

    def state(self) -> tuple[int, int]:
        return self._crc, self._length

    @staticmethod
    def _fresh() -> isal_zlib.Compress:
        return isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)

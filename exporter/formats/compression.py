"""How bytes of a file are compressed, so that another process can go on after a pause."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Protocol

import zstandard
from isal import isal_zlib

from exporter.core.checkpoints import Packed

_ISAL_LEVEL = 1
"""20 times as fast as zlib's default, for a file a quarter larger."""
_ZSTD_LEVEL = 3
"""A third slower than level 1, for a file a tenth smaller. The next that gives more takes twice the
time."""


class Stream(Protocol):
    """Compresses one volume after another."""

    def begin(self) -> bytes: ...

    def compress(self, data: bytes) -> bytes: ...

    def pause(self) -> bytes:
        """What makes all that was given so far readable without anything that follows."""

    def end(self) -> bytes: ...

    def state(self) -> tuple[int, int]:
        """Checksum and length of what the open volume was given."""


def stream(name: str, at: Packed) -> Stream:
    """What goes on compressing there; raises KeyError for a name that is not known."""
    makers: Mapping[str, Callable[[Packed], Stream]] = {"none": Plain, "gzip": Gzip, "zstd": Zstd}
    return makers[name](at)


class Plain:
    """No compression."""

    def __init__(self, at: Packed) -> None:
        """Everywhere is a place to go on."""

    def begin(self) -> bytes:
        return b""

    def compress(self, data: bytes) -> bytes:
        return data

    def pause(self) -> bytes:
        return b""

    def end(self) -> bytes:
        return b""

    def state(self) -> tuple[int, int]:
        return 0, 0


class Gzip:
    """One gzip member a volume. A pause is a full flush: what follows refers to nothing before
    it, so a fresh compressor goes on there."""

    # Deflate; no name and no time, so that equal rows give equal bytes; unknown system.
    _HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

    def __init__(self, at: Packed) -> None:
        self._crc = at.crc
        self._length = at.length
        self._deflate = self._fresh()

    def begin(self) -> bytes:
        self._crc = self._length = 0
        return self._HEADER

    def compress(self, data: bytes) -> bytes:
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
        return isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, -15)


class Zstd:
    """A volume is a row of zstd frames, because no other process can go on inside of one: a frame
    ends with each pause and with the volume, and holds a checksum.

    The zstd command, curl, httpx, DuckDB, ClickHouse, polars, pandas, PyArrow and Python's own
    module (3.14, and its backport) were seen to read all frames. Of python-zstandard, `open`,
    `copy_stream` and `stream_reader`, read to its end, do; `read_to_iter` and `decompressobj` stop
    after the first, the latter unless it is told `read_across_frames=True`.
    """

    def __init__(self, at: Packed) -> None:
        self._length = at.length
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        self._frame: zstandard.ZstdCompressionObj | None = None

    def begin(self) -> bytes:
        self._length = 0
        return b""

    def compress(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self._frame is None:
            self._frame = self._compressor.compressobj()
        self._length += len(data)
        return self._frame.compress(data)

    def pause(self) -> bytes:
        frame, self._frame = self._frame, None
        return b"" if frame is None else frame.flush()

    def end(self) -> bytes:
        # A volume of no bytes is one frame of none: a file without a frame is no zstd file.
        return self.pause() if self._length else self._compressor.compress(b"")

    def state(self) -> tuple[int, int]:
        return 0, self._length

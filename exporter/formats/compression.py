"""Compression of files that another process can continue after a pause."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import zstandard
from isal import isal_zlib

_ISAL_LEVEL = 1
"""Compression level of isal.

It is 20 times as fast as the default of zlib; the file becomes a quarter larger.
"""
_ZSTD_LEVEL = 3
"""Compression level of zstd.

It is a third slower than level 1, and the file becomes a tenth smaller. The next level that makes
the file smaller takes twice the time.
"""


class State(msgspec.Struct, frozen=True):
    """The position of a compressor in an open volume; `Packed` has the same fields."""

    crc: int = 0
    """CRC-32 of the data so far, before compression; 0 if the compression does not need it."""
    length: int = 0
    """Size of the data so far, before compression."""


class Stream(Protocol):
    """Compresses one volume after another; each method returns bytes to append to the file."""

    def begin(self) -> bytes:
        """Begins a volume."""

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compresses data of the open volume; some of it may stay in the compressor's buffer."""

    def pause(self) -> bytes:
        """Returns the bytes after which all data so far can be decompressed without later bytes."""

    def end(self) -> bytes:
        """Ends the open volume."""

    def state(self) -> State:
        """Returns the state, from which another stream can continue after `pause`."""


def _plain_head(data: bytes, size: int) -> bytes:
    return data[:size]


class Compression(NamedTuple):
    """A compression of files. Compressed pieces of a volume may be laid end to end."""

    suffix: str
    """File name suffix."""
    media_type: str | None
    """Media type of a compressed file; None: that of the format."""
    stream: Callable[[State], Stream] | None
    """Returns a stream that continues a file after a state; None: the file is not compressed."""
    head: Callable[[bytes, int], bytes] = _plain_head
    """Returns what a file that begins with `data` has uncompressed at its beginning.

    It returns at most so many bytes, of the first volume. The end of `data` may be missing.
    """
    summary: str = ""
    """Text in parentheses after the name of the compression in the documentation."""


def join(states: Sequence[State]) -> State:
    """Returns the state after pieces of one volume that are laid end to end."""
    crc = length = 0
    for state in states:
        crc = isal_zlib.crc32_combine(crc, state.crc, state.length)
        length += state.length
    return State(crc, length)


class Gzip:
    """Writes each volume as one gzip member.

    A pause is a full flush: bytes after it do not refer to data before it, so another compressor
    can continue there.
    """

    # Method deflate, no file name and no time (so that equal rows give equal bytes), unknown OS.
    _HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

    def __init__(self, at: State) -> None:
        self._crc = at.crc
        self._length = at.length
        self._deflate = self._fresh()

    def begin(self) -> bytes:
        self._crc = self._length = 0
        return self._HEADER

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        self._crc = isal_zlib.crc32(data, self._crc)
        self._length += len(data)
        return self._deflate.compress(data)

    def pause(self) -> bytes:
        return self._deflate.flush(isal_zlib.Z_FULL_FLUSH)

    def end(self) -> bytes:
        tail = self._deflate.flush(isal_zlib.Z_FINISH)
        self._deflate = self._fresh()
        return tail + struct.pack("<II", self._crc, self._length & 0xFFFFFFFF)

    def state(self) -> State:
        return State(self._crc, self._length)

    @staticmethod
    def _fresh() -> isal_zlib.Compress:
        return isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, -15)


class Zstd:
    """Writes each volume as a sequence of zstd frames, each with a checksum.

    A frame ends at each pause and at the end of the volume, because another process cannot
    continue inside a frame.

    Tested to read all frames: the zstd command, curl, httpx, DuckDB, ClickHouse, polars, pandas,
    PyArrow, and Python's own module (3.14, and its backport). In python-zstandard, `open`,
    `copy_stream` and `stream_reader` (read to its end) read all frames; `read_to_iter` and
    `decompressobj` stop after the first frame, `decompressobj` unless it gets
    `read_across_frames=True`.
    """

    def __init__(self, at: State) -> None:
        self._length = at.length
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
        self._frame: zstandard.ZstdCompressionObj | None = None

    def begin(self) -> bytes:
        self._length = 0
        return b""

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
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
        # An empty volume is written as one empty frame: a file needs at least one frame.
        return self.pause() if self._length else self._compressor.compress(b"")

    def state(self) -> State:
        return State(length=self._length)


def _gzip_head(data: bytes, size: int) -> bytes:
    return isal_zlib.decompressobj(31).decompress(data, size)


def _zstd_head(data: bytes, size: int) -> bytes:
    reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
    found = bytearray()
    while more := reader.read(size - len(found)):
        found += more
    return bytes(found)


NONE = Compression("", None, stream=None)
GZIP = Compression(".gz", "application/gzip", Gzip, _gzip_head, "one member, level 1")
ZSTD = Compression(
    ".zst",
    "application/zstd",
    Zstd,
    _zstd_head,
    "level 3; large files have several frames, and a reader must read all of them",
)

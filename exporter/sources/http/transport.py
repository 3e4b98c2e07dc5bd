"""An httpx transport whose answers keep a deadline, and the decompression of bodies."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain
from typing import cast

import httpx
from isal import isal_zlib

from exporter.sources.http.http1 import Answer, Connection
from exporter.sources.http.pool import Connections
from exporter.sources.http.sockets import Waits

MAX_UNPACKED_BYTES = 1024 * 1024
"""Maximum size of one decompressed piece.

Without it, 64 KiB of gzip could become a piece a thousand times as large.
"""

MAX_PACKED_BYTES = 64 * 1024
"""Maximum size of one piece that is decompressed."""
MAX_LAYERS = 2
"""Maximum number of times that a body may be compressed, once by a server and once by a proxy."""
MAX_LAYER_BYTES = 32 * 1024 * 1024
"""Maximum size of a body that is compressed twice, after it was decompressed once.

A few bytes could otherwise become very many empty gzip members, which take minutes to read.
"""
_GZIP_START = b"\x1f\x8b"

# The package's type stubs declare `error` as a value, not as a type.
_Unpackable = cast("type[Exception]", isal_zlib.error)


class DeadlineTransport(httpx.BaseTransport):
    """An httpx transport to one origin; every wait ends at the request's deadline. Thread-safe.

    The timeouts of httpx restart with each byte, so they never end an answer that arrives byte by
    byte. Each request must therefore have an extension "left" besides "timeout": a function that
    returns the seconds until its deadline. If a kept connection turns out to be closed, the
    request is sent again on another one. This transport must therefore not be used for requests
    that must take effect at most once.

    What lies below is our own, because every library that was measured (`tests.bench.http`) loses
    a guarantee. httpcore takes bytes that follow an answer for the answer to the next request, and
    refuses a blank before the colon of a header; with the same deadline, a million rows took 2 to
    6 CPU seconds more (ours: 3 on plain pages). libcurl took no more, but accepts several answers
    with an ambiguous end, and made chunk sizes part of a page. urllib3 accepts chunk sizes such as
    `+1`, and skips what follows a chunk.
    """

    def __init__(self, url: httpx.URL) -> None:
        self._url = url
        self._connections = Connections(url)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"unsupported protocol {url.scheme}://")
        if (url.scheme, url.netloc) != (self._url.scheme, self._url.netloc):
            raise httpx.UnsupportedProtocol(f"{url.host} is not the configured upstream")
        method = request.method.encode("ascii")
        target, headers = self._connections.for_proxy(url.raw_path, request.headers.raw)
        body = request.read()
        waits = Waits(request.extensions["timeout"], request.extensions["left"])
        while True:
            connection = self._connections.acquire(waits)
            fresh = connection.is_unused
            try:
                answer = connection.request(method, target, headers, body)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                self._connections.release(connection, idle=False)
                # Retried if the server closed a kept connection before it got this request.
                if fresh or not connection.no_bytes_received:
                    raise
            except BaseException:
                self._connections.release(connection, idle=False)
                raise
            else:
                return self._response(connection, answer)

    def close(self) -> None:
        self._connections.close()

    def _response(self, connection: Connection, answer: Answer) -> httpx.Response:
        head = answer.head
        return httpx.Response(
            head.status,
            headers=head.headers,
            stream=_Body(connection, answer, self._connections),
            extensions={"http_version": head.version, "reason_phrase": head.reason},
        )


class _Body(httpx.SyncByteStream):
    def __init__(self, connection: Connection, answer: Answer, connections: Connections) -> None:
        self._connection: Connection | None = connection
        self._answer = answer
        self._connections = connections

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._connections.release(connection, idle=self._answer.leaves_idle)


def unpacked(response: httpx.Response) -> Iterator[bytes]:
    """Yields the decompressed body; gzip is yielded in pieces of at most MAX_UNPACKED_BYTES.

    The body's first bytes decide whether it is gzip, because some servers and proxies declare no
    encoding, an unknown one, or one that they did not apply. JSON never begins like gzip, and the
    reader of the page refuses a body in another encoding. A body may be compressed MAX_LAYERS
    times. Raises
    httpx.DecodingError for a damaged or truncated gzip body, because its beginning could be taken
    for a whole page.
    """
    pieces = iter(cast("httpx.SyncByteStream", response.stream))
    for layer in range(MAX_LAYERS):
        first: list[bytes] = []
        for piece in filter(None, pieces):
            first.append(piece)
            if len(first) == len(_GZIP_START) or len(piece) >= len(_GZIP_START):
                break
        pieces = chain(first, pieces)
        if b"".join(first)[: len(_GZIP_START)] != _GZIP_START:
            break
        pieces = _gunzipped(_bounded(pieces) if layer else pieces)
    yield from pieces


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the pieces; raises httpx.DecodingError for more than MAX_LAYER_BYTES."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_LAYER_BYTES:
            raise httpx.DecodingError(
                f"more than {MAX_LAYER_BYTES} bytes of gzip that are compressed again"
            )
        yield piece


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    unpacker: isal_zlib.Decompress | None = None
    members = 0
    for chunk in _in_small_pieces(pieces):
        packed = chunk
        while packed:
            if unpacker is None:
                # Some servers pad the end of the body with zeros.
                packed = packed.lstrip(b"\0") if members else packed
                if not packed:
                    break
                unpacker, members = isal_zlib.decompressobj(zlib.MAX_WBITS | 16), members + 1
            try:
                yield from _decompressed(unpacker, packed)
            except _Unpackable as error:
                raise httpx.DecodingError(f"an invalid gzip body ({error})") from None
            packed = b""
            if unpacker.eof:
                packed, unpacker = unpacker.unused_data, None
    if unpacker is not None:
        raise httpx.DecodingError("a truncated gzip body")


def _in_small_pieces(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the same bytes in pieces of at most MAX_PACKED_BYTES.

    After each gzip member, the rest of its piece is copied.
    """
    for piece in pieces:
        for at in range(0, len(piece), MAX_PACKED_BYTES):
            yield piece[at : at + MAX_PACKED_BYTES]


def _decompressed(unpacker: isal_zlib.Decompress, packed: bytes) -> Iterator[bytes]:
    while True:
        piece = unpacker.decompress(packed, MAX_UNPACKED_BYTES)
        yield piece
        packed = unpacker.unconsumed_tail
        # The decompressor may have read all input and still hold output.
        if unpacker.eof or (not packed and len(piece) < MAX_UNPACKED_BYTES):
            return

"""An httpx transport whose answers keep a deadline, and the decompression of bodies."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import httpx
from isal import isal_zlib

from exporter.sources.http.http1 import Answer, Connection
from exporter.sources.http.pool import Connections

MAX_UNPACKED_BYTES = 1024 * 1024
"""Maximum size of one decompressed piece.

Without it, 64 KiB of gzip could become a piece a thousand times as large.
"""

# The package's type stubs declare `error` as a value, not as a type.
_Unpackable = cast("type[Exception]", isal_zlib.error)


class DeadlineTransport(httpx.BaseTransport):
    """An httpx transport to one origin; every wait ends at the thread's deadline. Thread-safe.

    The timeouts of httpx restart with each byte, so they never end an answer that arrives byte by
    byte. DNS lookups do not end at the deadline. If a kept connection turns out to be closed, the
    request is sent again on another one. This transport must therefore not be used for requests
    that must take effect at most once.
    """

    def __init__(self, url: httpx.URL) -> None:
        self._url = url
        self._thread = threading.local()
        self._connections = Connections(url, self._left)

    @contextmanager
    def with_deadline(self, left: Callable[[], float]) -> Iterator[None]:
        """Ends requests of this thread with ReadTimeout when `left()`, in seconds, reaches zero."""
        self._thread.left = left
        try:
            yield
        finally:
            del self._thread.left

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        if url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"unsupported protocol {url.scheme}://")
        if (url.scheme, url.netloc) != (self._url.scheme, self._url.netloc):
            raise httpx.UnsupportedProtocol(f"{url.host} is not the configured upstream")
        method = request.method.encode("ascii")
        target, headers = self._connections.for_proxy(url.raw_path, request.headers.raw)
        body = request.read()
        timeouts = request.extensions.get("timeout", {})
        while True:
            connection = self._connections.acquire(timeouts)
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

    def _left(self) -> float:
        left: Callable[[], float] | None = getattr(self._thread, "left", None)
        return left() if left is not None else float("inf")


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

    Raises httpx.DecodingError for a body that is encoded otherwise than by gzip, and for a
    truncated gzip body, because its beginning could be taken for a whole page.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("gzip", "x-gzip", "identity", ""):
        raise httpx.DecodingError(f"content-encoding {packing!r}, but only gzip was requested")
    if packing in ("identity", ""):
        yield from response.iter_raw()
        return
    unpacker: isal_zlib.Decompress | None = None
    members = 0
    for chunk in response.iter_raw():
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


def _decompressed(unpacker: isal_zlib.Decompress, packed: bytes) -> Iterator[bytes]:
    while True:
        piece = unpacker.decompress(packed, MAX_UNPACKED_BYTES)
        yield piece
        packed = unpacker.unconsumed_tail
        # The decompressor may have read all input and still hold output.
        if unpacker.eof or (not packed and len(piece) < MAX_UNPACKED_BYTES):
            return

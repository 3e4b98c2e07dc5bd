"""What goes over the wire to an upstream: answers that keep a deadline, bodies under a cap."""

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
"""Bytes unpacked at once. A packed chunk of 64 KiB may hold a thousand times that."""

# The package's type information takes its error for a value.
_Unpackable = cast("type[Exception]", isal_zlib.error)


class DeadlineTransport(httpx.BaseTransport):
    """A transport to one origin, whose every wait on the network ends at the deadline of the
    thread's request. Threads may share it.

    The client's own timeouts start anew with each byte: against headers or bodies that drip they
    never end. Only the resolver of host names cannot be interrupted. A request is sent again if
    the connection that was kept for it turns out to be closed; so it is for searches, not for what
    must happen at most once.
    """

    def __init__(self, url: httpx.URL) -> None:
        self._url = url
        self._thread = threading.local()
        self._connections = Connections(url, self._left)

    @contextmanager
    def with_deadline(self, left: Callable[[], float]) -> Iterator[None]:
        """Requests of this thread end with ReadTimeout when `left`, in seconds, reaches zero."""
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
            raise httpx.UnsupportedProtocol(f"{url.host} is not the upstream that keys are for")
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
                # Closed at the other end just when it was asked again.
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
    """The body's bytes, unpacked; of a packed one at most PIECE at once.

    Raises httpx.DecodingError if they are packed in another way than asked for, or cut off: a
    body of which only the beginning came may look whole.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("gzip", "x-gzip", "identity", ""):
        raise httpx.DecodingError(f"content-encoding {packing!r}, where only gzip was asked for")
    if packing in ("identity", ""):
        yield from response.iter_raw()
        return
    unpacker: isal_zlib.Decompress | None = None
    members = 0
    for chunk in response.iter_raw():
        packed = chunk
        while packed:
            if unpacker is None:
                # Some servers pad the end with zeros.
                packed = packed.lstrip(b"\0") if members else packed
                if not packed:
                    break
                unpacker, members = isal_zlib.decompressobj(zlib.MAX_WBITS | 16), members + 1
            try:
                yield from _decompressed(unpacker, packed)
            except _Unpackable as error:
                raise httpx.DecodingError(f"a gzip body that is none ({error})") from None
            packed = b""
            if unpacker.eof:
                packed, unpacker = unpacker.unused_data, None
    if unpacker is not None:
        raise httpx.DecodingError("a gzip body that was cut off")


def _decompressed(unpacker: isal_zlib.Decompress, packed: bytes) -> Iterator[bytes]:
    while True:
        piece = unpacker.decompress(packed, MAX_UNPACKED_BYTES)
        yield piece
        packed = unpacker.unconsumed_tail
        # All input may be read while the unpacker still holds output.
        if unpacker.eof or (not packed and len(piece) < MAX_UNPACKED_BYTES):
            return

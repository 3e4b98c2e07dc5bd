"""What goes over the wire to an upstream: connections that keep a deadline, bodies under a cap."""

from __future__ import annotations

import ssl
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from exporter.errors import ConfigurationError

PIECE = 1024 * 1024
"""Bytes unpacked at once. A packed chunk of 64 KiB may hold a thousand times that."""
KEEP_ALIVE = 15.0
"""Seconds that an idle connection is kept."""
MOST_CONNECTIONS = 100


class Wire(httpx.BaseTransport):
    """A transport whose every wait on the network ends at the deadline of the thread's request.

    The client's own timeouts start anew with each byte: against headers or bodies that drip they
    never end. Only the resolver of host names cannot be interrupted. Goes through the proxy that
    the environment names for the upstream, if it names one.
    """

    def __init__(self, url: httpx.URL) -> None:
        self._thread = threading.local()
        self._pool = _pool(url, _Backend(self._left))

    @contextmanager
    def within(self, left: Callable[[], float]) -> Iterator[None]:
        """Requests of this thread end with ReadTimeout when `left`, in seconds, reaches zero."""
        self._thread.left = left
        try:
            yield
        finally:
            del self._thread.left

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        url = request.url
        with _translated():
            answer = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=url.raw_scheme,
                        host=url.raw_host,
                        port=url.port,
                        target=url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        assert isinstance(answer.stream, Iterable)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        self._pool.close()

    def _left(self) -> float:
        left: Callable[[], float] | None = getattr(self._thread, "left", None)
        return left() if left is not None else float("inf")


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """The body's bytes, unpacked, at most PIECE at once.

    Raises httpx.DecodingError if they are packed in another way than asked for, or cut off: a
    body of which only the beginning came may look whole.
    """
    packing = response.headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("gzip", "x-gzip", "identity", ""):
        raise httpx.DecodingError(f"content-encoding {packing!r}, where only gzip was asked for")
    if packing in ("identity", ""):
        yield from response.iter_raw()
        return
    unpacker: zlib._Decompress | None = None
    members = 0
    for chunk in response.iter_raw():
        packed = chunk
        while packed:
            if unpacker is None:
                # Some servers pad the end with zeros.
                packed = packed.lstrip(b"\0") if members else packed
                if not packed:
                    break
                unpacker, members = zlib.decompressobj(zlib.MAX_WBITS | 16), members + 1
            try:
                yield from _unpacked(unpacker, packed)
            except zlib.error as error:
                raise httpx.DecodingError(f"a gzip body that is none ({error})") from None
            packed = b""
            if unpacker.eof:
                packed, unpacker = unpacker.unused_data, None
    if unpacker is not None:
        raise httpx.DecodingError("a gzip body that was cut off")


def _unpacked(unpacker: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    while True:
        piece = unpacker.decompress(packed, PIECE)
        yield piece
        packed = unpacker.unconsumed_tail
        # All input may be read while the unpacker still holds output.
        if unpacker.eof or (not packed and len(piece) < PIECE):
            return


def _pool(url: httpx.URL, backend: httpcore.NetworkBackend) -> httpcore.ConnectionPool:
    proxies = getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or not url.host or proxy_bypass(url.host):
        return httpcore.ConnectionPool(
            ssl_context=_tls(),
            max_connections=MOST_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE,
            network_backend=backend,
        )
    address = found if "://" in found else f"http://{found}"
    if not address.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"the environment's {url.scheme} proxy has no http:// or https:// address: mend "
            f"{url.scheme}_proxy, or name {url.host} in no_proxy"
        )
    proxy = httpx.Proxy(address)
    return httpcore.HTTPProxy(
        proxy_url=httpcore.URL(
            scheme=proxy.url.raw_scheme,
            host=proxy.url.raw_host,
            port=proxy.url.port,
            target=proxy.url.raw_path,
        ),
        proxy_auth=proxy.raw_auth,
        proxy_headers=proxy.headers.raw,
        ssl_context=_tls(),
        max_connections=MOST_CONNECTIONS,
        keepalive_expiry=KEEP_ALIVE,
        network_backend=backend,
    )


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Made once: reading all certificates takes longer than many a request."""
    return httpx.create_ssl_context()


@contextmanager
def _translated() -> Iterator[None]:
    """Errors as httpx names them: its words are ours, and the names are the same."""
    try:
        yield
    except (
        httpcore.TimeoutException,
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.ProxyError,
        httpcore.UnsupportedProtocol,
    ) as error:
        kind: type[httpx.TransportError] = getattr(
            httpx, type(error).__name__, httpx.TransportError
        )
        raise kind(str(error)) from error


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from self._stream

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()


class _Backend(httpcore.NetworkBackend):
    """Opens connections that ask `left` before each wait."""

    def __init__(self, left: Callable[[], float]) -> None:
        self._sockets = httpcore.SyncBackend()
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._sockets.connect_tcp(
            host, port, _wait(timeout, self._left), local_address, socket_options
        )
        return _Stream(stream, self._left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _wait(timeout, self._left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _wait(timeout, self._left))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, _wait(timeout, self._left))
        return _Stream(stream, self._left)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _wait(timeout: float | None, left: Callable[[], float]) -> float:
    seconds = left()
    if seconds <= 0:
        raise httpcore.ReadTimeout("timed out")
    return seconds if timeout is None else min(timeout, seconds)

"""Client sockets, with or without TLS, for which every wait ends at a deadline."""

from __future__ import annotations

import io
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, TypeVar

import httpx

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")

_MAX_WRITE_BYTES = 64 * 1024
"""Maximum size of one write.

Under TLS a timeout applies to a whole write, so a large write over a slow network would fail.
"""


class Socket(io.RawIOBase):
    """A connection to one address; every wait ends when `left()`, in seconds, reaches zero.

    When it is read as a file, a read error looks like the end of the stream, so that the bytes
    before the error are not lost; `failure` then holds the error. Not thread-safe.
    """

    def __init__(self, end: socket.socket, left: Callable[[], float]) -> None:
        self._socket = end
        self._left = left
        self.timeouts: Mapping[str, float | None] = {}
        """Longest wait in seconds without progress, for each of connect, read and write."""
        self.failure: httpx.TransportError | None = None
        """The error that ended reading; None while there was no error."""
        self.received = 0
        """Number of bytes read so far."""
        self.drain_only = False
        """If true, `readinto` reports the end of the stream and does not read from the socket.

        This shows which bytes a buffered reader over this socket already holds.
        """

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        if self.drain_only:
            return 0
        try:
            came = self.receive(buffer)
        except httpx.TransportError as error:
            self.failure = error
            return 0
        self.received += came
        return came

    def receive(self, buffer: WriteableBuffer) -> int:
        """Reads into the buffer and returns the number of bytes; 0 at the end of the stream.

        Raises ReadTimeout or ReadError.
        """
        try:
            self._socket.settimeout(self._wait("read"))
            return self._socket.recv_into(buffer)
        except TimeoutError:
            raise httpx.ReadTimeout("timed out") from None
        except OSError as error:
            raise httpx.ReadError(str(error)) from error

    def send(self, data: bytes) -> None:
        """Sends all of `data`.

        Raises ReadTimeout (at the deadline), WriteTimeout or WriteError.
        """
        rest = memoryview(data)
        try:
            while rest:
                self._socket.settimeout(self._wait("write"))
                rest = rest[self._socket.send(rest[:_MAX_WRITE_BYTES]) :]
        except TimeoutError:
            raise httpx.WriteTimeout("timed out") from None
        except OSError as error:
            raise httpx.WriteError(str(error)) from error

    def start_tls(self, host: str) -> Socket:
        """Starts TLS, checks the certificate of `host`, and returns the socket to use from now on.

        This socket must not be used afterwards. Raises ReadTimeout (at the deadline),
        ConnectTimeout or ConnectError.
        """
        if isinstance(self._socket, ssl.SSLSocket):
            return _TlsInTls(self, host)
        try:
            self._socket.settimeout(self._wait("connect"))
            secure = Socket(
                _tls_context().wrap_socket(self._socket, server_hostname=host), self._left
            )
        except TimeoutError:
            raise httpx.ConnectTimeout("timed out") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        secure.timeouts = self.timeouts
        return secure

    def nothing_to_read(self) -> bool:
        """True if nothing can be read now, neither bytes nor the end of the stream."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        return not pending and not poll.poll(0)

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _wait(self, what: str) -> float | None:
        return next_timeout(self.timeouts.get(what), self._left)


def next_timeout(timeout: float | None, left: Callable[[], float]) -> float | None:
    """Returns the seconds that the next wait may last: the smaller of `timeout` and `left()`.

    Returns None if neither limits the wait. Raises ReadTimeout if no time is left.
    """
    remaining = left()
    if remaining <= 0:
        raise httpx.ReadTimeout("timed out")
    if timeout is None:
        return None if remaining == float("inf") else remaining
    return min(timeout, remaining)


def connect(
    url: httpx.URL, timeouts: Mapping[str, float | None], left: Callable[[], float]
) -> Socket:
    """Returns a socket to the first address of the host that accepts a connection.

    The socket is under TLS if the URL is https. The DNS lookup does not end at the deadline. Raises
    ReadTimeout (at the deadline), ConnectTimeout or ConnectError.
    """
    failure: httpx.TransportError = httpx.ConnectError(f"{url.host} has no address")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        # As bytes, the host name is not encoded again: httpx.URL has made it ASCII.
        found = socket.getaddrinfo(url.raw_host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpx.ConnectError(f"{url.host}: {error}") from error
    for family, kind, protocol, _, address in found:
        seconds = next_timeout(timeouts.get("connect"), left)
        end: socket.socket | None = None
        try:
            end = socket.socket(family, kind, protocol)
            end.settimeout(seconds)
            end.connect(address)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            late = isinstance(error, TimeoutError)
            failure = httpx.ConnectTimeout("timed out") if late else httpx.ConnectError(str(error))
            if end is not None:
                end.close()
        else:
            line = Socket(end, left)
            line.timeouts = timeouts
            return line.start_tls(url.raw_host.decode("ascii")) if url.scheme == "https" else line
    raise failure


class _TlsInTls(Socket):
    """TLS inside another TLS connection, as needed for a tunnel through an https proxy.

    Encrypted bytes are passed between the inner TLS and the outer socket by this class; every wait
    is a wait of the outer socket.
    """

    def __init__(self, outer: Socket, host: str) -> None:
        super().__init__(outer._socket, outer._left)  # noqa: SLF001 - the same class
        self._outer = outer
        self.timeouts = outer.timeouts
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._receive_buffer = memoryview(bytearray(_MAX_WRITE_BYTES))
        self._tls = _tls_context().wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            self._pump(self._tls.do_handshake)
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error

    def receive(self, buffer: WriteableBuffer) -> int:
        room = memoryview(buffer)
        try:
            came = self._pump(partial(self._tls.read, len(room)))
        except ssl.SSLEOFError:
            return 0  # the standard library also reads a missing TLS close as the end
        except OSError as error:
            raise httpx.ReadError(str(error)) from error
        room[: len(came)] = came
        return len(came)

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._pump(partial(self._tls.write, rest[:_MAX_WRITE_BYTES])) :]
        except OSError as error:
            raise httpx.WriteError(str(error)) from error

    def nothing_to_read(self) -> bool:
        return (
            not self._tls.pending() and not self._incoming.pending and self._outer.nothing_to_read()
        )

    def close(self) -> None:
        self._outer.close()
        super().close()

    def _pump(self, act: Callable[[], T]) -> T:
        """Returns the result of `act`, an operation of the inner TLS.

        If the operation needs more bytes from the other side, they are received and `act` is called
        again. Bytes that the operation produces are sent.
        """
        self._outer.timeouts = self.timeouts
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                self._flush()
                came = self._outer.receive(self._receive_buffer)
                if came:
                    self._incoming.write(self._receive_buffer[:came])
                else:
                    self._incoming.write_eof()
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._outer.send(self._outgoing.read())


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Returns the TLS context that all connections share.

    It is created once, because reading all certificates takes longer than many requests.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context

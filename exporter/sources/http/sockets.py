"""Client sockets, with or without TLS, for which every wait ends at a deadline."""

from __future__ import annotations

import io
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_WRITE_BYTES = 64 * 1024
"""Maximum size of one write.

Under TLS a timeout applies to a whole write, so a large write over a slow network would fail.
"""


class Waits(NamedTuple):
    """Limits of the waits of one request."""

    timeouts: Mapping[str, float | None]
    """Longest wait in seconds without progress, for each of connect, read, write and pool."""
    left: Callable[[], float]
    """Returns the seconds until the deadline, at which every wait ends."""

    def seconds(self, what: str) -> float:
        """Returns how long the next wait for `what` may last.

        Raises ReadTimeout if no time is left.
        """
        left = self.left()
        if left <= 0:
            raise httpx.ReadTimeout("timed out")
        timeout = self.timeouts.get(what)
        return left if timeout is None else min(timeout, left)


class Socket(io.RawIOBase):
    """A connection to one address.

    When it is read as a file, a read error looks like the end of the stream, so that the bytes
    before the error are not lost; `failure` then holds the error. Not thread-safe.
    """

    def __init__(self, end: socket.socket, waits: Waits) -> None:
        self._socket = end
        self.waits = waits
        """Limits of the current request."""
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
            self._socket.settimeout(self.waits.seconds("read"))
            came = self._socket.recv_into(buffer)
        except httpx.ReadTimeout as late:
            self.failure = late
        except TimeoutError:
            self.failure = httpx.ReadTimeout("timed out")
        except OSError as error:
            self.failure = httpx.ReadError(str(error))
        else:
            self.received += came
            return came
        return 0

    def send(self, data: bytes) -> None:
        """Sends all of `data`.

        Raises ReadTimeout (at the deadline), WriteTimeout or WriteError.
        """
        rest = memoryview(data)
        try:
            while rest:
                self._socket.settimeout(self.waits.seconds("write"))
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
        try:
            self._socket.settimeout(self.waits.seconds("connect"))
            secure = _tls_context().wrap_socket(self._socket, server_hostname=host)
        except TimeoutError:
            raise httpx.ConnectTimeout("timed out") from None
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return Socket(secure, self.waits)

    def nothing_to_read(self) -> bool:
        """True if nothing can be read now, neither bytes nor the end of the stream."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        return not pending and not poll.poll(0)

    def close(self) -> None:
        self._socket.close()
        super().close()


def connect(url: httpx.URL, waits: Waits) -> Socket:
    """Returns a socket to the first address of the host that accepts a connection.

    The socket is under TLS if the URL is https. Raises ReadTimeout (at the deadline),
    ConnectTimeout or ConnectError.
    """
    failure: httpx.TransportError = httpx.ConnectError(f"{url.host} has no address")
    for family, kind, protocol, _, address in _addresses(url, waits):
        seconds = waits.seconds("connect")
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
            line = Socket(end, waits)
            return line.start_tls(url.raw_host.decode("ascii")) if url.scheme == "https" else line
    raise failure


def _addresses(url: httpx.URL, waits: Waits) -> Sequence[tuple[Any, ...]]:
    """Returns what getaddrinfo finds for the host of the URL.

    The system's resolver cannot be interrupted, so that a look-up that takes longer than the
    deadline continues in its thread, and its result is ignored.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    answer: Future[Sequence[tuple[Any, ...]]] = Future()

    def look_up() -> None:
        try:
            # As bytes, the host name is not encoded again: httpx.URL has made it ASCII.
            answer.set_result(socket.getaddrinfo(url.raw_host, port, type=socket.SOCK_STREAM))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            answer.set_exception(error)

    seconds = waits.seconds("look-up")
    threading.Thread(target=look_up, name="source-lookup", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        raise httpx.ReadTimeout("timed out") from None
    except OSError as error:
        raise httpx.ConnectError(f"{url.host}: {error}") from error


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Returns the TLS context that all connections share.

    It is created once, because reading all certificates takes longer than many requests.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context

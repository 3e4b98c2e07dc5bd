"""Webhook receiver with programmable behavior: a real HTTP server, one thread per connection."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.upstreams import reply


class Received(NamedTuple):
    """Request as received."""

    method: str
    path: str
    """Path with the query string."""
    headers: dict[str, str]
    """Headers with names in lower case."""
    body: bytes


class Connection:
    """Connection of one request, as a behaviour uses it to answer."""

    def __init__(self, sock: socket.socket, ended: threading.Event) -> None:
        self._sock = sock
        self._ended = ended

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def pause(self, seconds: float | None = None) -> bool:
        """Waits, at most until the receiver ends; True if the receiver has ended."""
        return self._ended.wait(seconds)

    def reset(self) -> None:
        """Closes the connection with a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


Behaviour = Callable[[Connection], object]


def status(code: int, body: bytes | str = b"", **headers: str) -> Behaviour:
    """Answers with this status and body; header names have underscores instead of hyphens."""
    return lambda connection: connection.send(reply(code, body, length=None, **headers))


def redirect(code: int, location: str) -> Behaviour:
    """Answers with a redirect to `location`."""
    return status(code, location=location)


def raw(*pieces: bytes) -> Behaviour:
    """Sends exactly these bytes, then closes the connection."""
    return lambda connection: connection.send(b"".join(pieces))


def hang(connection: Connection) -> None:
    """Sends nothing and keeps the connection open."""
    connection.pause()


def reset(connection: Connection) -> None:
    """Resets the connection without an answer."""
    connection.reset()


def broken_off(start: bytes) -> Behaviour:
    """Sends the start of an answer, then resets the connection."""

    def behave(connection: Connection) -> None:
        connection.send(start)
        connection.pause(0.05)
        connection.reset()

    return behave


def drip(start: bytes, drop: bytes, every: float = 0.05) -> Behaviour:
    """Sends the start of an answer, then `drop` every `every` seconds without an end."""

    def behave(connection: Connection) -> None:
        connection.send(start)
        while not connection.pause(every):
            connection.send(drop)

    return behave


def huge(code: int = 200, size: int = 10**12, letter: bytes = b"x") -> Behaviour:
    """Sends a body of `size` bytes while the client reads it."""

    def behave(connection: Connection) -> None:
        connection.send(reply(code, b"", length=size))
        for at in range(0, size, 65_536):
            connection.send(letter * min(65_536, size - at))

    return behave


class Receiver:
    """Uses its behaviours in order and repeats the last one; records all requests."""

    def __init__(self, host: str, port: int, scheme: str, behaviours: list[Behaviour]) -> None:
        self.host = host
        self.port = port
        self.url = f"{scheme}://{host}:{port}/hooks"
        self.behaviours = behaviours
        """Behaviours of the next requests; a test may change the list while the server runs."""
        self.received: list[Received] = []
        self.connections = 0
        """Number of accepted connections, with or without a request."""
        self.server_names: list[str | None] = []
        """Server names (SNI) that TLS clients sent."""
        self._changed = threading.Condition()

    def take(self, received: Received) -> Behaviour:
        """Records the request and returns the behaviour for its answer."""
        with self._changed:
            self.received.append(received)
            self._changed.notify_all()
            return self.behaviours[min(len(self.received), len(self.behaviours)) - 1]

    def wait_for(self, count: int, within: float = 20.0) -> list[Received]:
        """Returns all requests once there are at least `count`; fails after `within` seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, within), (
                f"{len(self.received)} of {count} requests came within {within} s"
            )
            return list(self.received)


@contextmanager
def receiving(
    *behaviours: Behaviour,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Receiver]:
    """Runs a receiver until the block ends, by default on a free port and with status 204."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def setup(self) -> None:
            receiver.connections += 1
            if tls is not None:
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            behave = receiver.take(Received(self.command, self.path, headers, body))
            self.close_connection = True
            behave(Connection(self.connection, ended))

        do_POST = do_GET = do_HEAD = do_PUT = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        request_queue_size = 64

        def server_bind(self) -> None:
            # Replaces the base class's method, which also does a DNS lookup of the host name.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignores errors: a sender may reject the certificate or disconnect early."""

    with Server((host, port), Handler) as server:
        scheme = "http" if tls is None else "https"
        bound = server.socket.getsockname()[1]
        receiver = Receiver(host, bound, scheme, list(behaviours or [status(204)]))
        if tls is not None:
            tls.sni_callback = lambda _sock, name, _context: receiver.server_names.append(name)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            ended.set()
            server.shutdown()
            thread.join()

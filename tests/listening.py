"""Test server for persistent connections; the test supplies the function for each connection."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Talk = Callable[[socket.socket, int], object]
"""Function that serves one connection; gets the socket and the connection's number, from 1.

The connection is closed when the function returns. A disconnect of the client is not an error.
"""


class Listener:
    """Port of the server, and the number of accepted connections."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.came = 0


@contextmanager
def listening(talk: Talk, tls: ssl.SSLContext | None = None) -> Iterator[Listener]:
    """Serves a free port of 127.0.0.1 until the block ends, then closes all connections."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as opened:
        listener = Listener(server.getsockname()[1])
        threads: list[threading.Thread] = []

        def serve(connection: socket.socket, number: int, ours: socket.socket) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError), connection:
                if tls is None:
                    talk(connection, number)
                else:
                    with tls.wrap_socket(connection, server_side=True) as secure:
                        talk(secure, number)
            _hang_up(ours)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return  # the block has ended
                listener.came += 1
                # A duplicate, because wrap_socket detaches the original socket.
                ours = opened.enter_context(connection.dup())
                opened.callback(_hang_up, ours)
                thread = threading.Thread(target=serve, args=(connection, listener.came, ours))
                thread.start()
                threads.append(thread)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener
        finally:
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            opened.close()
            for thread in threads:
                thread.join()


def request(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """Returns the head and the body of the next request; None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(sizes[0].partition(b":")[2] if sizes else 0):
        body += connection.recv(65_536)
    return head, body


def kept(body: Any, *headers: str) -> bytes:
    """Returns a 200 response that keeps the connection open for another request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = ["HTTP/1.1 200 OK", f"content-length: {len(raw)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + raw


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)

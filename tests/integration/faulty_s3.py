"""An HTTP proxy in front of an S3 that fails when it is told to."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self
from urllib.parse import urlsplit


class Request(NamedTuple):
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    peer: int
    """The client's port, so its connection."""


class Exchange(BaseHTTPRequestHandler):
    """One connection; each request goes to the next fault in the line."""

    protocol_version = "HTTP/1.1"
    # Whole answers in one write: head and body apart cost 40 ms each, by Nagle's algorithm.
    wbufsize = -1
    server: _Server

    def handle_one_request(self) -> None:
        # A client that gives up, or whose connection we reset, is what these tests are about.
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """What the real store answers."""
        connection = http.client.HTTPConnection(self.server.upstream, timeout=10)
        try:
            # Host too stays as the client signed it.
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        headers = {
            name: value
            for name, value in answer.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length")
        }
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        headers["Content-Length"] = length or str(len(content))
        return answer.status, headers, content

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        proxy = self.server.proxy
        proxy.requests.append(Request(self.command, self.path, headers, self.client_address[1]))
        fault = proxy.faults.popleft() if proxy.faults else proxy.otherwise
        fault(self, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _take  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


Fault = Callable[[Exchange, bytes], None]


def passed_on(exchange: Exchange, body: bytes) -> None:
    status, headers, content = exchange.forward(body)
    exchange.answer(status, content, headers)


def error(status: int, code: str) -> Fault:
    """The store answers with an error of its own, as XML."""

    def fault(exchange: Exchange, body: bytes) -> None:
        text = f"<Error><Code>{code}</Code><Message>as told</Message></Error>"
        exchange.answer(status, b"" if exchange.command == "HEAD" else text.encode())

    return fault


def text(status: int, content: str) -> Fault:
    def fault(exchange: Exchange, body: bytes) -> None:
        exchange.answer(status, content.encode())

    return fault


def connection_reset(exchange: Exchange, body: bytes) -> None:
    exchange.reset()


def silence(exchange: Exchange, body: bytes) -> None:
    exchange.server.proxy.closing.wait(30)
    exchange.close_connection = True


def answer_lost(exchange: Exchange, body: bytes) -> None:
    exchange.forward(body)
    exchange.reset()


def answer_cut(exchange: Exchange, body: bytes) -> None:
    """The right headers and half of the body, then the end."""
    status, headers, content = exchange.forward(body)
    exchange.answer(status, content[: len(content) // 2], headers)
    exchange.close_connection = True


def body_damaged(exchange: Exchange, body: bytes) -> None:
    status, headers, content = exchange.forward(bytes([body[0] ^ 1]) + body[1:])
    exchange.answer(status, content, headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultyS3
    upstream: str


class FaultyS3:
    """Passes requests on, except that the next ones meet `faults` first, one each."""

    def __init__(self, upstream_url: str) -> None:
        self.faults: deque[Fault] = deque()
        self.otherwise: Fault = passed_on
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), Exchange)
        self._server.proxy = self
        self._server.upstream = urlsplit(upstream_url).netloc
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

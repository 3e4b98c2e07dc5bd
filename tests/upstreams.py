"""Upstream for one test: a real socket that sends the given bytes as answers."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """Request as received."""

    line: str
    headers: dict[str, str]
    """Headers with names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reset:
    """Marks the end of an answer: the connection is closed with a reset."""


Answer = bytes | Iterable[bytes | Reset]


def reply(
    status: int = 200,
    body: bytes | str | dict[str, Any] = b"{}",
    *,
    length: int | None = None,
    **headers: str,
) -> bytes:
    """Returns a complete response; header names have underscores instead of hyphens."""
    if isinstance(body, dict):
        body = json.dumps(body)
    raw = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Said", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if "transfer_encoding" not in headers:
        lines.append(f"content-length: {len(raw) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


class Upstream:
    """Sends its answers in order and repeats the last one; records the requests in `asked`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[Asked] = []
        self.answers: list[Answer | Callable[[Asked], Answer]] = []

    def answer(self, connection: socket.socket) -> None:
        asked = _read(connection)
        if asked is None:
            return
        self.asked.append(asked)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if callable(answer):
            answer = answer(asked)
        for piece in [answer] if isinstance(answer, bytes) else answer:
            if isinstance(piece, Reset):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                connection.sendall(piece)


@contextmanager
def serving(*answers: Answer | Callable[[Asked], Answer]) -> Iterator[Upstream]:
    """Serves an upstream on a free port of 127.0.0.1 until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upstream = Upstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
        upstream.answers += answers

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # the block has ended
                # The client may disconnect before the end of the answer.
                with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    upstream.answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield upstream
        finally:
            # close() alone does not wake a thread that is blocked in accept().
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65_536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return Asked(line, headers, body)

"""An HTTP/1.1 server that costs next to nothing, so that a benchmark measures its clients."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

HEAD_MAX = 64 * 1024
PIECE = 1024 * 1024
"""Bytes received at once."""
DISCARD = socket.MSG_TRUNC | socket.MSG_WAITALL
AT_ONCE = 1024
"""Pieces that one system call sends at most (IOV_MAX)."""


class Request(NamedTuple):
    """What a client asks."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By name in lower case."""
    size: int
    """Bytes of the body."""
    body: bytes | None
    """None if it was not to be kept."""


class Answer(NamedTuple):
    """What it hears."""

    body: bytes | tuple[bytes, ...] = b""
    status: str = "200 OK"
    headers: Mapping[str, str] = {}
    length: int | None = None
    """Bytes that the headers announce where no body follows: the answer to a HEAD."""


Handler = Callable[[Request], Answer]
Keeps = Callable[[str, int], bool]
"""Whether the body of a request with this target and of so many bytes is to be kept."""


def keeps_all(target: str, size: int) -> bool:
    """The choice of a server whose requests are small."""
    return True


def serve(
    port: int, handle: Handler, *, keeps: Keeps = keeps_all, tls: ssl.SSLContext | None = None
) -> None:
    """Answer on that port of 127.0.0.1 until the process ends, a thread for each connection.

    Threads that block cost less than an event loop here: bytes go from the handler to the kernel
    without a copy, and what is sent or received needs no lock of the interpreter. A body that is
    not kept is thrown away inside the kernel, as it comes.
    """
    with socket.create_server(("127.0.0.1", port), backlog=256) as listener:
        while True:
            connection, _ = listener.accept()
            if tls is not None:
                connection = tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            threading.Thread(
                target=_converse, args=(connection, handle, keeps), daemon=True
            ).start()


def ranged(request: Request, size: int) -> range | None:
    """The bytes that a request asks for of `size`; None if it wants all of them."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if found is None:
        return None
    return range(int(found[1]), min(int(found[2]) + 1, size) if found[2] else size)


def stretch(body: bytes, wanted: range | None, headers: Mapping[str, str]) -> Answer:
    """The answer that holds those bytes of a body."""
    if wanted is None:
        return Answer(body, headers=headers)
    place = f"bytes {wanted.start}-{wanted.stop - 1}/{len(body)}"
    part = body[wanted.start : wanted.stop]
    return Answer(part, "206 Partial Content", {**headers, "content-range": place})


def _converse(connection: socket.socket, handle: Handler, keeps: Keeps) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    scratch = memoryview(bytearray(PIECE))
    held = b""
    # A client that goes away in the middle of something is of no interest.
    with connection, contextlib.suppress(ConnectionError):
        while True:
            while (end := held.find(b"\r\n\r\n")) < 0:
                got = connection.recv(HEAD_MAX)
                if not got or len(held) > HEAD_MAX:
                    return
                held += got
            first, *lines = held[:end].decode("latin-1").split("\r\n")
            held = held[end + 4 :]
            method, target, _ = first.split(" ")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            if "transfer-encoding" in headers:
                refusal = Answer(b"send a content-length", "501 Not Implemented")
                _send(connection, method, refusal)
                return
            size = int(headers.get("content-length", "0"))
            begun, held = held[:size], held[size:]
            if headers.get("expect", "").lower() == "100-continue" and not begun:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = _receive(connection, begun, size, scratch, kept=keeps(target, size))
            _send(connection, method, handle(Request(method, target, headers, size, body)))


def _receive(
    connection: socket.socket, begun: bytes, size: int, scratch: memoryview, *, kept: bool
) -> bytes | None:
    pieces, missing = [begun], size - len(begun)
    # What is thrown away is not even copied out of the kernel, and wakes this thread once a piece.
    flags = 0 if kept or isinstance(connection, ssl.SSLSocket) else DISCARD
    while missing:
        got = connection.recv_into(scratch, min(missing, PIECE), flags)
        if not got:
            raise ConnectionError("the client left in the middle of a body")
        missing -= got
        if kept:
            pieces.append(bytes(scratch[:got]))
    return b"".join(pieces) if kept else None


def _send(connection: socket.socket, method: str, answer: Answer) -> None:
    body = answer.body if isinstance(answer.body, tuple) else (answer.body,)
    length = sum(map(len, body)) if answer.length is None else answer.length
    extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    head = f"HTTP/1.1 {answer.status}\r\ncontent-length: {length}\r\n{extra}\r\n".encode()
    if method == "HEAD":
        connection.sendall(head)
    elif isinstance(connection, ssl.SSLSocket):
        connection.sendall(b"".join([head, *body]))
    else:
        # As it lies in memory: joined, a large body would be copied once more.
        _send_pieces(connection, [head, *body])


def _send_pieces(connection: socket.socket, pieces: list[bytes]) -> None:
    for at in range(0, len(pieces), AT_ONCE):
        some = pieces[at : at + AT_ONCE]
        sent = connection.sendmsg(some)
        if sent < sum(map(len, some)):
            connection.sendall(b"".join(some)[sent:])

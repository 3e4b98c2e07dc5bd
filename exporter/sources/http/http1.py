"""An HTTP/1.1 client connection that sends one request after another.

Body bytes go from the socket directly into the returned `bytes`; Python code parses only heads and
chunk sizes. An answer with an ambiguous end is refused, because half a page, or the answer to
another request, must never be taken for the requested page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import httpx

from exporter.sources.http.sockets import Socket

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of the status line and headers of an answer.

Provisional (1xx) answers before the answer are included. The same limit applies to each line
between two chunks and to the trailers.
"""
MAX_PIECE_BYTES = 8 * 1024 * 1024
"""Maximum size of one piece of an uncompressed page.

Most pages are smaller, so they are one piece, which need not be copied.
"""
_BUFFER_BYTES = 64 * 1024
_MAX_SHOWN_BYTES = 100
_BEFORE = "before an answer"

Headers = Sequence[tuple[bytes, bytes]]

_NAME = rb"[!#-'*+.0-9A-Z^-z|~-]+"
_TEXT = rb"[^\x00\r\n]*"
_METHOD = re.compile(rb"[A-Z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_SENT_NAME = re.compile(_NAME)
_SENT_VALUE = re.compile(_TEXT)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: (%b))?\r?\n" % _TEXT)
# Blanks before the colon are not allowed, but some servers send them.
_FIELD = re.compile(rb"(%b)([ \t]*):(%b)\r?\n" % (_NAME, _TEXT))
_START = b"HTTP/1."
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;%b)?\r?\n" % _TEXT)
_LENGTH = re.compile(rb"\d{1,15}")


class Malformed(httpx.RemoteProtocolError):
    """The peer sent something else than an answer of HTTP/1.1."""


class Head(NamedTuple):
    """The status line and headers of an answer."""

    version: bytes
    """b"HTTP/1.1" or b"HTTP/1.0"."""
    status: int
    reason: bytes
    headers: Headers
    """Pairs of name and value; names are in lower case."""
    is_doubtful: bool = False
    """Whether another reader could understand the headers in another way."""

    def values(self, name: bytes) -> list[bytes]:
        """Returns all comma-separated values of the headers with that name, in lower case."""
        return [
            value.strip().lower()
            for key, values in self.headers
            if key == name
            for value in values.split(b",")
        ]


class Connection:
    """Sends requests over one socket, which it owns. Not thread-safe."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._incoming = _Incoming(socket)
        self._received_before: int | None = None

    @property
    def is_unused(self) -> bool:
        """True if no request has been sent on this connection yet."""
        return self._received_before is None

    @property
    def no_bytes_received(self) -> bool:
        """True if no byte was received since the latest request."""
        return self.socket.received == self._received_before

    def request(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> Answer:
        """Sends a request and returns the answer, whose body is not read yet.

        Raises LocalProtocolError, before anything is sent, for a malformed request;
        RemoteProtocolError for an answer that is not HTTP/1; and the errors of Socket.
        """
        request = _serialized(method, target, headers, body)
        self._received_before = self.socket.received
        broken: httpx.WriteError | None = None
        try:
            self.socket.send(request)
        except httpx.WriteError as error:
            # A server that refuses a request may answer and close before it has read all of it.
            broken = error
        try:
            return Answer(self._incoming, self._incoming.head(), method, last=broken is not None)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            if broken is not None and self.no_bytes_received:
                raise broken from None
            raise

    def is_idle(self) -> bool:
        """True if the connection is open and has received nothing since the last answer."""
        self.socket.drain_only = True
        buffered = self._incoming.file.peek(1)
        self.socket.drain_only = False
        return not buffered and self.socket.nothing_to_read()

    def tunnel(self, host: str) -> Connection:
        """Returns a connection under TLS to `host`, through this connection.

        A proxy must have opened a tunnel to `host` on this connection before. Raises the same
        errors as `Socket.start_tls`.
        """
        self._incoming.file.detach()
        return Connection(self.socket.start_tls(host))

    def close(self) -> None:
        self.socket.close()


class Answer:
    """The head of an answer, and an iterator over its body, in pieces of at most MAX_PIECE_BYTES.

    The body can be iterated once. The iterator raises RemoteProtocolError for a truncated body, and
    the errors of Socket; the bytes received before an error are yielded first.
    """

    def __init__(self, incoming: _Incoming, head: Head, method: bytes, *, last: bool) -> None:
        self.head = head
        self._incoming = incoming
        self._size, self._chunked = _framing(head, method)
        self._whole = self._size == 0
        # Small pieces for other statuses, of which only the beginning is used, and for compressed
        # bodies, which are decompressed piece by piece.
        plain = head.status == 200 and not head.values(b"content-encoding")
        self._max_piece = MAX_PIECE_BYTES if plain else _BUFFER_BYTES
        self._last = (
            last
            or (self._size is None and (not self._chunked or bool(head.values(b"content-length"))))
            or head.version == b"HTTP/1.0"
            or head.status == 101
            # If the headers allow two sizes of the body, its rest must not be the next answer.
            or head.is_doubtful
            or (not self._chunked and bool(head.values(b"transfer-encoding")))
            or b"close" in head.values(b"connection")
        )

    @property
    def leaves_idle(self) -> bool:
        """True if another request may follow on the connection.

        The body must have been read to its end, and the server must not close the connection.
        """
        return self._whole and not self._last

    def __iter__(self) -> Iterator[bytes]:
        if self._chunked:
            yield from self._chunks()
        elif self._size is not None:
            yield from self._counted(self._size)
        else:
            yield from self._rest()
        self._whole = True

    def _counted(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            wanted = min(left, self._max_piece)
            piece = self._incoming.file.read(wanted)
            if piece:
                yield piece
            left -= len(piece)
            if len(piece) < wanted:
                raise self._incoming.ended(f"after {size - left} of {size} bytes")

    def _chunks(self) -> Iterator[bytes]:
        """Yields the body of a chunked answer, with many small chunks joined to one piece."""
        joined = io.BytesIO()
        try:
            while size := self._chunk_size():
                for piece in self._counted(size):
                    joined.write(piece)
                if joined.tell() >= self._max_piece:
                    yield joined.getvalue()
                    joined = io.BytesIO()
                text, _ = self._incoming.text(MAX_HEAD_BYTES, "after a chunk")
                if text not in (b"\r\n", b"\n"):
                    raise Malformed(f"a chunk longer than its size of {size} bytes")
            self._incoming.fields(MAX_HEAD_BYTES)
        except httpx.TransportError:
            yield joined.getvalue()
            raise
        yield joined.getvalue()

    def _chunk_size(self) -> int:
        text, _ = self._incoming.text(MAX_HEAD_BYTES, "before a chunk")
        found = _CHUNK.fullmatch(text)
        if found is None:
            raise Malformed(f"a chunk without a valid size: {text!r}")
        return int(found[1], 16)

    def _rest(self) -> Iterator[bytes]:
        while piece := self._incoming.file.read(self._max_piece):
            yield piece
        if self._incoming.socket.failure is not None:
            raise self._incoming.socket.failure


class _Incoming:
    """Reads lines, or a given number of bytes, from a socket through a buffer."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.file = io.BufferedReader(socket, _BUFFER_BYTES)

    def head(self) -> Head:
        """Returns the head of the final answer; provisional (1xx) answers before it are skipped."""
        room = MAX_HEAD_BYTES
        while True:
            text, room = self.text(room, _BEFORE)
            found = _STATUS.fullmatch(text)
            if found is None:
                raise Malformed(f"an answer that is not HTTP/1: {text!r}")
            headers, room, is_doubtful = self.fields(room)
            status = int(found[2])
            if status >= 200 or status == 101:
                return Head(b"HTTP/1." + found[1], status, found[3] or b"", headers, is_doubtful)

    def fields(self, room: int) -> tuple[Headers, int, bool]:
        """Reads the headers up to the empty line that ends them.

        Returns the headers, and `room` less their size, and True if they break a rule that other
        readers may enforce. `room` is the number of bytes that may be read; raises Malformed if
        the headers are larger.
        """
        fields: list[tuple[bytes, bytes]] = []
        is_doubtful = False
        while True:
            text, room = self.text(room, "within its headers")
            if text in (b"\r\n", b"\n"):
                return fields, room, is_doubtful
            if found := _FIELD.fullmatch(text):
                fields.append((found[1].lower(), found[3].strip(b" \t")))
                is_doubtful = is_doubtful or bool(found[2])
            elif fields and text[:1] in (b" ", b"\t"):
                # The standard forbids headers of several lines, but some servers send them.
                is_doubtful = True
                name, value = fields.pop()
                fields.append((name, value + b" " + text.strip()))
            else:
                raise Malformed(f"a malformed header line: {text!r}")

    def text(self, room: int, where: str) -> tuple[bytes, int]:
        """Reads a line; returns it with its line break, and `room` less its size.

        `room` is the number of bytes that may be read; raises RemoteProtocolError if the line is
        longer. `where` says, for an error text, at which point of the answer the line is expected.
        """
        text = self.file.readline(room)
        if text.endswith(b"\n"):
            return text, room - len(text)
        if len(text) == room:
            raise Malformed(f"more than {MAX_HEAD_BYTES} bytes of headers")
        begins_well = _START.startswith(text[: len(_START)])
        if where == _BEFORE and not begins_well and self.socket.failure is None:
            raise Malformed(f"something else than HTTP/1: {text[:_MAX_SHOWN_BYTES]!r}")
        raise self.ended(where)

    def ended(self, where: str) -> httpx.TransportError:
        """Returns the error to raise because the connection has ended within an answer.

        `where` says, for the error text, at which point of the answer it ended.
        """
        return self.socket.failure or httpx.RemoteProtocolError(
            f"the connection was closed {where}"
        )


def _serialized(method: bytes, target: bytes, headers: Headers, body: bytes) -> bytes:
    sound = _METHOD.fullmatch(method) and _TARGET.fullmatch(target)
    for name, value in headers:
        sound = sound and _SENT_NAME.fullmatch(name) and _SENT_VALUE.fullmatch(value)
    if not sound:
        raise httpx.LocalProtocolError(
            "the request cannot be sent: its URL or a header has a line break or another character "
            "that is not allowed there (check the API key)"
        )
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, fields, body)


def _framing(head: Head, method: bytes) -> tuple[int | None, bool]:
    """Returns the size of an answer's body, and True if the body is chunked.

    The size is None if it is not known in advance. If the headers give a size although the body is
    chunked, the size is ignored, as the standard requires. Raises RemoteProtocolError for headers
    that allow no certain answer.
    """
    tunnelled = method == b"CONNECT" and head.status < 300
    if tunnelled or method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return 0, False
    # An early draft of the standard had a coding "identity", which changes nothing.
    packed = [coding for coding in head.values(b"transfer-encoding") if coding != b"identity"]
    if packed:
        if packed != [b"chunked"]:
            raise Malformed(f"transfer-encoding {packed!r}, but only chunked is accepted")
        return None, True
    sizes = set(head.values(b"content-length"))
    if not sizes:
        return None, False
    if len(sizes) > 1 or not _LENGTH.fullmatch(min(sizes)):
        raise Malformed(f"an invalid content-length: {sorted(sizes)!r}")
    return int(sizes.pop()), False

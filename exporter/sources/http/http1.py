"""HTTP/1.1 as we speak it to an upstream: one connection, one request after the other.

The bytes of a body go from the socket straight into the `bytes` that are handed out; Python code
sees only heads and the sizes of chunks. Whatever leaves open where an answer ends is refused: half
a page, or the answer to another request, must never look like the page that was asked for.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import httpx

from exporter.sources.http.sockets import Socket

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of an answer's status and headers, those of provisional answers before it included; also
of what stands around one chunk."""
MAX_PIECE_BYTES = 8 * 1024 * 1024
"""Bytes of a plain page that are handed out at once: most come in one piece, and need no copy."""
_BUFFER_BYTES = 64 * 1024

Headers = Sequence[tuple[bytes, bytes]]

_NAME = rb"[!#-'*+.0-9A-Z^-z|~-]+"
_TEXT = rb"[^\x00\r\n]*"
_METHOD = re.compile(rb"[A-Z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_SENT_NAME = re.compile(_NAME)
_SENT_VALUE = re.compile(_TEXT)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)(?: (%b))?\r?\n" % _TEXT)
_FIELD = re.compile(rb"(%b):(%b)\r?\n" % (_NAME, _TEXT))
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;%b)?\r?\n" % _TEXT)
_LENGTH = re.compile(rb"\d{1,15}")


class Head(NamedTuple):
    """An answer's first line and headers."""

    version: bytes
    """b"HTTP/1.1" or b"HTTP/1.0"."""
    status: int
    reason: bytes
    headers: Headers
    """Names in lower case."""

    def values(self, name: bytes) -> list[bytes]:
        """The members of all headers of that name, in lower case."""
        return [
            value.strip().lower()
            for key, values in self.headers
            if key == name
            for value in values.split(b",")
        ]


class Connection:
    """Asks over a line, which it owns. One thread at a time may use it."""

    def __init__(self, line: Socket) -> None:
        self.socket = line
        self._incoming = _Incoming(line)
        self._received_before: int | None = None

    @property
    def is_unused(self) -> bool:
        """Whether nothing was asked yet."""
        return self._received_before is None

    @property
    def no_bytes_received(self) -> bool:
        """Whether not a byte came back of the latest request."""
        return self.socket.received == self._received_before

    def request(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> Answer:
        """The answer, its body still to be read.

        Raises LocalProtocolError before anything is sent, RemoteProtocolError for what is no
        HTTP/1, and what a Line raises.
        """
        request = _serialized(method, target, headers, body)
        self._received_before = self.socket.received
        broken: httpx.WriteError | None = None
        try:
            self.socket.send(request)
        except httpx.WriteError as error:
            # Who refuses a request may answer, and close, before having read all of it.
            broken = error
        try:
            return Answer(self._incoming, self._incoming.head(), method, last=broken is not None)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            if broken is not None and self.no_bytes_received:
                raise broken from None
            raise

    def is_idle(self) -> bool:
        """Whether it can be asked: it is open, and nothing came unasked for."""
        self.socket.drain_only = True
        come = self._incoming.file.peek(1)
        self.socket.drain_only = False
        return not come and self.socket.nothing_to_read()

    def tunnel(self, host: str) -> Connection:
        """A connection to `host` through this one, whose other end passes on all bytes from now
        on. Raises what `Socket.start_tls` raises."""
        self._incoming.file.detach()
        return Connection(self.socket.start_tls(host))

    def close(self) -> None:
        self.socket.close()


class Answer:
    """An answer's head, and its body as it comes: iterated once, in pieces of LARGEST at most.

    Raises RemoteProtocolError for a body that ends before its end, and what a Line raises, after
    the bytes that did come.
    """

    def __init__(self, incoming: _Incoming, head: Head, method: bytes, *, last: bool) -> None:
        self.head = head
        self._incoming = incoming
        self._size, self._chunked = _framing(head, method)
        self._whole = self._size == 0
        # Of anything but a page only the beginning is of use; what is packed is unpacked, and the
        # deadline asked, by small steps.
        plain = head.status == 200 and not head.values(b"content-encoding")
        self._max_piece = MAX_PIECE_BYTES if plain else _BUFFER_BYTES
        self._last = (
            last
            or (self._size is None and (not self._chunked or bool(head.values(b"content-length"))))
            or head.version == b"HTTP/1.0"
            or head.status == 101
            or b"close" in head.values(b"connection")
        )

    @property
    def leaves_idle(self) -> bool:
        """Whether another request may follow: the body was read to its end, and the other side
        did not say that it closes."""
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
        """The bytes of many chunks at once: servers make them of a few KiB, and some of one."""
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
                    raise httpx.RemoteProtocolError(f"a chunk of {size} bytes that goes on")
            self._incoming.fields(MAX_HEAD_BYTES)
        except httpx.TransportError:
            yield joined.getvalue()
            raise
        yield joined.getvalue()

    def _chunk_size(self) -> int:
        text, _ = self._incoming.text(MAX_HEAD_BYTES, "before a chunk")
        found = _CHUNK.fullmatch(text)
        if found is None:
            raise httpx.RemoteProtocolError(f"a chunk that does not tell its size: {text!r}")
        return int(found[1], 16)

    def _rest(self) -> Iterator[bytes]:
        while piece := self._incoming.file.read(self._max_piece):
            yield piece
        if self._incoming.socket.failure is not None:
            raise self._incoming.socket.failure


class _Incoming:
    """What a line says, read by lines of text and by counted bytes."""

    def __init__(self, line: Socket) -> None:
        self.socket = line
        self.file = io.BufferedReader(line, _BUFFER_BYTES)

    def head(self) -> Head:
        """The head of the final answer: provisional ones are passed over."""
        room = MAX_HEAD_BYTES
        while True:
            text, room = self.text(room, "before an answer")
            found = _STATUS.fullmatch(text)
            if found is None:
                raise httpx.RemoteProtocolError(f"an answer that is no HTTP/1: {text!r}")
            headers, room = self.fields(room)
            status = int(found[2])
            if status >= 200 or status == 101:
                return Head(b"HTTP/1." + found[1], status, found[3] or b"", headers)

    def fields(self, room: int) -> tuple[Headers, int]:
        """Headers up to the empty line that ends them, and how much room they leave."""
        fields: list[tuple[bytes, bytes]] = []
        while True:
            text, room = self.text(room, "within its headers")
            if text in (b"\r\n", b"\n"):
                return fields, room
            if found := _FIELD.fullmatch(text):
                fields.append((found[1].lower(), found[2].strip(b" \t")))
            elif fields and text[:1] in (b" ", b"\t"):
                # The standard has given up headers of several lines; some servers have not.
                name, value = fields.pop()
                fields.append((name, value + b" " + text.strip()))
            else:
                raise httpx.RemoteProtocolError(f"a header that is none: {text!r}")

    def text(self, room: int, where: str) -> tuple[bytes, int]:
        """A line with its end, and the room that it leaves."""
        text = self.file.readline(room)
        if text.endswith(b"\n"):
            return text, room - len(text)
        if len(text) == room:
            raise httpx.RemoteProtocolError(f"more than {MAX_HEAD_BYTES} bytes of headers")
        raise self.ended(where)

    def ended(self, where: str) -> httpx.TransportError:
        """Why the line ended, and where."""
        return self.socket.failure or httpx.RemoteProtocolError(
            f"the connection was closed {where}"
        )


def _serialized(method: bytes, target: bytes, headers: Headers, body: bytes) -> bytes:
    sound = _METHOD.fullmatch(method) and _TARGET.fullmatch(target)
    for name, value in headers:
        sound = sound and _SENT_NAME.fullmatch(name) and _SENT_VALUE.fullmatch(value)
    if not sound:
        raise httpx.LocalProtocolError(
            "a request that cannot be sent: its address, or a header, holds a line break or "
            "another sign that has no place there (is the key right?)"
        )
    fields = b"".join([b"%b: %b\r\n" % field for field in headers])
    return b"%b %b HTTP/1.1\r\n%b\r\n%b" % (method, target, fields, body)


def _framing(head: Head, method: bytes) -> tuple[int | None, bool]:
    """How many bytes the body has, if that is told, and whether it comes in chunks.

    Where both are told the chunks count, as the standard has it.
    """
    tunnelled = method == b"CONNECT" and head.status < 300
    if tunnelled or method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return 0, False
    packed = head.values(b"transfer-encoding")
    if packed:
        if packed != [b"chunked"]:
            raise httpx.RemoteProtocolError(f"transfer-encoding {packed!r}, where only chunks go")
        return None, True
    sizes = set(head.values(b"content-length"))
    if not sizes:
        return None, False
    if len(sizes) > 1 or not _LENGTH.fullmatch(min(sizes)):
        raise httpx.RemoteProtocolError(f"content-length {sorted(sizes)!r}")
    return int(sizes.pop()), False

"""HTTP/1.1 answers of good and bad servers, byte for byte."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.sources.http import http1
from exporter.sources.http.http1 import Connection
from exporter.sources.http.sockets import Socket, Waits
from tests import fast

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\nhello"


@contextmanager
def connected(raw: bytes, *, closed: bool = True) -> Iterator[tuple[Connection, socket.socket]]:
    """Yields a connection to a server that has sent exactly these bytes."""
    ours, theirs = socket.socketpair()
    connection = Connection(Socket(ours, Waits({}, lambda: 5.0)))
    with theirs:
        theirs.sendall(raw)
        if closed:
            theirs.shutdown(socket.SHUT_WR)
        try:
            yield connection, theirs
        finally:
            connection.close()


def read(raw: bytes, method: bytes = b"GET") -> tuple[int, bytes, bool]:
    """Returns status, body, and whether another request may follow."""
    with connected(raw) as (connection, _):
        answer = connection.request(method, b"/", [(b"Host", b"x")], b"")
        body = b"".join(answer)
        return answer.head.status, body, answer.leaves_idle


BODIES: dict[str, tuple[bytes, bytes, bool]] = {
    "counted": (FIVE, b"hello", True),
    "counted twice alike": (
        OK + b"Content-Length: 5, 5\r\ncontent-length:5\r\n\r\nhello",
        b"hello",
        True,
    ),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "in chunks": (CHUNKED + b"2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n", b"hello", True),
    "in chunks with trailers": (
        CHUNKED + b"A \r\n0123456789\r\n0\r\nx: y\r\n\r\n",
        b"0123456789",
        True,
    ),
    "in chunks and counted": (
        OK + b"Content-Length: 9\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n",
        b"!",
        False,
    ),
    "to the end": (OK + b"\r\nhello", b"hello", False),
    "with blanks before colons": (
        OK + b"X-Note : hello\r\nContent-Length \t: 5\r\n\r\nhello",
        b"hello",
        False,
    ),
    "in chunks, with a blank before the colon": (
        OK + b"Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"hello",
        False,
    ),
    "with a header of two lines": (
        OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        False,
    ),
    "in the coding that changes nothing": (
        OK + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
        False,
    ),
    "by an old server": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "the last": (OK + b"Connection: x, Close\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    "with line feeds only": (b"HTTP/1.1 200\nContent-Length: 5\n\nhello", b"hello", True),
    "after others": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + FIVE,
        b"hello",
        True,
    ),
}


@pytest.mark.parametrize(("raw", "body", "follows"), BODIES.values(), ids=BODIES)
def test_a_body_ends_where_its_answer_says(raw: bytes, body: bytes, follows: bool) -> None:
    # When / Then
    assert read(raw) == (200, body, follows)


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"CONNECT", 200)]
)
def test_an_answer_that_has_no_body_has_none_whatever_its_headers_say(
    method: bytes, status: int
) -> None:
    # Given
    raw = b"HTTP/1.1 %d Said\r\nContent-Length: 9\r\n\r\n" % status
    # When / Then
    assert read(raw, method) == (status, b"", True)


def test_another_protocol_is_never_switched_to() -> None:
    # When / Then
    assert read(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\nxyz") == (101, b"", False)


def test_headers_come_without_their_blanks_and_in_one_piece() -> None:
    # Given
    raw = OK + b"A:  1 \t\r\nb: 2\r\n\t 3\r\nA: \xe9\r\nContent-Length: 0\r\n\r\n"
    with connected(raw) as (connection, _):
        # When
        head = connection.request(b"GET", b"/", [], b"").head
    # Then
    assert head.headers[:3] == [(b"a", b"1"), (b"b", b"2 3"), (b"a", b"\xe9")]


REFUSED: dict[str, bytes] = {
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two lengths in one": OK + b"Content-Length: 5, 6\r\n\r\nhello!",
    "a length below zero": OK + b"Content-Length: -5\r\n\r\nhello",
    "a length with a sign": OK + b"Content-Length: +5\r\n\r\nhello",
    "no length": OK + b"Content-Length: five\r\n\r\nhello",
    "an empty length": OK + b"Content-Length:\r\n\r\nhello",
    "a length of too many digits": OK + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\nhello",
    "an unknown coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks of chunks": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKED + b"+1\r\n!\r\n0\r\n\r\n",
    "a chunk size below zero": CHUNKED + b"-1\r\n!\r\n0\r\n\r\n",
    "a chunk size with a prefix": CHUNKED + b"0x1\r\n!\r\n0\r\n\r\n",
    "a chunk size of two parts": CHUNKED + b"1_0\r\n" + b"!" * 16 + b"\r\n0\r\n\r\n",
    "a chunk size of too many digits": CHUNKED + b"f" * 16 + b"\r\n!\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\n!\r\n0\r\n\r\n",
    "a chunk that goes on": CHUNKED + b"1\r\n!!\r\n0\r\n\r\n",
    "a trailer that is none": CHUNKED + b"0\r\nx\r\n\r\n",
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "no version": b"ICY 200 OK\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "an empty line first": b"\r\n" + FIVE,
    "a header without a colon": OK + b"x\r\n\r\n",
    "a header without a name": OK + b": x\r\n\r\n",
    "two lengths, one with a blank before its colon": OK
    + b"Content-Length: 5\r\nContent-Length : 6\r\n\r\nhello!",
    "a length of two lines": OK + b"Content-Length: 5\r\n 6\r\n\r\nhello",
    "a blank within a name": OK + b"Content Length: 5\r\n\r\nhello",
    "a header that goes on before it begins": OK + b" x: y\r\n\r\n",
    "a zero byte in a header": OK + b"x: \0\r\n\r\n",
    "a carriage return in a header": OK + b"x: a\rb\r\n\r\n",
    "a header that is too long": OK + b"x: " + b"y" * http1.MAX_HEAD_BYTES + b"\r\n\r\n",
    "too many headers": OK + b"x: y\r\n" * (http1.MAX_HEAD_BYTES // 6) + b"\r\n",
    "too many provisional answers": b"HTTP/1.1 103 Hints\r\n\r\n" * (http1.MAX_HEAD_BYTES // 22)
    + FIVE,
    "a chunk whose size is too far away": CHUNKED
    + b"1;"
    + b"x" * http1.MAX_HEAD_BYTES
    + b"\r\n!\r\n",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_an_answer_with_an_ambiguous_end_is_refused(raw: bytes) -> None:
    # When / Then
    with pytest.raises(httpx.RemoteProtocolError):
        read(raw)


def test_headers_of_blanks_only_take_no_time() -> None:
    # Given: a pattern that searches trailing blanks from each blank would take hours
    raw = OK + b"x:" + b" \t" * 30_000 + b"y\r\nContent-Length: 0\r\n\r\n"
    # When / Then
    assert read(raw) == (200, b"", True)


@pytest.mark.parametrize(
    "raw", [FIVE, CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"], ids=["counted", "in chunks"]
)
def test_an_answer_cut_anywhere_is_never_whole_and_its_received_bytes_are_yielded(
    raw: bytes,
) -> None:
    for cut in range(len(raw)):
        # Given
        came = b""
        with connected(raw[:cut]) as (connection, _):
            # When
            with pytest.raises(httpx.RemoteProtocolError, match="was closed"):
                for piece in connection.request(b"GET", b"/", [], b""):
                    came += piece
            # Then
            assert connection.no_bytes_received is (cut == 0)
        body = raw.partition(b"\r\n\r\n")[2]
        plain = b"".join(bytes([c]) for c in body[: max(cut - len(raw) + len(body), 0)] if c > 57)
        assert came == plain


def test_a_cut_after_the_size_of_a_body_without_length_is_no_error_of_http() -> None:
    # When / Then: only the reader of the body can detect the cut
    assert read(OK + b"\r\nhel") == (200, b"hel", False)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.integers(1, 500))
@settings(max_examples=fast.examples(50), deadline=None)
def test_chunks_come_out_whole_however_they_are_cut(chunks: list[bytes], most: int) -> None:
    # Given
    raw = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    with pytest.MonkeyPatch.context() as patch, connected(CHUNKED + raw + b"0\r\n\r\n") as (c, _):
        patch.setattr(http1, "MAX_PIECE_BYTES", most)
        # When
        found = list(c.request(b"GET", b"/", [], b""))
    # Then
    assert b"".join(found) == b"".join(chunks)
    assert max(map(len, found)) < most + 300


INJECTED = {
    "a line break in a value": (b"GET", b"/", (b"x", b"y\r\nz: 1")),
    "a line feed in a value": (b"GET", b"/", (b"x", b"y\nz")),
    "a zero byte in a value": (b"GET", b"/", (b"x", b"\0")),
    "a line break in a name": (b"GET", b"/", (b"x\r\ny", b"z")),
    "a colon in a name": (b"GET", b"/", (b"x: y", b"z")),
    "no name": (b"GET", b"/", (b"", b"z")),
    "a blank in the target": (b"GET", b"/ HTTP/1.1\r\nx: y", (b"x", b"z")),
    "no target": (b"GET", b"", (b"x", b"z")),
    "a blank in the method": (b"GET /x", b"/", (b"x", b"z")),
}


@pytest.mark.parametrize(("method", "target", "header"), INJECTED.values(), ids=INJECTED)
def test_nothing_is_sent_of_a_request_that_could_be_read_as_another(
    method: bytes, target: bytes, header: tuple[bytes, bytes]
) -> None:
    # Given
    with connected(b"", closed=False) as (connection, theirs):
        # When
        with pytest.raises(httpx.LocalProtocolError) as refused:
            connection.request(method, target, [(b"Host", b"x"), header], b"")
        connection.close()
        # Then
        assert theirs.recv(100) == b""
        assert "z" not in str(refused.value)


def test_bytes_that_nobody_asked_for_are_noticed_before_the_next_request() -> None:
    for extra, later in [(b"", b""), (b"!", b""), (b"", b"!")]:
        # Given
        with connected(FIVE + extra, closed=False) as (connection, theirs):
            b"".join(connection.request(b"GET", b"/", [], b""))
            theirs.sendall(later)
            # When / Then
            assert connection.is_idle() is (not extra and not later)


def test_a_connection_that_was_closed_meanwhile_is_not_idle() -> None:
    # Given
    with connected(FIVE) as (connection, _):
        assert b"".join(connection.request(b"GET", b"/", [], b"")) == b"hello"
        # When / Then
        assert not connection.is_idle()

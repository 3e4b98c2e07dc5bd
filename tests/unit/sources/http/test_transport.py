"""Upstreams that send slowly, too much or nothing, over real sockets and on the real clock."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exporter.clock import SystemClock
from exporter.errors import PageTooLarge, SourceRefused, SourceUnavailable
from exporter.sources.http import client as http
from exporter.sources.http import transport
from tests import fast
from tests.upstreams import Answer, Asked, Upstream, reply, serving

pytestmark = pytest.mark.external

MIB = 1024**2
HEAD = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"


def ask(upstream: Upstream, *, timeout: float = 30.0, can_shrink: bool = False) -> bytes:
    client = http.Upstream(upstream.url, {}, SystemClock(), timeout=timeout)
    try:
        return client.request("POST", "/search", bytes, json={}, can_shrink=can_shrink)
    finally:
        client.close()


def _dripping(start: bytes, drop: bytes, every: float = 0.05) -> Iterator[bytes]:
    yield start
    while True:
        time.sleep(every)
        yield drop


DRIPS = {
    "headers": (b"HTTP/1.1 200 OK\r\nx: ", b"y"),
    "one header after the other": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "provisional answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body": (reply(200, b"", length=10_000), b" "),
    "a chunked body": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "an empty gzip after the other": (HEAD, gzip.compress(b"")),
}


@pytest.mark.parametrize(("start", "drop"), DRIPS.values(), ids=DRIPS)
def test_what_drips_ends_at_the_deadline(start: bytes, drop: bytes) -> None:
    # Given
    def drip(_: Asked) -> Answer:
        return _dripping(start, drop)

    with serving(drip) as upstream:
        began = time.monotonic()
        # When
        with pytest.raises(SourceUnavailable, match="no whole answer within 1 s"):
            ask(upstream, timeout=0.6)
        # Then
        assert 0.6 <= time.monotonic() - began < 1.6
    assert len(upstream.asked) == 1


def test_a_page_that_could_be_smaller_has_half_of_the_time() -> None:
    # Given
    def drip(_: Asked) -> Answer:
        return _dripping(reply(200, b"", length=10_000), b" ")

    with serving(drip) as upstream:
        began = time.monotonic()
        # When
        with pytest.raises(PageTooLarge, match="no whole answer"):
            ask(upstream, timeout=1.0, can_shrink=True)
        # Then
        assert 0.5 <= time.monotonic() - began < 1


def test_silence_ends_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(http, "READ_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(http, "MAX_TRIES", 1)

    def silent(_: object) -> bytes:
        time.sleep(0.6)
        return b""

    with serving(silent) as upstream:
        began = time.monotonic()
        # When
        with pytest.raises(SourceUnavailable, match=r"did not answer: .*timed out"):
            ask(upstream)
        # Then
        assert time.monotonic() - began < 0.6


def test_a_name_server_that_does_not_answer_is_given_up_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20) and [])
    client = http.Upstream("http://api.example.com", {}, SystemClock(), timeout=0.3)
    began = time.monotonic()
    # When
    with pytest.raises(SourceUnavailable, match="no whole answer within 0 s"):
        client.request("GET", "/search", bytes)
    # Then
    assert 0.3 <= time.monotonic() - began < 2
    answered.set()
    client.close()


def test_a_cookie_is_not_sent_back() -> None:
    # Given
    with serving(reply(200, b"{}", set_cookie="a=b; path=/")) as upstream:
        client = http.Upstream(upstream.url, {}, SystemClock())
        # When
        for _ in range(2):
            client.request("GET", "/search", bytes)
        client.close()
    # Then
    assert "cookie" not in upstream.asked[1].headers


def test_a_failure_whose_text_drips_still_counts_by_its_status() -> None:
    # Given
    def drip(_: Asked) -> Answer:
        return _dripping(reply(401, b"no key", length=10_000), b"!")

    with serving(drip) as upstream, pytest.raises(SourceRefused, match="answered 401: no key!"):
        # When / Then
        ask(upstream, timeout=0.3)


def _bomb(size: int) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return b"".join([packer.compress(bytes(MIB)) for _ in range(size // MIB)]) + packer.flush()


def test_a_bomb_is_cut_off_at_the_cap_and_takes_little_more_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: 200 MiB, compressed to less than 1 MiB
    monkeypatch.setattr(http, "MAX_PAGE_BYTES", 16 * MIB)
    with serving(reply(200, _bomb(200 * MIB), content_encoding="gzip")) as upstream:
        tracemalloc.start()
        # When
        with pytest.raises(SourceRefused, match=rf"more than {16 * MIB} bytes \(lower page_size"):
            ask(upstream)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # Then
    assert len(upstream.asked) == 1
    assert peak < 32 * MIB


def test_a_gzip_of_very_many_members_takes_no_longer_than_its_size_asks_for() -> None:
    # Given: after each gzip member the rest of its piece is copied
    body = gzip.compress(b"") * 250_000 + gzip.compress(b"{}")
    with serving(reply(200, body, content_encoding="gzip")) as upstream:
        began = time.process_time()
        # When
        found = ask(upstream)
    # Then: fast; as one piece it took minutes
    assert found == b"{}"
    assert time.process_time() - began < 12


def test_an_error_page_without_end_is_read_as_far_as_it_is_quoted() -> None:
    # Given
    def endless(_: Asked) -> Iterator[bytes]:
        yield reply(400, b"", length=10**12)
        while True:
            yield b"no such page " * 1_000

    with serving(endless) as upstream, pytest.raises(SourceRefused, match="400: no such page"):
        # When / Then
        ask(upstream)


@given(
    members=st.lists(st.binary(max_size=400), min_size=1, max_size=3),
    copies=st.integers(1, 30),
    piece=st.integers(1, 700),
    cut=st.integers(1, 300),
    padding=st.sampled_from([b"", b"\0", bytes(600)]),
)
@settings(max_examples=fast.examples(60), deadline=None)
def test_packed_bodies_come_out_whole_however_they_are_cut(
    members: list[bytes], copies: int, piece: int, cut: int, padding: bytes
) -> None:
    # Given: a body that begins like gzip is unpacked twice, as no JSON begins so
    assume(not b"".join(member * copies for member in members).startswith(b"\x1f\x8b"))
    whole = b"".join(gzip.compress(member * copies) for member in members) + padding
    chunks = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, content=iter(chunks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "MAX_UNPACKED_BYTES", piece)
        # When
        found = list(transport.unpacked(response))
    # Then
    assert b"".join(found) == b"".join(member * copies for member in members)
    assert max(map(len, found), default=0) <= piece


def test_the_environment_names_the_proxy_and_whom_it_is_not_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    with serving(reply(200, b"{}")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://ann:secret@"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        far = Upstream("http://api.example.com")
        # When
        found = ask(far)
        with serving(reply(200, b"[]")) as near:
            direct = ask(near)
    # Then
    assert (found, direct) == (b"{}", b"[]")
    (asked,) = proxy.asked
    assert asked.line == "POST http://api.example.com/search HTTP/1.1"
    assert asked.headers["proxy-authorization"].startswith("Basic ")

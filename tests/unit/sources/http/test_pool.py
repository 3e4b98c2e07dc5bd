"""Connections to an upstream that are kept, shared by threads and opened through proxies."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme

from exporter.clock import SystemClock
from exporter.errors import ConfigurationError, SourceError, SourceRefused, SourceUnavailable
from exporter.local import ports
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from exporter.sources.http import client, pool, sockets
from tests.listening import Listener, kept, listening, request

pytestmark = pytest.mark.external

THREADS = 8


@pytest.fixture(autouse=True)
def _one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows one try, so that a retry cannot hide a broken connection."""
    monkeypatch.setattr(client, "MAX_TRIES", 1)


@contextlib.contextmanager
def asking(base: str, timeout: float = 10.0) -> Iterator[client.Upstream]:
    upstream = client.Upstream(base, {"x-api-key": "sesame"}, SystemClock(), timeout=timeout)
    try:
        yield upstream
    finally:
        upstream.close()


def at(listener: Listener) -> str:
    return f"http://127.0.0.1:{listener.port}"


def echoing(connection: socket.socket, _: int) -> None:
    """Echoes the body of each request."""
    while asked := request(connection):
        connection.sendall(kept(asked[1]))


def in_threads(work: Any, count: int = THREADS) -> None:
    """Runs `work` with each number below `count` in threads; raises the first error."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_that_share_a_source_each_get_their_own_pages() -> None:
    # Given: a source whose rows contain the number of their page
    def talk(connection: socket.socket, _: int) -> None:
        while asked := request(connection):
            page = json.loads(asked[1])["page"]
            rows = [{"_id": f"{page}/{n}", "description": "x" * 2_000} for n in range(50)]
            connection.sendall(kept({"jobs": rows, "total_count": 10**6, "page": page}))

    with listening(talk) as listener:
        config = HirebaseConfig(base_url=at(listener), api_key="k", page_size=50)
        source = HirebaseSource(config, SystemClock())

        def work(number: int) -> None:
            for turn in range(25):
                page = turn * THREADS + number + 1
                # When
                found = source.fetch({}, {"page": page, "size": 50})
                # Then
                ids = [json.loads(bytes(row))["_id"] for row in found.rows]
                assert ids == [f"{page}/{n}" for n in range(50)]

        in_threads(work)
        source.close()
    assert listener.came <= THREADS


def test_a_connection_goes_from_one_thread_to_the_next() -> None:
    # Given
    with listening(echoing) as listener, asking(at(listener)) as upstream:
        for number in range(4):
            # When
            in_threads(lambda _, n=number: upstream.request("POST", "/", bytes, json={"n": n}), 1)
    # Then
    assert listener.came == 1


def test_a_connection_that_was_closed_meanwhile_is_replaced_and_that_is_no_failure() -> None:
    # Given: a server that closes without announcing it
    def once(connection: socket.socket, number: int) -> None:
        asked = request(connection)
        assert asked is not None
        connection.sendall(kept({"connection": number}))

    with listening(once) as listener, asking(at(listener)) as upstream:
        # When
        found = []
        for _ in range(4):
            found.append(upstream.request("GET", "/", json.loads))
            time.sleep(0.05)
    # Then
    assert found == [{"connection": number} for number in (1, 2, 3, 4)]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_closes_just_as_it_is_asked_again_is_replaced(method: str) -> None:
    # Given: a server that closes an idle connection while a request is on its way
    def second_falls(connection: socket.socket, number: int) -> None:
        for turn in range(3):
            if request(connection) is None or (turn == 1 and number == 1):
                return
            connection.sendall(kept({"connection": number}))

    with listening(second_falls) as listener, asking(at(listener)) as upstream:
        # When
        found = [upstream.request(method, "/", json.loads)["connection"] for _ in range(3)]
    # Then
    assert found == [1, 2, 2]


def test_a_connection_that_closes_before_it_has_ever_answered_is_a_failure() -> None:
    # Given
    def falls(connection: socket.socket, _: int) -> None:
        request(connection)

    with (
        listening(falls) as listener,
        asking(at(listener)) as upstream,
        # When / Then
        pytest.raises(SourceUnavailable, match="closed before an answer"),
    ):
        upstream.request("GET", "/", bytes)
    assert listener.came == 1


def test_an_answer_that_has_begun_is_not_asked_for_again_in_silence() -> None:
    # Given
    def breaks_off(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(kept({}))
        request(connection)
        connection.sendall(b"HTTP/1.1 200 ")

    with listening(breaks_off) as listener, asking(at(listener)) as upstream:
        upstream.request("GET", "/", bytes)
        # When / Then
        with pytest.raises(SourceUnavailable, match="closed before an answer"):
            upstream.request("GET", "/", bytes)
    assert listener.came == 1


def test_bytes_beyond_an_answer_never_become_the_next_one() -> None:
    # Given: each answer is followed by an unrequested second answer
    def generous(connection: socket.socket, number: int) -> None:
        while request(connection):
            connection.sendall(kept({"connection": number}) + kept({"connection": "nobody's"}))

    with listening(generous) as listener, asking(at(listener)) as upstream:
        # When
        found = [upstream.request("GET", "/", json.loads)["connection"] for _ in range(3)]
    # Then
    assert found == [1, 2, 3]


def test_an_answer_read_in_part_costs_its_connection() -> None:
    # Given: a refusal of which only the beginning is read and the rest has not arrived
    def refuse(connection: socket.socket, number: int) -> None:
        start = f"connection {number} ".encode().ljust(client.MAX_REFUSAL_BYTES * 2)
        while request(connection):
            connection.sendall(b"HTTP/1.1 404 No\r\ncontent-length: 999999\r\n\r\n" + start)

    with listening(refuse) as listener, asking(at(listener)) as upstream:
        for number in (1, 2):
            # When / Then
            with pytest.raises(SourceRefused, match=f"404: connection {number}"):
                upstream.request("GET", "/", bytes)


def test_a_connection_that_cannot_be_opened_takes_no_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 1)
    with asking(f"http://127.0.0.1:{ports.find_free(1)[0]}") as upstream:
        for _ in range(2):
            # When / Then
            with pytest.raises(SourceUnavailable, match="refused"):
                upstream.request("GET", "/", bytes)


def test_no_more_connections_are_open_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 2)

    def slow(connection: socket.socket, _: int) -> None:
        while asked := request(connection):
            time.sleep(0.01)
            connection.sendall(kept(asked[1]))

    with listening(slow) as listener, asking(at(listener)) as upstream:

        def work(number: int) -> None:
            for _ in range(5):
                # When
                found = upstream.request("POST", "/", json.loads, json={"n": number})
                # Then
                assert found == {"n": number}

        in_threads(work)
    assert listener.came == 2


def test_who_waits_for_a_connection_waits_to_the_deadline_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setattr(pool, "MAX_CONNECTIONS", 1)
    asked, done = threading.Event(), threading.Event()

    def busy(connection: socket.socket, _: int) -> None:
        request(connection)
        asked.set()
        done.wait(20)
        connection.sendall(kept({}))

    with listening(busy) as listener, asking(at(listener)) as upstream:
        first = threading.Thread(target=lambda: upstream.request("GET", "/", bytes))
        first.start()
        asked.wait(20)
        began = time.monotonic()
        # When
        with pytest.raises(SourceUnavailable, match="no whole answer within 0 s"):
            upstream.request("GET", "/", bytes, deadline=time.monotonic() + 0.3)
        # Then
        assert 0.3 <= time.monotonic() - began < 3
        done.set()
        first.join()
        # And the slot is free again
        assert upstream.request("GET", "/", bytes) == b"{}"


def test_idle_connections_are_kept_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(pool, "KEEP_ALIVE_SECONDS", 0.0)
    with listening(echoing) as listener, asking(at(listener)) as upstream:
        # When
        for _ in range(3):
            upstream.request("GET", "/", bytes)
    # Then
    assert listener.came == 3


def test_closing_hangs_up() -> None:
    # Given
    ended = threading.Event()

    def wait(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(kept({}))
        assert request(connection) is None
        ended.set()

    with listening(wait) as listener:
        with asking(at(listener)) as upstream:
            upstream.request("GET", "/", bytes)
        # When / Then
        assert ended.wait(20)


def test_a_refusal_that_comes_before_the_request_was_read_is_heard() -> None:
    # Given: a server that closes with most of the request unread
    def refuse(connection: socket.socket, _: int) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 413 No\r\ncontent-length: 8\r\n\r\ntoo long")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(2**20):
            pass

    with (
        listening(refuse) as listener,
        asking(at(listener)) as upstream,
        # When / Then
        pytest.raises(SourceRefused, match="413: too long"),
    ):
        upstream.request("POST", "/", bytes, json={"ids": "x" * 2**22})


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ssl.SSLContext]:
    """Returns a TLS server context for two hosts, with a CA that the environment names."""
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    sockets._tls_context.cache_clear()
    yield _server(authority, "localhost", "upstream.example.com")
    sockets._tls_context.cache_clear()


def _server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def secure(listener: Listener) -> str:
    return f"https://localhost:{listener.port}"


def test_pages_come_over_tls_and_its_connections_are_kept(trusted: ssl.SSLContext) -> None:
    # Given
    page = json.dumps({"text": "x" * 3_000_000}).encode()
    answers = [
        kept(page),
        kept(gzip.compress(page), "content-encoding: gzip"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        % (len(page), page),
    ]

    def talk(connection: socket.socket, _: int) -> None:
        for answer in answers:
            request(connection)
            connection.sendall(answer)

    with listening(talk, trusted) as listener, asking(secure(listener)) as upstream:
        # When
        found = [upstream.request("GET", "/", bytes) for _ in answers]
    # Then
    assert found == [page] * 3
    assert listener.came == 1


def test_threads_share_a_source_over_tls(trusted: ssl.SSLContext) -> None:
    # Given
    with listening(echoing, trusted) as listener, asking(secure(listener)) as upstream:

        def work(number: int) -> None:
            for turn in range(10):
                text = f"{number}/{turn} " * 5_000
                # When
                found = upstream.request("POST", "/", json.loads, json={"text": text})
                # Then
                assert found == {"text": text}

        in_threads(work)
    assert listener.came <= THREADS


def test_a_certificate_of_another_name_or_authority_is_given_nothing(
    authority: trustme.CA, trusted: ssl.SSLContext
) -> None:
    # Given
    heard: list[object] = []

    def listen(connection: socket.socket, _: int) -> None:
        heard.append(request(connection))

    others = [_server(authority, "other.example.com"), _server(trustme.CA(), "localhost")]
    for context in others:
        with (
            listening(listen, context) as listener,
            asking(secure(listener)) as upstream,
            # When / Then
            pytest.raises(SourceUnavailable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            upstream.request("GET", "/", bytes)
    assert not heard


@pytest.mark.parametrize("gulp", [0, 1, 4_096])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_peer_that_hardly_reads_ends_at_the_deadline(
    trusted: ssl.SSLContext, scheme: str, gulp: int
) -> None:
    # Given
    ended = threading.Event()

    def sip(connection: socket.socket, _: int) -> None:
        while not ended.wait(0.005):
            if gulp:
                connection.recv(gulp)

    with listening(sip, trusted if scheme == "https" else None) as listener:
        with asking(f"{scheme}://localhost:{listener.port}", timeout=0.6) as upstream:
            began = time.monotonic()
            # When
            with pytest.raises(SourceUnavailable, match="no whole answer within 1 s"):
                upstream.request("POST", "/", bytes, json={"ids": "x" * 2**24})
            # Then
            assert 0.6 <= time.monotonic() - began < 2
        ended.set()


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"])
def test_what_drips_over_tls_ends_at_the_deadline(trusted: ssl.SSLContext, start: bytes) -> None:
    # Given
    ended = threading.Event()

    def drip(connection: socket.socket, _: int) -> None:
        request(connection)
        connection.sendall(start or b"HTTP/1.1 200 OK\r\nx: ")
        while not ended.wait(0.02):
            connection.sendall(b"y")

    with listening(drip, trusted) as listener:
        with asking(secure(listener), timeout=0.6) as upstream:
            began = time.monotonic()
            # When
            with pytest.raises(SourceUnavailable, match="no whole answer within 1 s"):
                upstream.request("GET", "/", bytes)
            # Then
            assert 0.6 <= time.monotonic() - began < 2
        ended.set()


def test_a_handshake_that_does_not_come_ends_at_the_deadline() -> None:
    # Given
    ended = threading.Event()
    with listening(lambda *_: ended.wait(20)) as listener:
        with asking(secure(listener), timeout=0.4) as upstream:
            began = time.monotonic()
            # When
            with pytest.raises(SourceUnavailable, match="no whole answer within 0 s"):
                upstream.request("GET", "/", bytes)
            # Then
            assert 0.4 <= time.monotonic() - began < 2
        ended.set()


class Proxy:
    """Answers CONNECT, then forwards all bytes."""

    def __init__(self, refusal: bytes = b"") -> None:
        self.heads: list[bytes] = []
        self._refusal = refusal

    def __call__(self, connection: socket.socket, _: int) -> None:
        asked = request(connection)
        assert asked is not None
        self.heads.append(asked[0])
        if self._refusal:
            connection.sendall(self._refusal)
            return
        port = int(asked[0].split()[1].rpartition(b":")[2])
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pass_on, args=(upstream, connection))
            back.start()
            _pass_on(connection, upstream)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_a_proxy_tunnels_to_an_upstream_under_tls(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    through = Proxy()
    with listening(through) as proxy, listening(echoing, trusted) as listener:
        monkeypatch.setenv("https_proxy", f"http://ann:s%3Acret@localhost:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        text = "é" * 500_000
        with asking(f"https://upstream.example.com:{listener.port}") as upstream:
            # When
            found = [
                upstream.request("POST", "/", json.loads, json={"text": text}) for _ in range(3)
            ]
    # Then: one tunnel, and only the proxy has seen the proxy's password
    assert found == [{"text": text}] * 3
    (head,) = through.heads
    assert head.startswith(f"CONNECT upstream.example.com:{listener.port} HTTP/1.1\r\n".encode())
    token = base64.b64encode(b"ann:s:cret")
    assert b"\r\nproxy-authorization: basic " + token.lower() in head.lower()
    assert token in head
    assert b"sesame" not in head
    assert listener.came == 1


def test_a_proxy_that_refuses_is_named_and_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    through = Proxy(b"HTTP/1.1 407 no, ann:secret\r\ncontent-length: 6\r\n\r\nsecret")
    with listening(through) as proxy:
        monkeypatch.setenv("https_proxy", f"http://ann:secret@127.0.0.1:{proxy.port}")
        with (
            asking("https://api.example.com") as upstream,
            # When
            pytest.raises(SourceError) as refused,
        ):
            upstream.request("GET", "/", bytes)
    # Then
    said = "the proxy {} answered 407 Proxy Authentication Required"
    assert said.format("(address)") in str(refused.value)
    assert said.format("127.0.0.1") in str(refused.value.upstream)
    assert "secret" not in f"{refused.value} {refused.value.upstream}"


def test_a_proxy_that_speaks_first_is_not_taken_for_the_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    through = Proxy(b"HTTP/1.1 200 OK\r\n\r\n" + kept({"well": True}))
    with listening(through) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        with (
            asking("https://api.example.com") as upstream,
            # When / Then
            pytest.raises(SourceUnavailable, match="sent data in place of the upstream"),
        ):
            upstream.request("GET", "/", bytes)


def test_a_proxy_under_tls_is_not_taken_for_an_upstream_under_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setenv("HTTPS_PROXY", "https://ann:secret@proxy.example.com")
    # When
    with pytest.raises(ConfigurationError, match="begin the URL of the proxy") as refused:
        client.Upstream("https://api.example.com", {}, SystemClock())
    # Then
    assert "secret" not in str(refused.value)


def test_a_proxy_under_tls_carries_what_is_not_under_tls(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    with listening(echoing, trusted) as proxy:
        monkeypatch.setenv("http_proxy", secure(proxy))
        with asking("http://api.example.com") as upstream:
            # When
            found = upstream.request("POST", "/", json.loads, json={"n": 1})
    # Then
    assert found == {"n": 1}


def test_what_drips_through_a_tunnel_ends_at_the_deadline(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    ended = threading.Event()

    def drip(connection: socket.socket, _: int) -> None:
        request(connection)
        while not ended.wait(0.02):
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")

    with listening(Proxy()) as proxy, listening(drip, trusted) as listener:
        monkeypatch.setenv("https_proxy", f"http://localhost:{proxy.port}")
        monkeypatch.setenv("no_proxy", "")
        with asking(f"https://upstream.example.com:{listener.port}", timeout=1.0) as upstream:
            began = time.monotonic()
            # When
            with pytest.raises(SourceUnavailable, match="no whole answer within 1 s"):
                upstream.request("GET", "/", bytes)
            # Then
            assert 1.0 <= time.monotonic() - began < 3
        ended.set()


def test_a_key_that_cannot_be_sent_is_told_at_once_and_not_shown() -> None:
    # Given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with listening(echoing) as listener:
        upstream = client.Upstream(at(listener), {"x-api-key": "open\nsesame"}, SystemClock())
        # When
        with pytest.raises(SourceRefused, match="check the API key") as refused:
            upstream.request("GET", "/", bytes)
        upstream.close()
    # Then
    assert "sesame" not in str(refused.value)

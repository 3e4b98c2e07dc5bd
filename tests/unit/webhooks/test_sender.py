"""One try of one webhook, over real sockets and on the real clock, to receivers that misbehave."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from ipaddress import ip_network
from pathlib import Path

import pytest
import standardwebhooks
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.clock import FakeClock, SystemClock
from exporter.core import retry_after
from exporter.local import ports
from exporter.webhooks import sender, signatures
from exporter.webhooks.addresses import Guard, Resolver
from exporter.webhooks.sender import MAX_EXCERPT_BYTES, Outcome, Sender
from tests import fast
from tests.upstreams import reply
from tests.webhook_receiver import (
    Behaviour,
    Connection,
    Receiver,
    broken_off,
    drip,
    hang,
    huge,
    raw,
    receiving,
    redirect,
    reset,
    status,
)

pytestmark = pytest.mark.external

NAME = "hooks.example.com"
BODY = '{"type":"export.finished","timestamp":"2026-01-01T00:00:00Z","data":{"é":1}}'.encode()
OPEN = range(1, 65536)


def here(host: str, port: int) -> Sequence[str]:
    """A name server that knows only the stand-in for the internet."""
    return ["127.0.0.1"]


def to(resolver: Resolver = here) -> Guard:
    """Only 127.0.0.1 is allowed: it stands for the internet, and 127.0.0.2 for what is private."""
    return Guard(True, OPEN, [ip_network("127.0.0.1/32")], resolver)


def send(
    url: str,
    *,
    timeout: float = 10.0,
    guard: Guard | None = None,
    tls: ssl.SSLContext | None = None,
    body: bytes = BODY,
    headers: Mapping[str, str] | None = None,
) -> Outcome:
    own = Sender(guard or to(), SystemClock(), timeout=timeout, tls=tls)
    return own.send(url, headers or {}, body)


def named(receiver: Receiver, path: str = "/hooks?token=hidden") -> str:
    """The receiver's URL by a name that only our resolver knows."""
    return f"{receiver.url.partition(':')[0]}://{NAME}:{receiver.port}{path}"


def test_the_body_arrives_as_it_was_signed_at_the_checked_address_under_its_name() -> None:
    # Given
    secret = signatures.new_secret()
    headers = signatures.headers([secret], "msg_1", int(time.time()), BODY)
    with receiving(status(200, b"thanks")) as receiver:
        # When
        outcome = Sender(to(), SystemClock()).send(named(receiver), headers, BODY)
    # Then
    assert (outcome.status, outcome.delivered, outcome.error) == (200, True, None)
    assert outcome.excerpt == b"thanks"
    assert 0 < outcome.duration < 5
    (received,) = receiver.received
    assert (received.method, received.path, received.body) == ("POST", "/hooks?token=hidden", BODY)
    assert received.headers == {
        **headers,
        "content-type": "application/json",
        "content-length": str(len(BODY)),
        "host": f"{NAME}:{receiver.port}",
        "user-agent": f"exporter-webhooks/{metadata.version('allrows')}",
        "accept-encoding": "identity",
        "connection": "close",
    }
    verified = standardwebhooks.Webhook(secret).verify(received.body, received.headers)
    assert verified == json.loads(BODY)


@pytest.mark.parametrize("code", [200, 201, 202, 204, 226])
def test_every_2xx_is_a_delivery(code: int) -> None:
    # Given
    with receiving(status(code)) as receiver:
        # When
        outcome = send(receiver.url)
    # Then
    assert (outcome.status, outcome.delivered, outcome.error) == (code, True, None)


@pytest.mark.parametrize("code", [400, 401, 404, 410, 429, 500, 502, 503, 504, 599])
def test_another_status_is_told_with_what_the_receiver_said(code: int) -> None:
    # Given
    with receiving(status(code, b"no, because")) as receiver:
        # When
        outcome = send(receiver.url)
    # Then
    assert (outcome.status, outcome.delivered, outcome.excerpt) == (code, False, b"no, because")
    assert outcome.error == (
        f"http://127.0.0.1:{receiver.port} answered {code}, but only 2xx counts as delivered"
    )
    assert len(receiver.received) == 1


def test_headers_may_add_to_ours_but_not_replace_what_makes_the_request_ours() -> None:
    # Given
    theirs = {"Content-Type": "application/cloudevents+json", "Host": "evil.example",
              "Content-Length": "1", "User-Agent": "other", "X-Own": "1"}  # fmt: skip
    with receiving() as receiver:
        # When
        send(receiver.url, headers=theirs)
    # Then
    found = receiver.received[0].headers
    assert found["content-type"] == "application/cloudevents+json"
    assert found["x-own"] == "1"
    assert found["host"] == f"127.0.0.1:{receiver.port}"
    assert found["user-agent"].startswith("exporter-webhooks/")
    assert receiver.received[0].body == BODY


@pytest.mark.parametrize("code", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_that_says_where_it_pointed_and_is_not_followed(code: int) -> None:
    # Given
    with receiving() as other:
        away = f"http://user:hidden@127.0.0.1:{other.port}/new/home?token=hidden#hidden"
        with receiving(redirect(code, away)) as receiver:
            # When
            outcome = send(receiver.url)
    # Then
    assert (outcome.status, outcome.delivered) == (code, False)
    assert f"with a redirect to http://127.0.0.1:{other.port}/new/home; redirects" in str(
        outcome.error
    )
    assert "hidden" not in str(outcome.error)
    assert other.connections == 0
    assert receiver.connections == 1


def test_a_redirect_to_the_same_path_does_not_tell_the_secret_in_it() -> None:
    # Given
    with receiving(redirect(308, f"https://{NAME}/services/hidden/")) as receiver:
        # When
        outcome = send(named(receiver, "/services/hidden"))
    # Then
    assert f"with a redirect to https://{NAME}/(the same path)/;" in str(outcome.error)
    assert "hidden" not in str(outcome.error)


def test_a_name_that_moves_to_a_private_address_takes_no_webhook_there() -> None:
    # Given: the internet's receiver, and another behind the same port of a private address
    asked: list[str] = []

    def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    guard = to(rebinding)
    with receiving() as public, receiving(host="127.0.0.2", port=public.port) as private:
        # When
        first = send(named(public), guard=guard)
        looked_up = list(asked)
        second = send(named(public), guard=guard)
    # Then
    assert looked_up == [NAME]
    assert (first.status, second.status) == (204, None)
    assert f"'{NAME}' leads to an address in 127.0.0.0/8" in str(second.error)
    assert asked == [NAME, NAME]
    assert (public.connections, private.connections) == (1, 0)


def test_one_private_address_among_good_ones_keeps_the_webhook_here() -> None:
    # Given
    with receiving() as public, receiving(host="127.0.0.2", port=public.port) as private:
        # When
        outcome = send(named(public), guard=to(lambda *_: ["127.0.0.1", "127.0.0.2"]))
    # Then
    assert outcome.status is None
    assert (public.connections, private.connections) == (0, 0)


def test_a_refused_url_or_name_is_an_outcome_and_no_exception() -> None:
    # Given
    def unknown(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    # When
    refused = send("https://user:hidden@example.com/?token=hidden")
    private = send("http://127.0.0.2:9/?token=hidden")
    nameless = send(f"https://{NAME}/?token=hidden", guard=to(unknown))
    # Then
    assert (refused.status, private.status, nameless.status) == (None, None, None)
    assert "user name or password" in str(refused.error)
    assert "'127.0.0.2' leads to an address in 127.0.0.0/8" in str(private.error)
    assert "cannot be looked up: [Errno -2] Name or service not known" in str(nameless.error)
    assert "hidden" not in f"{refused} {private} {nameless}"


def test_the_next_address_is_tried_where_one_takes_no_connection() -> None:
    # Given
    guard = Guard(
        True, OPEN, [ip_network("127.0.0.0/24")], lambda *_: ["127.0.0.3", "::ffff:127.0.0.1"]
    )
    with receiving() as receiver:
        # When
        outcome = send(named(receiver), guard=guard)
    # Then
    assert outcome.status == 204


def test_an_address_that_swallows_connections_leaves_time_for_the_next() -> None:
    # Given: a queue of connections that is full, so that the kernel drops further ones
    guard = Guard(True, OPEN, [ip_network("127.0.0.0/24")], lambda *_: ["127.0.0.3", "127.0.0.1"])
    with receiving() as receiver, ExitStack() as held:
        full = held.enter_context(
            socket.create_server(("127.0.0.3", receiver.port), backlog=0)
        ).getsockname()
        for _ in range(3):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full)
        # When
        outcome = send(named(receiver), guard=guard, timeout=4)
    # Then
    assert outcome.status == 204
    assert 1.9 < outcome.duration < 4


def test_a_receiver_that_is_not_there_is_told_without_the_url() -> None:
    # Given
    port = ports.find_free(1)[0]
    # When
    outcome = send(f"http://127.0.0.1:{port}/hidden?token=hidden")
    # Then
    assert outcome.status is None
    assert f"http://127.0.0.1:{port} could not be reached" in str(outcome.error)
    assert "Connection refused" in str(outcome.error)
    assert "hidden" not in f"{outcome}"


NO_ANSWERS: dict[str, Behaviour] = {
    "a reset": reset,
    "nothing": raw(),
    "half a head": raw(b"HTTP/1.1 200 OK\r\ncontent-le"),
    "a reset in the head": broken_off(b"HTTP/1.1 200 OK\r\n"),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "our request": raw(b"POST /hooks?token=hidden HTTP/1.1\r\nwebhook-signature: hidden\r\n\r\n"),
    "a head without end": raw(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 100_000),
}


@pytest.mark.parametrize("behaviour", NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_what_is_no_answer_is_an_error_without_secrets(behaviour: Behaviour) -> None:
    # Given
    with receiving(behaviour) as receiver:
        # When
        outcome = send(named(receiver))
    # Then
    assert (outcome.status, outcome.delivered, outcome.excerpt) == (None, False, b"")
    assert f"http://{NAME}:{receiver.port} " in str(outcome.error)
    assert "hidden" not in f"{outcome}"
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("code", "delivered"), [(200, True), (500, False)], ids=["delivered", "failed"]
)
def test_a_status_counts_however_its_body_ends(code: int, delivered: bool) -> None:
    # Given
    start = reply(code, b"so far", length=10_000)
    with receiving(broken_off(start), raw(start), drip(start, b"")) as receiver:
        # When
        outcomes = [send(receiver.url, timeout=0.5) for _ in range(3)]
    # Then
    assert [outcome.status for outcome in outcomes] == [code] * 3
    assert [outcome.delivered for outcome in outcomes] == [delivered] * 3
    assert [outcome.error is None for outcome in outcomes] == [delivered] * 3
    assert [outcome.excerpt for outcome in outcomes] == [b"so far"] * 3


@pytest.mark.parametrize("size", [MAX_EXCERPT_BYTES - 1, MAX_EXCERPT_BYTES, MAX_EXCERPT_BYTES + 1])
def test_an_answer_is_kept_up_to_the_limit(size: int) -> None:
    # Given
    with receiving(huge(size=size)) as receiver:
        # When
        outcome = send(receiver.url)
    # Then
    assert outcome.excerpt == b"x" * min(size, MAX_EXCERPT_BYTES)


def test_an_answer_without_end_is_cut_off() -> None:
    # Given: the receiver's thread ends only when the connection does
    with receiving(huge(500)) as receiver:
        # When
        outcome = send(receiver.url)
    # Then
    assert (outcome.status, len(outcome.excerpt)) == (500, MAX_EXCERPT_BYTES)
    assert outcome.duration < 5


DRIPS: dict[str, tuple[Behaviour, int | None]] = {
    "nothing": (hang, None),
    "headers": (drip(b"HTTP/1.1 200 OK\r\nx: ", b"y"), None),
    "one header after the other": (drip(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"), None),
    "provisional answers": (drip(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), None),
    "a body": (drip(reply(200, b"", length=10_000), b" "), 200),
    "chunks": (drip(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"), 500),
}


@pytest.mark.parametrize(("behaviour", "code"), DRIPS.values(), ids=DRIPS)
def test_what_drips_ends_at_the_deadline(behaviour: Behaviour, code: int | None) -> None:
    # Given
    with receiving(behaviour) as receiver:
        # When
        outcome = send(named(receiver), timeout=0.5)
    # Then
    assert outcome.status == code
    assert 0.5 <= outcome.duration < 3
    assert code or outcome.error == (
        f"http://{NAME}:{receiver.port} sent no complete response within 0.5 s"
    )


@contextmanager
def sipping(gulp: int) -> Iterator[int]:
    """The port of a receiver that reads that many bytes now and then, and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ended = threading.Event()

        def sip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not ended.wait(0.005):
                    if gulp:
                        connection.recv(gulp)

        thread = threading.Thread(target=sip)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("gulp", [0, 1, 65_536])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_hardly_reads_ends_at_the_deadline(scheme: str, gulp: int) -> None:
    # Given: over TLS it never comes to the body
    with sipping(gulp) as port:
        # When
        outcome = send(f"{scheme}://127.0.0.1:{port}/", body=bytes(64 * 1024**2), timeout=0.5)
    # Then
    assert (outcome.status, outcome.delivered) == (None, False)
    assert 0.5 <= outcome.duration < 3
    assert "no complete response within 0.5 s" in str(outcome.error)


def test_the_look_up_is_within_the_deadline() -> None:
    # Given
    answering = threading.Event()

    def slow(host: str, port: int) -> Sequence[str]:
        answering.wait(10)
        return ["127.0.0.1"]

    try:
        # When
        outcome = send(f"http://{NAME}/", guard=to(slow), timeout=0.3)
    finally:
        answering.set()
    # Then
    assert 0.3 <= outcome.duration < 3
    assert f"{NAME} was not looked up within" in str(outcome.error)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("120", 120.0),
        ("119.997", 120.0),
        ("0", 0.0),
        ("Thu, 01 Jan 2026 00:00:07 GMT", 7.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("9" * 400, sender.MAX_RETRY_AFTER_SECONDS),
        ("Thu, 01 Jan 2099 00:00:00 GMT", sender.MAX_RETRY_AFTER_SECONDS),
    ],
)
def test_the_wait_that_a_receiver_asks_for_is_told(said: str, seconds: float | None) -> None:
    # Given
    with receiving(status(503, retry_after=said)) as receiver:
        # When
        outcome = Sender(to(), FakeClock()).send(receiver.url, {}, BODY)
    # Then
    assert outcome.retry_after == seconds


@given(st.text(st.characters(codec="latin-1"), max_size=40))
@settings(max_examples=fast.examples(50), deadline=None)
def test_no_retry_after_is_too_strange(text: str) -> None:
    # Given / When
    found = retry_after.read(text, FakeClock().now(), longest=sender.MAX_RETRY_AFTER_SECONDS)
    # Then
    assert found is None or 0 <= found <= sender.MAX_RETRY_AFTER_SECONDS


def test_neither_proxies_nor_passwords_nor_cookies_of_elsewhere_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password hidden\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with receiving() as proxy, receiving(status(200, set_cookie="a=b; Path=/")) as receiver:
        for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.url)
        own = Sender(to(), SystemClock())
        # When
        outcomes = [own.send(receiver.url, {}, BODY) for _ in range(2)]
    # Then
    assert [outcome.status for outcome in outcomes] == [200, 200]
    assert proxy.connections == 0
    assert receiver.connections == 2
    for received in receiver.received:
        assert not {"authorization", "cookie", "proxy-authorization"} & received.headers.keys()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _server(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def _client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_over_tls_name_and_certificate_are_those_of_the_url(authority: trustme.CA) -> None:
    # Given
    with receiving(status(200, b"sealed"), tls=_server(authority, NAME)) as receiver:
        # When
        outcome = send(named(receiver), tls=_client(authority))
    # Then
    assert (outcome.status, outcome.excerpt) == (200, b"sealed")
    assert receiver.server_names == [NAME]
    assert receiver.received[0].headers["host"] == f"{NAME}:{receiver.port}"


def test_over_tls_an_address_needs_a_certificate_of_its_own(authority: trustme.CA) -> None:
    # Given
    with receiving(tls=_server(authority, "127.0.0.1")) as receiver:
        # When
        outcome = send(receiver.url, tls=_client(authority))
    # Then
    assert outcome.status == 204


def test_a_certificate_of_another_name_or_authority_is_given_nothing(
    authority: trustme.CA,
) -> None:
    # Given
    trusted = _client(authority)
    with (
        receiving(tls=_server(authority, "other.example.com", "127.0.0.1")) as other,
        receiving(tls=_server(trustme.CA(), NAME)) as stranger,
        receiving(tls=_server(authority, NAME)) as unknown,
    ):
        # When: the last is judged by the usual authorities
        outcomes = [
            send(named(other), tls=trusted),
            send(named(stranger), tls=trusted),
            send(named(unknown)),
        ]
    # Then
    assert [outcome.status for outcome in outcomes] == [None] * 3
    assert "Hostname mismatch" in str(outcomes[0].error)
    for outcome in outcomes:
        assert "CERTIFICATE_VERIFY_FAILED" in str(outcome.error)
        assert "hidden" not in str(outcome.error)
    assert [r.received for r in (other, stranger, unknown)] == [[], [], []]


def test_a_body_that_drips_over_tls_ends_at_the_deadline(authority: trustme.CA) -> None:
    # Given
    behaviour = drip(b"HTTP/1.1 200 OK\r\nx: ", b"y")
    with receiving(behaviour, tls=_server(authority, NAME)) as receiver:
        # When
        outcome = send(named(receiver), tls=_client(authority), timeout=0.6)
    # Then
    assert outcome.status is None
    assert 0.6 <= outcome.duration < 3


def test_a_sender_serves_many_threads_at_once() -> None:
    # Given: nobody is answered before all have asked
    def together(connection: Connection) -> None:
        receiver.wait_for(8)
        connection.send(reply(200, b"together"))

    found: list[Outcome] = []
    with receiving(together) as receiver:
        own = Sender(to(), SystemClock())
        threads = [
            threading.Thread(target=lambda: found.append(own.send(receiver.url, {}, BODY)))
            for _ in range(8)
        ]
        # When
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    # Then
    assert [outcome.excerpt for outcome in found] == [b"together"] * 8

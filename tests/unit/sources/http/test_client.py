"""The HTTP client and an upstream that misbehaves, over a real socket."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest
import structlog

from exporter.clock import FakeClock
from exporter.errors import (
    REFUSED,
    UNTRUE,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUntrue,
)
from exporter.local import ports
from exporter.sources.http import client as http
from exporter.sources.http import transport
from exporter.sources.http.reactions import QUOTA_SPENT
from tests.upstreams import Answer, Reset, Upstream, reply, serving

pytestmark = pytest.mark.external

KEY = "sk/a1B2&c3+d4="
GOOD = reply(200, {"well": True}, content_type="application/json")


def read(body: bytes) -> Any:
    """Reads JSON as a source does: raises SourceUntrue for a body that is not JSON."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise SourceUntrue(f"no JSON ({error})") from None


def ask(upstream: Upstream, clock: FakeClock) -> Any:
    client = http.Upstream(upstream.url, {"x-api-key": KEY}, clock)
    try:
        return client.request("POST", "/search", read, json={"page": 1})
    finally:
        client.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_the_page_is_requested_once_with_key_and_body(clock: FakeClock) -> None:
    # Given
    with serving(GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    (asked,) = upstream.asked
    assert asked.line == "POST /search HTTP/1.1"
    assert asked.headers["x-api-key"] == KEY
    assert asked.json == {"page": 1}
    assert clock.monotonic() == 0


@pytest.mark.parametrize("body", [{}, {"page": 9}, {"page": 10}, {"title": "Ingénieur 🛠"}])
def test_a_body_of_json_is_announced_with_its_size_in_bytes(
    clock: FakeClock, body: dict[str, Any]
) -> None:
    # Given
    with serving(GOOD) as upstream:
        client = http.Upstream(upstream.url, {"x-api-key": KEY}, clock)
        # When
        for sent in ({"page": 1}, body):
            client.request("POST", "/search", read, json=sent)
        client.request("GET", "/search", read)
        client.close()
    # Then
    _, posted, got = upstream.asked
    assert posted.body.decode() == json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert list(posted.headers) == [
        *("host", "user-agent", "accept", "accept-encoding", "x-api-key"),
        *("content-length", "content-type"),
    ]
    assert posted.headers["content-length"] == str(len(posted.body))
    assert posted.headers["content-type"] == "application/json"
    assert list(got.headers) == ["host", "user-agent", "accept", "accept-encoding", "x-api-key"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 422, 501])
def test_a_refusal_is_final_and_quotes_the_upstream(clock: FakeClock, status: int) -> None:
    # Given
    body = {"detail": [{"loc": ["body", "limit"], "msg": "Limit cannot be greater than 100"}]}
    with serving(reply(status, body), GOOD) as upstream, pytest.raises(SourceRefused) as refused:
        # When
        ask(upstream, clock)
    # Then
    assert f"the source answered {status}" in str(refused.value)
    assert "Limit cannot be greater than 100" in str(refused.value)
    assert len(upstream.asked) == 1


ECHOES: dict[str, Answer] = {
    "as it is": reply(401, f"Invalid API key {KEY}: get one"),
    "as a header": reply(200, f"x-api-key: {KEY}", content_type=KEY),
    "as JSON": reply(422, {"headers": {"x-api-key": KEY}}),
    "in a URL": reply(302, f"moved to /login?key={KEY.replace('/', '%2F')}"),
    "twice escaped": reply(400, json.dumps(json.dumps(KEY)).replace("/", "\\/")),
    "in a basic authorization": reply(400, base64.b64encode(KEY.encode())),
    "as HTML": reply(400, f"<pre>{KEY.replace('&', '&amp;')}</pre>"),
    "in capitals": reply(400, KEY.upper()),
    "where the excerpt ends": reply(400, b" " * 1_190 + KEY.encode() * 2),
    "instead of an answer": f"HTTP/9 {KEY}\r\n\r\n".encode(),
    "in a body that breaks off": reply(200, KEY, length=99),
}


@pytest.mark.parametrize("answer", ECHOES.values(), ids=ECHOES)
def test_an_error_never_repeats_the_key_although_the_upstream_does(
    clock: FakeClock, answer: Answer
) -> None:
    # Given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        serving(answer) as upstream,
        structlog.testing.capture_logs() as logs,
        pytest.raises(SourceError) as refused,
    ):
        # When
        ask(upstream, clock)
    # Then
    assert len(logs) == len(upstream.asked)
    for said in (str(refused.value), str(logs)):
        assert "a1B2" not in said
        assert "A1B2" not in said
    assert "(the API k" in str(refused.value)


def test_a_password_in_the_address_is_sent_and_never_shown(clock: FakeClock) -> None:
    # Given
    with serving(reply(403, "pa55 is not for you")) as upstream:
        address = upstream.url.replace("://", "://ann:pa55@")
        client = http.Upstream(address, {}, clock)
        # When
        with pytest.raises(SourceRefused) as refused:
            client.request("GET", "/search", read)
        client.close()
    # Then
    assert "authorization" in upstream.asked[0].headers
    assert "pa55" not in str(refused.value)


def test_what_an_error_quotes_is_one_printable_line_of_bounded_length(clock: FakeClock) -> None:
    # Given
    body = b"\x1b[31mNo\r\n\x00such\x07  thing \xff" + b"x" * 10_000
    with serving(reply(404, body)) as upstream, pytest.raises(SourceRefused) as refused:
        # When
        ask(upstream, clock)
    # Then
    assert str(refused.value).isprintable()
    assert "[31mNo such thing" in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_an_upstream_that_recovers_costs_a_short_wait(clock: FakeClock, status: int) -> None:
    # Given
    with serving(reply(status, "oops"), reply(status, "oops"), GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert len(upstream.asked) == 3
    assert 0 < clock.monotonic() < 1


def test_an_upstream_that_stays_down_is_asked_a_few_times_and_may_answer_later(
    clock: FakeClock,
) -> None:
    # Given
    with (
        serving(reply(503, "deploying")) as upstream,
        pytest.raises(SourceUnavailable, match="answered 503: deploying") as silent,
    ):
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == http.MAX_TRIES
    assert silent.value.retry_after is None


def test_a_short_retry_after_is_waited_for_in_place(clock: FakeClock) -> None:
    # Given
    with serving(reply(429, retry_after="2"), GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert clock.monotonic() == 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("42", 42),
        (" 7 ", 7),
        ("119.997", 120),
        ("Thursday, 01-Jan-26 00:00:30 GMT", 30),
        ("Thu Jan  1 00:00:30 2026", 30),
        ("999999999", http.MAX_RETRY_AFTER_SECONDS),
        ("9" * 400, http.MAX_RETRY_AFTER_SECONDS),
        (format_datetime(datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC), usegmt=True), 30),
        (format_datetime(datetime(2036, 1, 1, tzinfo=UTC), usegmt=True), 300),
    ],
)
def test_a_long_retry_after_is_left_to_the_export(
    clock: FakeClock, value: str, seconds: float
) -> None:
    # Given
    with (
        serving(reply(429, retry_after=value)) as upstream,
        pytest.raises(SourceUnavailable) as silent,
    ):
        # When
        ask(upstream, clock)
    # Then: no worker sleeps, and no request is sent before the time is over
    assert silent.value.retry_after == seconds
    assert len(upstream.asked) == 1
    assert clock.monotonic() == 0


@pytest.mark.parametrize(
    "value", ["soon", "-5", "nan", "1e9", "", "Thu, 01 Jan 2026 00:00:07 +99999999999999"]
)
def test_an_invalid_retry_after_is_ignored(clock: FakeClock, value: str) -> None:
    # Given
    with serving(reply(429, retry_after=value), GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert clock.monotonic() < http.FIRST_RETRY_SECONDS


def test_the_reset_of_a_rate_limit_stands_in_for_an_absent_retry_after(clock: FakeClock) -> None:
    # Given
    with (
        serving(reply(429, x_ratelimit_reset=str(int(clock.now().timestamp()) + 42))) as upstream,
        pytest.raises(SourceUnavailable) as silent,
    ):
        # When
        ask(upstream, clock)
    # Then
    assert silent.value.retry_after == 42
    assert len(upstream.asked) == 1


def test_a_retry_after_that_echoes_the_key_is_logged_once_and_without_it(clock: FakeClock) -> None:
    # Given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with (
        serving(reply(429, retry_after=KEY)) as upstream,
        structlog.testing.capture_logs() as logs,
        pytest.raises(SourceUnavailable),
    ):
        # When
        ask(upstream, clock)
    # Then
    assert [log["event"] for log in logs].count("retry_after.unreadable") == 1
    assert KEY not in str(logs)


@pytest.mark.parametrize(
    "status", [202, 204, 302, 400, 401, 403, 404, 405, 410, 413, 422, 451, 501]
)
def test_a_retry_after_is_obeyed_whatever_the_status(clock: FakeClock, status: int) -> None:
    # Given
    with serving(reply(status, retry_after="2"), GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert clock.monotonic() == 2


@pytest.mark.parametrize("status", [202, 403, 404])
def test_a_long_retry_after_is_left_to_the_export_whatever_the_status(
    clock: FakeClock, status: int
) -> None:
    # Given
    with (
        serving(reply(status, retry_after="119.997"), GOOD) as upstream,
        pytest.raises(SourceUnavailable) as silent,
    ):
        # When
        ask(upstream, clock)
    # Then
    assert (silent.value.retry_after, silent.value.status) == (120, status)
    assert len(upstream.asked) == 1


def test_a_page_of_html_that_names_a_time_is_left_alone_until_then(clock: FakeClock) -> None:
    # Given
    with (
        serving(reply(200, "<h1>Back at two</h1>", retry_after="60"), GOOD) as upstream,
        pytest.raises(SourceUnavailable, match="Back at two") as silent,
    ):
        # When
        ask(upstream, clock)
    # Then
    assert (silent.value.retry_after, silent.value.fault) == (60, None)


def test_a_403_without_requests_left_is_a_rate_limit(clock: FakeClock) -> None:
    # Given
    with (
        serving(reply(403, x_ratelimit_remaining="0", x_ratelimit_reset="42")) as upstream,
        pytest.raises(SourceUnavailable) as silent,
    ):
        # When
        ask(upstream, clock)
    # Then
    assert silent.value.retry_after == 42
    # And: with requests left, it is a refusal
    with (
        serving(reply(403, x_ratelimit_remaining="9", x_ratelimit_reset="42")) as upstream,
        pytest.raises(SourceRefused),
    ):
        ask(upstream, clock)


def test_a_used_up_plan_is_no_rate_limit(clock: FakeClock) -> None:
    # Given
    spent = reply(429, {"detail": "plan used up"}, x_billing_code="limit_exceeded")
    with serving(spent, GOOD) as upstream, pytest.raises(SourceRefused, match="plan used up"):
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == 1


def test_a_billing_code_that_is_not_about_a_spent_plan_stops_nothing(clock: FakeClock) -> None:
    # Given: every answer has usage headers
    busy = [
        reply(429, x_billing_code="within_limit"),
        reply(503, x_billing_code="limit_exceeded"),
    ]
    with serving(*busy, GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}


def test_a_redirect_is_not_followed_and_names_to_the_operator_where_it_leads(
    clock: FakeClock,
) -> None:
    # Given
    with (
        serving(reply(301, location="https://api.example.com/search?t=1"), GOOD) as upstream,
        pytest.raises(SourceRefused, match="a redirect, which is not followed") as refused,
    ):
        # When
        ask(upstream, clock)
    # Then: the key is not sent to an address that is not configured
    assert len(upstream.asked) == 1
    assert "api.example.com" not in str(refused.value)
    host = upstream.url.removeprefix("http://")
    redirect = f"{host}, which redirects to api.example.com: correct base_url"
    assert refused.value.upstream == redirect


WHERE = "/tenant-7/search?token=t0k3n"
PLACES: dict[str, Answer] = {
    "nothing": b"",
    "no HTTP": b"220 smtp.internal at 10.0.0.7:25 ESMTP\r\n",
    "a path": reply(404, f"Cannot POST {WHERE}"),
    "a path without the base": reply(404, "no route for /search?token=t0k3n"),
    "a URL": reply(400, f'{{"next":"https:\\/\\/board.internal:8443{WHERE}"}}'),
    "a proxy's page": reply(502, "<i>nginx: http://10.0.0.7:8080/x?token=t0k3n refused</i>"),
    "the host": reply(403, "127.0.0.1 may not be asked by 10.0.0.7"),
    "a redirect": reply(302, "gone to board.internal", location=f"https://board.internal{WHERE}"),
    "a wrong redirect": reply(302, "gone", location="http://[board.internal:x/search"),
    "not JSON": reply(200, f"<h1>board.internal{WHERE}</h1>", content_type=f"x/y; at={WHERE}"),
    "a body that breaks off": reply(200, f"see http://board.internal{WHERE}", length=999),
    "a used-up plan": reply(429, "pay at https://board.internal/p", x_billing_code=QUOTA_SPENT),
    "a pause": reply(429, "http://board.internal:8443 is busy", retry_after="99"),
}


@pytest.mark.parametrize("answer", PLACES.values(), ids=PLACES)
def test_an_error_names_no_host_path_or_query_and_the_log_names_the_host(
    clock: FakeClock, answer: Answer
) -> None:
    # Given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with serving(answer) as upstream, structlog.testing.capture_logs() as logs:
        client = http.Upstream(f"{upstream.url}/tenant-7", {}, clock)
        # When
        with pytest.raises(SourceError) as failed:
            client.request("POST", "/search?token=t0k3n", read)
        client.close()
    # Then
    said = str(failed.value)
    hidden = ("127.0.0.1", "internal", "10.0.0", "8443", "tenant-7", "/search", "t0k3n", "http:")
    assert not [part for part in hidden if part in said.replace("HTTP/1", "")]
    assert said.startswith("the source ")
    assert all(str(line["upstream"]).startswith(upstream.url[7:]) for line in logs)
    assert "t0k3n" not in str(logs)


def test_a_refused_connection_may_answer_later(clock: FakeClock) -> None:
    # Given
    client = http.Upstream(f"http://127.0.0.1:{ports.find_free(1)[0]}", {}, clock)
    # When
    with pytest.raises(SourceUnavailable, match=r"did not answer: .*refused"):
        client.request("GET", "/search", read)
    # Then
    client.close()


HEAD = b"HTTP/1.1 200 OK\r\n"
PACKED = gzip.compress(b'{"well": true}' + b" " * 5_000)
SILENT: dict[str, Answer] = {
    "closed without an answer": b"",
    "reset before an answer": [Reset()],
    "no HTTP at all": b"220 smtp.example.com ESMTP\r\n",
    "two sizes": reply(200, b"{}", length=2, content_length="3"),
    "endless headers": HEAD + b"x: " + b"y" * 300_000,
}
BROKEN: dict[str, Answer] = {
    "reset in the middle of the body": [reply(200, b'{"we', length=14), Reset()],
    "body shorter than its content-length": reply(200, b'{"we', length=14),
    "chunked body cut off": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + b'{"wel\r\n',
    "chunk sizes that are none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "gzip that is none": reply(200, b"\x1f\x8b nonsense", content_encoding="gzip"),
    "gzip cut off": reply(200, PACKED[: len(PACKED) // 2], content_encoding="gzip"),
    "gzip cut off behind what looks whole": reply(200, PACKED[:-8], content_encoding="gzip"),
    "gzip whose checksum is another's": reply(
        200, PACKED[:-8] + gzip.compress(b"{}")[-8:], content_encoding="gzip"
    ),
}


@pytest.mark.parametrize("answer", [*SILENT.values(), *BROKEN.values()], ids=[*SILENT, *BROKEN])
def test_a_broken_answer_is_requested_again(clock: FakeClock, answer: Answer) -> None:
    # Given
    with serving(answer, GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("answer", SILENT.values(), ids=SILENT)
def test_an_upstream_that_stays_silent_may_answer_later(clock: FakeClock, answer: Answer) -> None:
    # Given
    with (
        serving(answer) as upstream,
        pytest.raises(SourceUnavailable, match=r"did not answer: \S+"),
    ):
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == http.MAX_TRIES


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_truncated_each_time_is_described(
    clock: FakeClock, answer: Answer
) -> None:
    # Given
    with (
        serving(answer) as upstream,
        pytest.raises(
            SourceUnavailable,
            match=r"200 \(no content type\) with .{9,}; \d+ bytes were received, beginning with: ",
        ),
    ):
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == http.MAX_TRIES


FAULTS: dict[str, tuple[Answer, str | None]] = {
    "a refusal": (reply(404, "no"), REFUSED),
    "a redirect": (reply(302, location="/"), REFUSED),
    "a spent plan": (reply(429, x_billing_code=QUOTA_SPENT), None),
    "an outage": (reply(503, "down"), None),
    "a refusal until later": (reply(404, retry_after="60"), None),
    "a web page": (reply(200, "<h1>"), UNTRUE),
    "no HTTP": (SILENT["no HTTP at all"], UNTRUE),
    "another protocol": (b"\x15\x03\x01\x00\x02\x02\x28", UNTRUE),
    "the beginning of an answer": (b"HTTP/1.1 2", None),
    "two sizes": (SILENT["two sizes"], UNTRUE),
    "no gzip": (BROKEN["gzip that is none"], UNTRUE),
    "no chunks": (BROKEN["chunk sizes that are none"], UNTRUE),
    "a body cut off": (reply(200, b'{"we', length=14), "ended after 4 bytes"),
    "a connection that ends": (b"", None),
    "a reset": ([reply(200, b'{"we', length=14), Reset()], None),
}


@pytest.mark.parametrize(("answer", "fault"), FAULTS.values(), ids=FAULTS)
def test_an_error_says_in_which_way_the_answer_was_wrong(
    clock: FakeClock, answer: Answer, fault: str | None
) -> None:
    # Given
    with serving(answer) as upstream, pytest.raises(SourceError) as error:
        # When
        ask(upstream, clock)
    # Then
    assert error.value.fault == fault


def test_the_status_of_a_failure_counts_even_if_its_body_is_truncated(clock: FakeClock) -> None:
    # Given
    with (
        serving(reply(403, b"not for y", length=50)) as upstream,
        pytest.raises(SourceRefused, match="answered 403: not for y"),
    ):
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == 1


NO_PAGES: dict[str, tuple[bytes, str]] = {
    "a maintenance page": (
        reply(200, "<html><h1>Back soon</h1>", content_type="text/html"),
        r"answered 200 \(text/html\).*<h1>Back soon",
    ),
    "nothing": (reply(200, b""), r"no content type.*\(an empty body\)"),
    "blanks": (reply(200, b" \n "), r"nothing printable"),
    "a body that ends with its connection, too early": (
        b'HTTP/1.0 200 OK\r\n\r\n{"well": tr',
        "answered 200",
    ),
    "an encoding that was not requested": (
        reply(200, b"\x0b\x02\x80", content_encoding="br"),
        r"\(content-encoding: br\); 3 bytes",
    ),
    "another charset than JSON's": (
        reply(200, '{"well": true}'.encode("utf-16-le"), content_type="application/json"),
        "answered 200",
    ),
}


@pytest.mark.parametrize(("answer", "said"), NO_PAGES.values(), ids=NO_PAGES)
def test_a_body_that_cannot_be_the_page_is_asked_for_again_and_then_described(
    clock: FakeClock, answer: bytes, said: str
) -> None:
    # Given
    with serving(answer) as upstream, pytest.raises(SourceUntrue, match=said) as untrue:
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == http.MAX_TRIES
    assert str(untrue.value).endswith(f"(at try {http.MAX_TRIES})")


def test_a_page_that_is_valid_at_the_second_try_is_accepted(clock: FakeClock) -> None:
    # Given
    with serving(reply(200, b"<html>"), GOOD) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}


CODINGS = {
    "of a charset": "UTF-8",
    "that says none": "none",
    "that says binary": "binary",
    "that says nothing": "",
    "that was not applied": "br",
    "gzip that was not applied": "gzip",
    "in capitals that was not applied": "GZIP, Identity",
}


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
@pytest.mark.parametrize("chunks", [1, 3])
def test_a_plain_page_is_read_whatever_encoding_it_declares(
    clock: FakeClock, coding: str, chunks: int
) -> None:
    # Given
    body = b'{"well": true}'
    pieces = [*(body[at : at + 1] for at in range(chunks - 1)), body[chunks - 1 :]]
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    with serving(head.encode() + chunked + b"0\r\n\r\n") as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert len(upstream.asked) == 1


PACKINGS: dict[str, tuple[bytes, str | None]] = {
    "declared": (PACKED, "gzip"),
    "declared with identity": (PACKED, "gzip, identity"),
    "declared in capitals": (PACKED, "X-GZIP"),
    "declared as something else": (PACKED, "utf-8"),
    "not declared": (PACKED, None),
    "twice, declared once": (gzip.compress(PACKED), "gzip"),
    "twice, declared twice": (gzip.compress(PACKED), "gzip, gzip"),
}


@pytest.mark.parametrize(("body", "coding"), PACKINGS.values(), ids=PACKINGS)
def test_a_compressed_page_is_read_whatever_encoding_it_declares(
    clock: FakeClock, body: bytes, coding: str | None
) -> None:
    # Given
    answer = reply(200, body) if coding is None else reply(200, body, content_encoding=coding)
    with serving(answer) as upstream:
        # When
        found = ask(upstream, clock)
    # Then
    assert found == {"well": True}
    assert upstream.asked[0].headers["accept-encoding"] == "gzip"


def test_a_page_compressed_without_end_is_refused_soon(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: gzip members without content, compressed again
    monkeypatch.setattr(transport, "MAX_LAYER_BYTES", 100_000)
    body = gzip.compress(gzip.compress(b"") * 100_000)
    with (
        serving(reply(200, body)) as upstream,
        pytest.raises(SourceUnavailable, match="compressed again"),
    ):
        # When / Then
        ask(upstream, clock)


def test_all_tries_together_end_at_the_deadline(clock: FakeClock) -> None:
    # Given: each failure is slow
    def slow_failure(_: object) -> bytes:
        clock.advance(25)
        return reply(502, "too late")

    with serving(slow_failure) as upstream, pytest.raises(SourceUnavailable):
        # When
        ask(upstream, clock)
    # Then
    assert len(upstream.asked) == 3
    assert clock.monotonic() < http.PAGE_TIMEOUT_SECONDS + 25


def test_an_unsupported_url_is_final(clock: FakeClock) -> None:
    # Given
    client = http.Upstream("ftp://127.0.0.1", {}, clock)
    # When
    with pytest.raises(SourceRefused, match="unsupported protocol"):
        client.request("GET", "/search", read)
    # Then
    client.close()

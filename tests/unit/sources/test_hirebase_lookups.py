"""Requests of the Hirebase source for single postings, expired postings and pages passed on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from exporter.clock import FakeClock, SystemClock
from exporter.core.rates import MemoryBudgets, Rate
from exporter.errors import QueryError, SourceRefused, SourceUnavailable, SourceUntrue
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from tests.upstreams import Asked, reply, serving

pytestmark = pytest.mark.external

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def source(url: str, clock: Any = None, **more: Any) -> HirebaseSource:
    config = HirebaseConfig(base_url=url, api_key="sk_live_1", **more)
    return HirebaseSource(config, clock or FakeClock())


@contextmanager
def reading(*answers: Any) -> Iterator[tuple[HirebaseSource, Any]]:
    with serving(*answers) as upstream:
        one = source(upstream.url)
        try:
            yield one, upstream
        finally:
            one.close()


class Crowd:
    """An upstream that answers concurrently, and records the highest concurrency."""

    def __init__(self, answer: Callable[[str], tuple[int, bytes]], delay: float = 0.0) -> None:
        self.answer, self.delay = answer, delay
        self.lock = threading.Lock()
        self.now = self.most = self.asked = 0

    @contextmanager
    def serving(self) -> Iterator[str]:
        crowd = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with crowd.lock:
                    crowd.asked += 1
                    crowd.now += 1
                    crowd.most = max(crowd.most, crowd.now)
                time.sleep(crowd.delay)
                status, body = crowd.answer(self.path)
                with crowd.lock:
                    crowd.now -= 1
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


# -- by id -------------------------------------------------------------------------------------


def test_at_most_max_in_flight_requests_run_at_once() -> None:
    # Given
    crowd = Crowd(lambda _: (200, b"{}"), delay=0.05)
    with crowd.serving() as url:
        one = source(url, max_in_flight=4)

        # When
        one.lookup([str(number) for number in range(24)], {})
        one.close()

    # Then
    assert crowd.most == 4
    assert crowd.asked == 24


def test_an_id_with_any_characters_is_one_segment_of_the_path() -> None:
    # Given
    with reading(reply(200, {"_id": "x"})) as (one, upstream):
        # When
        one.lookup(["../a b?c=ü"], {})

    # Then
    (asked,) = upstream.asked
    assert asked.line == "GET /v2/jobs/..%2Fa%20b%3Fc%3D%C3%BC HTTP/1.1"
    assert asked.headers["x-api-key"] == "sk_live_1"


def test_a_refused_id_fails_the_lookup_and_stops_further_requests() -> None:
    # Given
    crowd = Crowd(lambda _: (403, b'{"detail":"not in your tier"}'), delay=0.01)
    with crowd.serving() as url:
        one = source(url, max_in_flight=2)

        # When
        with pytest.raises(SourceRefused, match="not in your tier"):
            one.lookup([str(number) for number in range(100)], {})
        one.close()

    # Then
    assert crowd.asked < 50


def test_all_lookups_together_end_at_the_deadline() -> None:
    # Given
    crowd = Crowd(lambda _: (200, b"{}"), delay=0.3)
    with crowd.serving() as url:
        one = source(url, SystemClock(), max_in_flight=2, page_timeout="1s")
        begin = time.monotonic()

        # When
        with pytest.raises(SourceUnavailable):
            one.lookup([str(number) for number in range(100)], {})
        took = time.monotonic() - begin
        one.close()

    # Then
    assert took < 5


@pytest.mark.parametrize("body", [b"null", b'"x"', b"[]", b"{", b"", b"{},{}", b"{}],[{}"])
def test_an_answer_that_is_not_a_posting_is_refused(body: bytes) -> None:
    # Given
    with reading(reply(200, body)) as (one, _), pytest.raises(SourceUntrue):
        # When / Then
        one.lookup(["1"], {})


@pytest.mark.parametrize("body", [b'{"n":NaN}', b'{"t":"a\x01b"}', b' {"a": 1} \n'])
def test_odd_json_of_a_posting_is_kept_unchanged(body: bytes) -> None:
    # Given
    with reading(reply(200, body)) as (one, _):
        # When
        (row,) = one.lookup(["1"], {}).values()

    # Then
    assert bytes(row) == body.strip()


def test_a_lookup_with_a_rate_waits_between_requests_and_finishes() -> None:
    # Given
    rate = Rate(100, 60)
    clock = FakeClock()
    crowd = Crowd(lambda _: (200, b"{}"))
    with crowd.serving() as url:
        config = HirebaseConfig(base_url=url, rate=rate)
        one = HirebaseSource(config, clock, MemoryBudgets(clock).open("board", rate))

        # When
        found = one.lookup([str(number) for number in range(one.lookup_size)], {})
        one.close()

    # Then
    assert len(found) == one.lookup_size


# -- expired -----------------------------------------------------------------------------------


def test_expired_postings_are_read_page_by_page_from_their_own_path() -> None:
    # Given
    def answer(asked: Asked) -> bytes:
        page = int(asked.line.split("page=")[1].split("&")[0])
        found = [{"_id": str(number)} for number in range((page - 1) * 3, min(page * 3, 5))]
        return reply(200, {"jobs": found, "total_count": 5, "page": page, "limit": 3})

    with serving(answer) as upstream:
        one = source(upstream.url, page_size=3)
        search = one.search({"expired_since": "2026-03-01T01:00+02:00"}, NOW, user_id="u")
        cursor, rows = one.start(None, 0), []

        # When
        while cursor is not None:
            page = one.fetch(search.query, cursor)
            rows += [bytes(row) for row in page.rows]
            cursor = page.next
        one.close()

    # Then
    assert rows == [b'{"_id": "%d"}' % number for number in range(5)]
    assert upstream.asked[0].line == (
        "GET /v2/jobs/expired-jobs?since=2026-02-28T23%3A00%3A00Z&page=1&limit=3 HTTP/1.1"
    )
    assert len(upstream.asked) == 3


def test_the_number_of_expired_postings_is_the_total_of_a_page_past_the_end() -> None:
    # Given
    with reading(reply(200, {"jobs": [], "total_count": 41})) as (one, upstream):
        # When
        count = one.count({"expired_since": "2026-03-01"})

    # Then
    assert count == 41
    assert "page=1000000" in upstream.asked[0].line


@pytest.mark.parametrize(
    ("raw", "loc", "message"),
    [
        ({"expired_since": "soon"}, ("expired_since",), "not a date or time"),
        ({"expired_since": 5}, ("expired_since",), "valid string"),
        (
            {"expired_since": "2026-03-01", "job_titles": ["x"]},
            ("job_titles",),
            "known: expired_since, limit",
        ),
    ],
)
def test_each_wrong_field_of_a_search_of_expired_postings_is_named(
    raw: dict[str, Any], loc: tuple[str], message: str
) -> None:
    # When
    with pytest.raises(QueryError) as refused:
        source("http://127.0.0.1:9").search(raw, NOW, user_id="u")

    # Then
    (problem,) = refused.value.problems
    assert problem["loc"] == loc
    assert message in problem["msg"]


@pytest.mark.parametrize(
    "far",
    [reply(404), reply(422, "page too large"), reply(204), reply(200, {"jobs": ["{}"] * 3})],
    ids=["404", "422", "204", "another page"],
)
def test_the_number_of_postings_is_read_from_the_first_if_no_page_is_past_the_end(
    far: bytes,
) -> None:
    # Given
    def answer(asked: Asked) -> bytes:
        page, limit = asked.json["page"], asked.json["limit"]
        if page > 1:
            return far
        return reply(200, {"jobs": [{}] * limit, "total_count": 41})

    with reading(answer) as (one, upstream):
        # When
        count = one.count({})

    # Then
    assert count == 41
    assert upstream.asked[-1].json == {"page": 1, "limit": 1}


def test_a_search_that_the_upstream_refuses_has_no_number() -> None:
    # Given
    with (
        reading(reply(422, "industry")) as (one, _),
        pytest.raises(SourceRefused, match="industry"),
    ):
        # When / Then
        one.count({})


# -- passed on -----------------------------------------------------------------------------------


def test_a_page_that_is_passed_on_keeps_every_byte() -> None:
    # Given
    body = b'{ "jobs" : [ {"_id":"a","n":1.10} ], "total_count": 1,\n "new": [2] }'
    with reading(reply(200, body)) as (one, _):
        # When
        listing = one.listing({}, 1, 10)

    # Then
    assert (listing.body, listing.rows) == (body, 1)


def test_a_page_that_contradicts_itself_is_not_passed_on() -> None:
    # Given
    with (
        reading(reply(200, {"jobs": [], "total_count": 7})) as (one, _),
        pytest.raises(SourceUntrue),
    ):
        # When / Then
        one.listing({}, 1, 10)


@pytest.mark.parametrize(
    "ask",
    [
        lambda one: one.listing({}, 1, 10),
        lambda one: one.count({}),
        lambda one: one.posting("x"),
    ],
    ids=["listing", "count", "posting"],
)
def test_interactive_requests_end_after_seconds(
    ask: Callable[[HirebaseSource], object],
) -> None:
    # Given
    clock = FakeClock()
    with serving(reply(503)) as upstream:
        one = source(upstream.url, clock, page_timeout="5m")
        begin = clock.monotonic()

        # When
        with pytest.raises(SourceUnavailable):
            ask(one)
        one.close()

    # Then
    assert clock.monotonic() - begin < 10

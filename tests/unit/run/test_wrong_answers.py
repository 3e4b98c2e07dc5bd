"""Tests of exports whose upstream refuses a page, sends something else, or fails after its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import msgspec
import pytest

from exporter.core.exports import EndReason, Outcome, State
from exporter.errors import (
    REFUSED,
    UNTRUE,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    SourceUntrue,
)
from exporter.run.run_slice import Ending
from exporter.sources.base import Page
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from tests.harness import LIMITS, Bench, postings
from tests.upstreams import Asked, reply, serving

ROWS = postings(300)
REFUSALS = (302, 401, 404, 413)
FIRST_WAITS = [2, 4, 8, 16, 32, 60, 60]


def refusal(status: int) -> SourceError:
    error = SourceRefused(f"the source answered {status}: maintenance")
    error.status, error.fault = status, REFUSED
    return error


def spoiled(fault: str = UNTRUE) -> SourceError:
    error = SourceUnavailable(f"the source did not answer: a malformed header line {fault}")
    error.fault = fault
    return error


def interrupt(bench: Bench, at: int, *answers: Callable[[], SourceError] | None) -> None:
    """Makes the fetches of the page at row `at` fail with these errors in order.

    None is a good page; the last answer repeats.
    """
    real, asked = bench.listed.fetch, 0

    def fetch(query: object, cursor: int) -> Page:
        nonlocal asked
        if cursor != at:
            return real({}, cursor)
        answer = answers[min(asked, len(answers) - 1)]
        asked += 1
        if answer is not None:
            raise answer()
        return real({}, cursor)

    bench.listed.fetch = fetch  # type: ignore[method-assign]


def waited(bench: Bench) -> timedelta:
    return bench.export.updated_at - bench.export.created_at


@cache
def calm_file() -> bytes:
    bench = Bench(ROWS)
    bench.run()
    return bench.file()


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("times", [1, 5])
def test_a_refusal_in_the_middle_of_good_pages_costs_a_wait(status: int, times: int) -> None:
    # Given
    bench = Bench(ROWS)
    interrupt(bench, 150, *[lambda: refusal(status)] * times, None)
    # When
    endings = bench.run()
    # Then
    assert endings.count(Ending.WAITING) == times
    assert bench.file() == calm_file()
    assert waited(bench) >= timedelta(seconds=sum(FIRST_WAITS[:times]))


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_that_stays_fails_the_export_after_some_minutes_with_its_text(
    status: int,
) -> None:
    # Given
    bench = Bench(ROWS)
    interrupt(bench, 150, lambda: refusal(status))
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED
    assert bench.export.error == f"the source answered {status}: maintenance (after 150 rows)"
    assert timedelta(minutes=2) < waited(bench) < timedelta(minutes=5)
    assert bench.bucket() == []


@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_of_the_first_page_is_final_at_once(status: int) -> None:
    # Given
    bench = Bench(ROWS)
    interrupt(bench, 0, lambda: refusal(status), None)
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.FAILED]


def test_a_spent_plan_is_final_at_once_in_the_middle_too() -> None:
    # Given
    bench = Bench(ROWS)
    interrupt(bench, 150, lambda: SourceRefused("its plan is used up"), None)
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.FAILED]


@pytest.mark.parametrize("at", [0, 150])
@pytest.mark.parametrize(
    "answer", [spoiled, lambda: SourceUntrue("a web page"), lambda: spoiled("ended after 7 bytes")]
)
def test_an_answer_that_is_wrong_in_the_same_way_each_time_is_final_within_a_minute(
    at: int, answer: Callable[[], SourceError]
) -> None:
    # Given
    bench = Bench(ROWS)
    interrupt(bench, at, answer)
    # When
    endings = bench.run()
    # Then
    assert endings.count(Ending.WAITING) == 3
    assert str(answer()) in (bench.export.error or "")
    assert waited(bench) < timedelta(minutes=1)
    assert bench.bucket() == []


def test_wrong_answers_after_a_long_outage_are_counted_from_their_first() -> None:
    # Given: an hour of outages, then a web page at the first two tries
    bench = Bench(ROWS)
    away = [lambda: SourceUnavailable("503", retry_after=300)] * 12
    interrupt(bench, 150, *away, lambda: SourceUntrue("starting"), spoiled, None)
    # When
    bench.run()
    # Then
    assert bench.file() == calm_file()


def test_a_refusal_after_a_long_outage_is_not_final() -> None:
    # Given
    bench = Bench(ROWS)
    away = [lambda: SourceUnavailable("502", retry_after=300)] * 12
    interrupt(bench, 150, *away, *[lambda: refusal(404)] * 3, *away[:2], lambda: refusal(302), None)
    # When
    bench.run()
    # Then
    assert bench.file() == calm_file()


def test_answers_that_are_wrong_in_another_way_each_time_are_waited_for_with_patience() -> None:
    # Given: bodies that are cut off at another byte each time
    bench = Bench(ROWS)
    interrupt(bench, 150, *[lambda n=n: spoiled(f"ended after {n} bytes") for n in range(9)], None)
    # When
    bench.run()
    # Then
    assert bench.file() == calm_file()


def test_pages_that_contradict_each_other_fail_the_export_at_once() -> None:
    # Given: a source that says "no more" in the middle
    bench = Bench(ROWS)
    real = bench.listed.fetch

    def stops_short(query: object, cursor: int) -> Page:
        page = real({}, cursor)
        return msgspec.structs.replace(page, next=None) if cursor == 150 else page

    bench.listed.fetch = stops_short  # type: ignore[method-assign]
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.FAILED]


@pytest.mark.parametrize("partitions", [0, 4])
def test_a_refusal_in_one_partition_costs_a_wait_only(partitions: int) -> None:
    # Given: the first page of the second partition is refused twice
    limits = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=partitions)
    bench = Bench(ROWS, limits=limits, read_ahead=2)
    interrupt(bench, 80, lambda: refusal(404), lambda: refusal(302), None)
    # When
    endings = bench.run()
    # Then
    assert (Ending.CUT in endings) is bool(partitions)
    assert bench.file() == calm_file()


ENDS = (204, 400, 404, 410, 416, 422)


def numbered(bench: Bench, status: int, *, announced: int | None = None) -> list[int]:
    """Makes the source one with numbered pages that refuses the page after the last one.

    Returns the list of the requested cursors, which grows.
    """
    real, size, asked = bench.listed.fetch, len(ROWS), list[int]()

    def fetch(query: object, cursor: int) -> Page:
        asked.append(cursor)
        if cursor >= size:
            raise refusal(status)
        page = real({}, cursor)
        total = page.total if announced is None else announced
        return msgspec.structs.replace(page, next=cursor + 10, total=total)

    bench.listed.fetch = fetch  # type: ignore[method-assign]
    return asked


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("read_ahead", [0, 3])
def test_a_refused_page_after_all_announced_rows_is_the_end(status: int, read_ahead: int) -> None:
    # Given
    bench = Bench(ROWS, read_ahead=read_ahead)
    numbered(bench, status)
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.FINISHED]
    assert bench.file() == calm_file()
    assert bench.export.result is not None
    proof = bench.export.result.completeness
    assert (proof.outcome, proof.end_reason) == (Outcome.COMPLETE, EndReason.TOTAL_REACHED)
    assert (proof.total_at_start, proof.total_at_end, proof.exported) == (300, 300, 300)


@pytest.mark.parametrize("status", ENDS)
def test_one_refused_page_is_no_end_although_the_total_says_so(status: int) -> None:
    # Given: a first page with a total that is too small by mistake, then one refusal
    bench = Bench(ROWS)
    real = bench.listed.fetch
    asked: list[int] = []

    def fetch(query: object, cursor: int) -> Page:
        asked.append(cursor)
        if asked.count(10) == 1 and cursor == 10:
            raise refusal(status)
        page = real({}, cursor)
        return msgspec.structs.replace(page, total=10) if cursor == 0 else page

    bench.listed.fetch = fetch  # type: ignore[method-assign]
    # When
    bench.run()
    # Then: the list is read to its end, where the totals contradict each other
    assert len(asked) == 31
    assert bench.export.state is State.FAILED
    assert "10 at the start, 300 at the end" in (bench.export.error or "")


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("announced", [299, 301, None])
def test_a_refused_page_is_no_end_if_the_total_does_not_say_so(
    status: int, announced: int | None
) -> None:
    # Given
    bench = Bench(ROWS, announces=announced is not None)
    numbered(bench, status, announced=announced)
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED
    assert str(status) in (bench.export.error or "")
    assert bench.bucket() == []


@pytest.mark.parametrize("status", [302, 401, 403, 405, 500])
def test_another_refusal_is_no_end(status: int) -> None:
    # Given
    bench = Bench(ROWS)
    numbered(bench, status)
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED


@pytest.mark.parametrize("status", [204, 404])
def test_a_refused_first_page_is_no_empty_list(status: int) -> None:
    # Given
    bench = Bench([])
    interrupt(bench, 0, lambda: refusal(status))
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED


@pytest.mark.parametrize("offset", [0, 35, 290])
def test_the_end_of_the_last_partition_is_proven_by_the_total_too(offset: int) -> None:
    # Given
    limits = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)
    bench = Bench(ROWS, limits=limits, read_ahead=2)
    bench.memory_store.delete("e1", "u1")
    bench.spec = msgspec.structs.replace(bench.spec, id="e2", offset=offset)
    bench.memory_store.create(bench.spec)
    asked = numbered(bench, 404)
    # When
    endings = bench.run()
    # Then
    assert (Ending.CUT in endings) is (offset < 290)
    alone = Bench(ROWS[offset:])
    alone.run()
    assert bench.file() == alone.file()
    assert max(asked) >= 300


def listing(total: int, past_the_end: bytes, spoil: dict[int, list[bytes]]) -> Any:
    """Serves the search of a Hirebase upstream, and other answers for some page numbers."""

    def answer(asked: Asked) -> bytes:
        page, limit = asked.json["page"], asked.json["limit"]
        if spoil.get(page):
            return spoil[page].pop(0)
        found = range((page - 1) * limit, min(page * limit, total))
        if not found:
            return past_the_end
        jobs = [{"_id": f"j{number}"} for number in found]
        return reply(200, {"jobs": jobs, "total_count": total, "page": page, "limit": limit})

    return answer


HTML = reply(200, "<h1>Back soon</h1>", content_type="text/html")
SPOILED: dict[str, list[bytes]] = {
    "a redirect to a maintenance page": [reply(302, location="/maintenance")],
    "a key that is not known for a moment": [reply(401, {"detail": "bad key"})] * 2,
    "a route that is not there for a moment": [reply(404, "no route")] * 3,
    "a rate limit that answers 403": [reply(403, retry_after="2", x_ratelimit_remaining="0")],
    "an answer that is not ready": [reply(202, retry_after="2.5")],
    "web pages, then a redirect": [*[HTML] * 4, reply(302, location="/")],
    "a header that is none": [b"HTTP/1.1 200 OK\r\nX Note\r\n\r\n{}"] * 4,
}


@pytest.mark.external
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@pytest.mark.parametrize("end", [reply(404, "no such page"), reply(204)], ids=["404", "204"])
def test_an_upstream_with_a_bad_moment_and_no_page_after_its_last_is_exported_whole(
    spoil: list[bytes], end: bytes
) -> None:
    # Given
    bench = Bench([], format="json")
    with serving(listing(230, end, {2: list(spoil)})) as upstream:
        config = HirebaseConfig(base_url=upstream.url, page_size=50)
        bench.source = HirebaseSource(config, bench.clock)
        # When
        bench.run()
        bench.source.close()
    # Then
    assert [json.loads(line)["_id"] for line in bench.file().splitlines()] == [
        f"j{number}" for number in range(230)
    ]
    assert bench.export.result is not None
    assert bench.export.result.completeness.outcome is Outcome.COMPLETE

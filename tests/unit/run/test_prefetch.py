"""Tests of prefetched pages: order, number in flight, abandoned requests."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from exporter.core import threads
from exporter.core.exports import State
from exporter.errors import SourceRefused, SourceUnavailable
from exporter.run import prefetch
from exporter.run.run_slice import Ending
from exporter.sources.base import Page
from tests.harness import LIMITS, Bench, postings
from tests.waiting import until

AHEAD = 4


class Upstream:
    """Wraps the list of a bench: records the requests and calls `first` before each answer."""

    def __init__(self, bench: Bench, first: Callable[[int], None] = lambda _: None) -> None:
        self.asked: list[int] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._real, self._first = bench.listed.fetch, first
        bench.listed.fetch = self.fetch  # type: ignore[method-assign]

    def fetch(self, query: Mapping[str, Any], cursor: int) -> Page:
        with self._lock:
            self.asked.append(cursor)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self._first(cursor)
            return self._real(query, cursor)
        finally:
            with self._lock:
                self._at_once -= 1


def ids(bench: Bench) -> list[str]:
    return [json.loads(line)["_id"] for line in bench.file().splitlines()]


@contextmanager
def hanging(at: int) -> Iterator[tuple[Callable[[int], None], threading.Event]]:
    """Yields a function that blocks at that page until the event is set or the block ends."""
    event = threading.Event()

    def first(cursor: int) -> None:
        if cursor == at:
            assert event.wait(30)

    try:
        yield first, event
    finally:
        event.set()


def test_rows_come_in_order_whichever_page_arrives_first() -> None:
    # Given
    bench = Bench(postings(200), format="json", read_ahead=AHEAD)
    chance = random.Random(7)
    upstream = Upstream(bench, lambda _: time.sleep(chance.random() / 200))
    # When
    bench.run()
    # Then
    assert ids(bench) == [f"{n:06d}" for n in range(200)]
    assert sorted(upstream.asked) == list(range(0, 200, 10))
    assert 1 < upstream.most_at_once <= AHEAD


@pytest.mark.external
def test_the_first_page_is_asked_alone_and_then_as_many_as_may_be() -> None:
    # Given
    bench = Bench(postings(200), read_ahead=AHEAD)
    with hanging(10) as (first, event):
        upstream = Upstream(bench, first)
        at_first: list[int] = []
        real = upstream._first

        def looks(cursor: int) -> None:
            if cursor == 0:
                time.sleep(0.05)
                at_first.extend(upstream.asked)
            real(cursor)

        upstream._first = looks
        worker = threading.Thread(target=bench.run)
        # When
        worker.start()
        until(lambda: len(upstream.asked) == 1 + AHEAD)
        time.sleep(0.05)
        asked = list(upstream.asked)
        event.set()
        worker.join()
    # Then
    assert at_first == [0]
    assert sorted(asked) == [0, 10, 20, 30, 40]


@pytest.mark.parametrize(
    ("count", "limit", "pages"), [(95, None, 10), (100, None, 10), (300, 40, 4), (300, 43, 5)]
)
def test_nothing_is_asked_past_the_announced_total_nor_past_the_limit(
    count: int, limit: int | None, pages: int
) -> None:
    # Given
    bench = Bench(postings(count), limit=limit, read_ahead=64)
    upstream = Upstream(bench)
    # When
    bench.run()
    # Then
    assert sorted(upstream.asked) == list(range(0, pages * 10, 10))


def test_without_a_total_only_the_page_that_surely_comes_is_asked() -> None:
    # Given
    bench = Bench(postings(95), announces=False, read_ahead=AHEAD)
    upstream = Upstream(bench)
    # When
    bench.run()
    # Then
    assert upstream.asked == list(range(0, 100, 10))
    assert upstream.most_at_once == 1


def test_the_next_page_of_a_cursor_is_under_way_while_one_is_written() -> None:
    # Given: a store that waits for the next request when it gets the progress of the first page
    bench = Bench(postings(30), announces=False, read_ahead=1)
    second = threading.Event()
    upstream = Upstream(bench, lambda cursor: second.set() if cursor == 10 else None)
    bench.listed.predict_next = lambda _: None  # type: ignore[method-assign, assignment]
    seen: list[bool] = []
    real = bench.memory_store.renew

    def renew(*args: Any, **more: Any) -> Any:
        seen.append(second.wait(5))
        return real(*args, **more)

    bench.memory_store.renew = renew  # type: ignore[method-assign]
    bench.seconds_a_page = 1.0
    # When
    bench.run()
    # Then
    assert seen[0]
    assert upstream.asked == [0, 10, 20]


def test_what_was_fetched_by_a_cursor_that_is_not_the_next_is_thrown_away() -> None:
    # Given: an upstream that gives half of a page once, as one that had to be made smaller
    bench = Bench(postings(200), format="json", read_ahead=AHEAD)
    upstream = Upstream(bench)
    whole = upstream._real

    def halved(query: Mapping[str, Any], cursor: int) -> Page:
        page = whole(query, cursor)
        if cursor == 50:
            return msgspec.structs.replace(page, rows=page.rows[:5], next=55)
        return page

    upstream._real = halved
    # When
    bench.run()
    # Then
    assert ids(bench) == [f"{n:06d}" for n in range(200)]
    assert bench.export.result is not None
    assert bench.export.result.completeness.duplicates_removed == 0
    assert {55, 65, 195} <= set(upstream.asked)
    assert len(upstream.asked) <= 6 + 15 + AHEAD


def test_pages_that_are_large_are_not_all_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: room for two pages and a half
    bench = Bench(postings(200), read_ahead=AHEAD)
    monkeypatch.setattr(prefetch, "MAX_PREFETCHED_BYTES", 25 * len(postings(1)[0]))
    upstream = Upstream(bench, lambda _: time.sleep(0.01))
    # When
    bench.run()
    # Then
    assert upstream.most_at_once == 2


@pytest.mark.external
def test_an_error_of_a_page_ahead_surfaces_when_its_turn_comes() -> None:
    # Given: the sixth page fails at once, and those before it take their time
    bench = Bench(postings(200), read_ahead=AHEAD)

    def refuses(cursor: int) -> None:
        if cursor == 50:
            raise SourceRefused("403: not this one")
        time.sleep(0.02)

    upstream = Upstream(bench, refuses)
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED
    assert bench.export.error == "403: not this one (after 50 rows)"
    # And no later page was requested once the failure was known
    assert max(upstream.asked) <= 80


def test_an_upstream_that_is_away_costs_no_page_before_it() -> None:
    # Given
    bench = Bench(postings(200), format="json", read_ahead=AHEAD)
    failures = iter([True, True, False])

    def away(cursor: int) -> None:
        if cursor == 70 and next(failures):
            raise SourceUnavailable("503")

    upstream = Upstream(bench, away)
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.WAITING, Ending.WAITING, Ending.FINISHED]
    assert ids(bench) == [f"{n:06d}" for n in range(200)]
    assert [upstream.asked.count(page) for page in (0, 60, 70)] == [1, 1, 3]


def test_a_worker_that_shuts_down_does_not_wait_for_its_upstream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: a page that hangs
    monkeypatch.setattr(threads, "POLL_SECONDS", 0.01)
    rows = postings(200)
    calm, bench = Bench(rows), Bench(rows, read_ahead=AHEAD)
    calm.run()
    with hanging(80) as (first, event):
        upstream = Upstream(bench, first)
        bench.draining = lambda: 80 in upstream.asked
        # When
        began = time.monotonic()
        ending = bench.slice()
        took = time.monotonic() - began
        # Then
        assert ending is Ending.HANDED_OVER
        assert took < 5
        # And its answer, which comes while another worker continues, changes nothing
        upstream._first = lambda _: None
        bench.draining = lambda: False
        event.set()
        bench.run()
    assert bench.file() == calm.file()
    assert len(bench.bucket()) == 1


@pytest.mark.external
def test_a_cancel_ends_an_export_whose_upstream_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(threads, "POLL_SECONDS", 0.01)
    bench = Bench(postings(200), read_ahead=AHEAD)

    def cancels(cursor: int) -> None:
        if cursor == 80:
            bench.memory_store.request_cancel("e1", keep_record=timedelta(days=1))
            bench.clock.advance(1)
            time.sleep(1)

    Upstream(bench, cancels)
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.CANCELED]
    assert bench.bucket() == []


def test_when_its_time_is_up_a_slice_uses_what_is_under_way_and_asks_for_no_more() -> None:
    # Given: the time is up when the third page comes, and three more are under way
    limits = msgspec.structs.replace(LIMITS, slice=timedelta(seconds=10))
    bench = Bench(postings(200), format="json", read_ahead=AHEAD, limits=limits)
    late = threading.Event()

    def passes(cursor: int) -> None:
        if cursor == 20:
            until(lambda: 50 in upstream.asked)
            bench.clock.advance(11)
            late.set()
        elif cursor == 30:
            assert late.wait(20)

    upstream = Upstream(bench, passes)
    # When
    ending = bench.slice()
    # Then
    assert ending is Ending.HANDED_OVER
    assert sorted(upstream.asked) == [0, 10, 20, 30, 40, 50]
    assert bench.export.checkpoint is not None
    assert bench.export.checkpoint.rows == 60
    # When
    bench.run()
    # Then: no page was read twice
    assert sorted(upstream.asked) == list(range(0, 200, 10))
    assert ids(bench) == [f"{n:06d}" for n in range(200)]


def _cut(count: int, **options: Any) -> Bench:
    """Returns the bench of an export that was just cut into partitions of 70 rows or fewer."""
    limits = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)
    bench = Bench(postings(count), limits=limits, read_ahead=AHEAD, **options)
    assert bench.slice() is Ending.CUT
    return bench


@pytest.mark.external
@pytest.mark.parametrize("place", [0, 1])
def test_the_first_pages_of_a_partition_are_asked_together(place: int) -> None:
    # Given: a partition whose first page hangs
    bench = _cut(250)
    claims = [bench.claim() for _ in range(1 + place)]
    begins = 70 * place
    with hanging(begins) as (first, event):
        upstream = Upstream(bench, first)
        worker = threading.Thread(target=bench.slice, args=(claims[-1],))
        # When
        worker.start()
        until(lambda: len(upstream.asked) == AHEAD)
        time.sleep(0.05)
        asked = sorted(upstream.asked)
        event.set()
        worker.join()
    # Then
    assert asked == [begins, begins + 10, begins + 20, begins + 30]


@pytest.mark.parametrize("limit", [None, 190])
def test_a_cut_export_asks_for_each_page_once_and_for_none_past_its_end(limit: int | None) -> None:
    # Given
    bench = _cut(250, limit=limit, format="json")
    bench.listed.read_ahead = 64
    starts: list[int | None] = []
    real = bench.listed.start

    def start(whole: int | None, offset: int) -> int:
        starts.append(whole)
        return int(real(whole, offset))

    bench.listed.start = start  # type: ignore[method-assign, assignment]
    upstream = Upstream(bench)
    # When
    bench.run()
    # Then: the source has chosen one size for the pages of all partitions
    assert ids(bench) == [f"{n:06d}" for n in range(limit or 250)]
    assert sorted(upstream.asked) == list(range(0, limit or 250, 10))
    assert set(starts) == {limit}


def test_large_pages_of_a_partition_are_not_all_asked_for_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: room for two pages and a half
    bench = _cut(250)
    monkeypatch.setattr(prefetch, "MAX_PREFETCHED_BYTES", 25 * len(postings(1)[0]))
    upstream = Upstream(bench, lambda _: time.sleep(0.01))
    # When
    bench.slice()
    # Then
    assert upstream.most_at_once == 2


def test_after_a_failure_the_first_page_of_a_partition_is_asked_alone() -> None:
    # Given
    bench = _cut(250)

    def away(_: int) -> None:
        raise SourceUnavailable("503")

    upstream = Upstream(bench, away)
    assert bench.slice() is Ending.WAITING
    until(lambda: len(upstream.asked) == AHEAD)
    for _ in range(3):
        bench.claim()
    upstream.asked.clear()
    # When
    bench.clock.advance(3)
    bench.memory_store.sweep()
    assert bench.slice() is Ending.WAITING
    # Then
    assert upstream.asked == [0]


def test_the_first_page_of_a_partition_is_asked_alone_if_the_cut_saw_a_smaller_page() -> None:
    # Given: an upstream that gives half of its first page, as one that had to be made smaller
    limits = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)
    bench = Bench(postings(250), format="json", limits=limits, read_ahead=AHEAD)
    upstream = Upstream(bench)
    whole = upstream._real

    def halved(query: Mapping[str, Any], cursor: int) -> Page:
        page = whole(query, cursor)
        return page if cursor else msgspec.structs.replace(page, rows=page.rows[:5], next=5)

    upstream._real = halved
    assert bench.slice() is Ending.CUT
    # When
    claim = bench.claim()
    # Then
    assert claim is not None
    assert claim.export.partition is not None
    assert claim.export.partition.page_rows == 0
    # When
    bench.slice(claim)
    bench.run()
    # Then
    assert ids(bench) == [f"{n:06d}" for n in range(250)]

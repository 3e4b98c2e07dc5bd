"""Pages that are too large for an upstream are read as smaller pages, each row once."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.clock import Clock, FakeClock, SystemClock
from exporter.errors import PageTooLarge, SourceRefused, SourceUnavailable
from exporter.sources.base import Page
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from exporter.sources.http import client, numbered_pages
from exporter.sources.http.json_pages import python_reader as reader
from tests import fast
from tests.upstreams import Answer, Asked, reply, serving

pytestmark = pytest.mark.external


def source(url: str, page_size: int, clock: Clock | None = None, **more: Any) -> HirebaseSource:
    config = HirebaseConfig(base_url=url, page_size=page_size, **more)
    return HirebaseSource(config, clock or FakeClock())


def page(query: Mapping[str, Any], total: int) -> bytes:
    number, limit = query["page"], query["limit"]
    found = range((number - 1) * limit, min(number * limit, total))
    return json.dumps(
        {"jobs": list(found), "total_count": total, "page": number, "limit": limit}
    ).encode()


def upstream(total: int, most: int, failure: Answer) -> Callable[[Asked], Answer]:
    """Serves pages of at most `most` rows."""

    def answer(asked: Asked) -> Answer:
        return failure if asked.json["limit"] > most else reply(200, page(asked.json, total))

    return answer


def read(one: HirebaseSource, cursor: Any) -> tuple[list[int], list[int]]:
    """Returns all rows from the cursor on, and the page size of each cursor."""
    rows: list[int] = []
    sizes: list[int] = []
    while cursor is not None:
        cursor = json.loads(json.dumps(cursor))
        found: Page = one.fetch({}, cursor)
        rows += [json.loads(bytes(row)) for row in found.rows]
        cursor = found.next
        sizes += [cursor["size"]] if cursor else []
    return rows, sizes


TOO_LARGE = {
    "413": reply(413, "too large"),
    "504": reply(504, "gateway timeout"),
    "524": reply(524, "a timeout occurred"),
}


@pytest.mark.parametrize("failure", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_page_that_is_too_large_is_asked_for_in_smaller_pieces_at_once(failure: bytes) -> None:
    # Given
    clock = FakeClock()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with serving(upstream(230, 30, failure)) as served, structlog.testing.capture_logs() as logs:
        one = source(served.url, 100, clock)
        # When
        rows, sizes = read(one, one.start(None, 0))
        one.close()
    # Then
    assert rows == list(range(230))
    assert [asked.json["limit"] for asked in served.asked[:4]] == [100, 50, 25, 25]
    assert clock.monotonic() == 0
    # And the smaller size stays to the end
    assert set(sizes) == {25}
    assert [
        (log["size"], log["smaller"]) for log in logs if log["event"] == "source.page_shrunk"
    ] == [
        (100, 50),
        (50, 25),
    ]


def test_silence_may_mean_that_the_page_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(client, "READ_TIMEOUT_SECONDS", 0.6)

    def silent(asked: Asked) -> Iterator[bytes]:
        if asked.json["limit"] > 5:
            yield reply(200, b"{", length=100)
            time.sleep(0.7)
        else:
            yield reply(200, page(asked.json, 7))

    with serving(silent) as served:
        one = source(served.url, 10)
        # When
        found = one.fetch({}, one.start(None, 0))
        one.close()
    # Then
    assert len(found.rows) == 5
    assert [asked.json["limit"] for asked in served.asked] == [10, 5]


def test_a_page_over_the_cap_of_bytes_comes_as_smaller_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setattr(client, "MAX_PAGE_BYTES", 150)
    with serving(upstream(90, 100, b"")) as served:
        one = source(served.url, 64)
        # When
        rows, sizes = read(one, one.start(None, 0))
        one.close()
    # Then
    assert rows == list(range(90))
    assert set(sizes) == {16}


def test_a_500_that_passes_by_leaves_the_size_as_it_is() -> None:
    # Given
    failures = [reply(500, "oops")] * (client.MAX_TRIES - 1)
    with serving(*failures, upstream(8, 8, b"")) as served:
        one = source(served.url, 8)
        # When
        rows, sizes = read(one, one.start(None, 0))
        one.close()
    # Then
    assert rows == list(range(8))
    assert sizes == [8]


def test_a_500_that_stays_is_tried_with_one_smaller_size_and_no_more() -> None:
    # Given
    with serving(reply(500, "too much")) as served:
        one = source(served.url, 100)
        # When
        with pytest.raises(SourceUnavailable, match="answered 500: too much"):
            one.fetch({}, one.start(None, 0))
        one.close()
    # Then
    assert [asked.json["limit"] for asked in served.asked] == [100] * 4 + [50] * 4


def test_a_500_that_names_a_time_is_left_alone_until_then() -> None:
    # Given
    with serving(reply(500, "restarting", retry_after="60")) as served:
        one = source(served.url, 100)
        # When
        with pytest.raises(SourceUnavailable) as waits:
            one.fetch({}, one.start(None, 0))
        one.close()
    # Then
    assert waits.value.retry_after == 60
    assert len(served.asked) == 1


def test_a_page_of_one_row_cannot_shrink_and_is_refused_or_waited_for() -> None:
    # Given
    for failure, error, tries in (
        (TOO_LARGE["413"], SourceRefused, 1),
        (TOO_LARGE["504"], SourceUnavailable, client.MAX_TRIES),
    ):
        with serving(failure) as served:
            one = source(served.url, 4)
            # When
            with pytest.raises(error) as raised:
                one.fetch({}, one.start(None, 0))
            one.close()
        # Then
        assert not isinstance(raised.value, PageTooLarge)
        assert [asked.json["limit"] for asked in served.asked] == [4, 2] + [1] * tries


def test_every_size_has_its_turn_before_the_deadline() -> None:
    # Given: the upstream fails for every size
    def drip(_: Asked) -> Iterator[bytes]:
        yield reply(200, b"", length=10_000)
        while True:
            time.sleep(0.01)
            yield b" "

    with serving(drip) as served:
        one = source(served.url, 100, SystemClock(), page_timeout="1.6s")
        began = time.monotonic()
        # When
        with pytest.raises(SourceUnavailable, match="no whole answer"):
            one.fetch({}, one.start(None, 0))
        took = time.monotonic() - began
        one.close()
    # Then: the sizes got 0.8, 0.4, 0.2, 0.1 and 0.1 s
    assert [asked.json["limit"] for asked in served.asked][:4] == [100, 50, 25, 5]
    assert 1.5 < took < 2.6


class Choosy:
    """Replaces the connection; fails for some pages, according to a list of random numbers."""

    def __init__(self, total: int, dice: list[bool]) -> None:
        self.total, self.dice = total, dice
        self.billed = 0

    def deadline(self) -> float:
        return 0.0

    def request(self, method: str, path: str, read: Callable[[bytes], Page], **more: Any) -> Page:
        if more["can_shrink"] and self.dice and self.dice.pop():
            raise PageTooLarge("too large")
        body = page(more["json"], self.total)
        self.billed += len(msgspec.json.decode(body)["jobs"])
        return read(body)


@given(
    total=st.integers(0, 150),
    size=st.integers(1, 60),
    limit=st.none() | st.integers(1, 200),
    offset=st.integers(0, 60),
    dice=st.lists(st.booleans(), max_size=30),
)
@settings(max_examples=fast.examples(200), deadline=None)
def test_however_pages_shrink_each_row_comes_exactly_once(
    total: int, size: int, limit: int | None, offset: int, dice: list[bool]
) -> None:
    # Given
    one = HirebaseSource.__new__(HirebaseSource)
    choosy = Choosy(total, dice)
    one._page_size, one._read = size, reader(numbered_pages.Answer, "jobs")
    one._upstream = choosy  # type: ignore[assignment]
    start = one.start(limit, offset)
    # When
    rows, sizes = read(one, start)
    # Then
    assert rows == list(range(offset, total))
    assert sizes == sorted(sizes, reverse=True)
    # And upstream, which bills each row, sent hardly more rows
    assert choosy.billed <= len(rows) + start["skip"]

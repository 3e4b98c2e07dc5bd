"""What every Source promises, asked of each of them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest
import uvicorn

from exporter.board import app, synthetic
from exporter.clock import FakeClock
from exporter.settings import SourceConfig
from exporter.sources import registry
from exporter.sources.base import Page, Source
from exporter.sources.memory import MemorySource

ROWS = 230
"""A multiple of few page sizes below."""
KEY = "sk_test_sources"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
EVERYTHING = {"include_expired": "true"}


class Make(Protocol):
    def __call__(self, page_size: int) -> Source: ...


class Subject(NamedTuple):
    """A kind of source; no instance that `make` gives knows of another."""

    make: Make
    ids: list[str]
    """Of all its rows, in their order."""
    none: dict[str, Any]
    """A search that matches nothing, if it can search."""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a board with synthetic postings."""
    database = tmp_path_factory.mktemp("board") / "board.sqlite"
    synthetic.synthesize(database, ROWS)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app.create_app(database, [KEY]), access_log=False, log_level="error", ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(params=["memory", "hirebase"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    made: list[Source] = []
    if request.param == "memory":
        rows = [b'{"_id":"%d"}' % number for number in range(ROWS)]

        def memory(page_size: int) -> Source:
            return MemorySource(rows, page_size=page_size, columns=["_id"])

        yield Subject(memory, [str(number) for number in range(ROWS)], {})
        return

    url = request.getfixturevalue("board")

    def hirebase(page_size: int) -> Source:
        config = SourceConfig(type="hirebase", base_url=url, api_key=KEY, page_size=page_size)
        made.append(registry.make(config, FakeClock()))
        return made[-1]

    first = _all(hirebase(100), EVERYTHING)
    assert len(first) == ROWS
    yield Subject(hirebase, first, {"job_titles": ['"no such title"']})
    for source in made:
        source.close()


def ids(page: Page) -> list[str]:
    return [json.loads(bytes(row))["_id"] for row in page.rows]


def pages(
    source: Source, raw: dict[str, Any], limit: int | None = None, offset: int = 0
) -> list[Page]:
    search = source.search(raw, NOW)
    cursor, found, rows = source.start(limit, offset), [], 0
    while True:
        found.append(source.fetch(search.query, cursor))
        cursor, rows = found[-1].next, rows + len(found[-1].rows)
        if cursor is None or (limit is not None and rows >= limit):
            return found
        assert len(found) < 1_000


def _all(source: Source, raw: dict[str, Any]) -> list[str]:
    return [identity for page in pages(source, raw) for identity in ids(page)]


@pytest.mark.parametrize("page_size", [7, 100])
def test_every_row_comes_exactly_once_and_in_one_order(subject: Subject, page_size: int) -> None:
    # When
    found = _all(subject.make(page_size), EVERYTHING)
    # Then
    assert found == subject.ids
    assert len(set(found)) == ROWS


def test_the_end_is_a_page_without_a_next_cursor_and_only_that(subject: Subject) -> None:
    # When
    found = pages(subject.make(100), EVERYTHING)
    # Then
    counts = [len(page.rows) for page in found]
    assert counts[:3] == [100, 100, 30]
    # A source may ask past the end to be sure of it.
    assert counts[3:] in ([], [0])
    assert [page.next is None for page in found] == [False] * (len(found) - 1) + [True]


def test_the_last_page_may_be_full(subject: Subject) -> None:
    # When
    found = pages(subject.make(ROWS // 5), EVERYTHING)
    # Then
    assert [len(page.rows) for page in found][:5] == [ROWS // 5] * 5
    assert sum(len(page.rows) for page in found) == ROWS


def test_every_page_announces_the_rows_of_the_whole_search(subject: Subject) -> None:
    # When
    found = pages(subject.make(100), EVERYTHING)
    # Then
    assert {page.total for page in found} == {ROWS}


@pytest.mark.parametrize(("limit", "offset"), [(1, 0), (50, 0), (50, 100), (30, 217), (9, 300)])
def test_rows_from_an_offset_are_the_next_ones_up_to_the_limit(
    subject: Subject, limit: int, offset: int
) -> None:
    # When
    found: list[str] = []
    for page in pages(subject.make(20), EVERYTHING, limit, offset):
        found += ids(page)
        # Then: the total is that of the search, wherever the reading began
        assert page.total == ROWS
    assert found[:limit] == subject.ids[offset : offset + limit]


def test_a_fresh_instance_goes_on_from_a_cursor_that_was_stored_as_json(subject: Subject) -> None:
    # Given
    first = subject.make(40)
    query = first.search(EVERYTHING, NOW).query
    cursor, found = first.start(None, 0), []
    # When: another worker fetches each page
    while cursor is not None:
        stored = json.dumps([query, cursor])
        query, cursor = json.loads(stored)
        page = subject.make(40).fetch(query, cursor)
        found += ids(page)
        cursor = page.next
    # Then
    assert found == subject.ids


def test_a_cursor_asks_for_the_same_page_however_often(subject: Subject) -> None:
    # Given
    source = subject.make(40)
    query, start = source.search(EVERYTHING, NOW).query, source.start(None, 0)
    following = source.fetch(query, start).next
    # When
    once, again = source.fetch(query, following), source.fetch(query, following)
    # Then
    assert ids(once) == ids(again) == subject.ids[40:80]
    assert once.next == again.next


def test_a_page_size_changed_on_the_way_loses_nothing(subject: Subject) -> None:
    # Given: the cursor of a worker that read pages of 40
    before = subject.make(40)
    query = before.search(EVERYTHING, NOW).query
    page = before.fetch(query, before.start(None, 0))
    found = ids(page)
    # When: the operator lowers page_size
    after = subject.make(15)
    while page.next is not None:
        page = after.fetch(query, page.next)
        found += ids(page)
    # Then
    assert found == subject.ids


def test_a_search_that_matches_nothing_ends_with_its_first_page(subject: Subject) -> None:
    # Given
    if not subject.none:
        pytest.skip("it does not search")
    # When
    found = pages(subject.make(100), subject.none)
    # Then
    assert [(list(page.rows), page.next, page.total) for page in found] == [([], None, 0)]


def test_the_columns_hold_the_id_first_and_none_twice(subject: Subject) -> None:
    # When
    columns = subject.make(100).columns
    # Then
    assert columns[0] == "_id"
    assert len(set(columns)) == len(columns)


def test_rows_are_the_bytes_that_the_board_serves(board: str, tmp_path: Path) -> None:
    # Given
    kept = {posting.id: posting.json for posting in synthetic.generate(ROWS)}
    config = SourceConfig(type="hirebase", base_url=board, api_key=KEY)
    source = registry.make(config, FakeClock())
    # When
    rows = [bytes(row) for page in pages(source, EVERYTHING) for row in page.rows]
    source.close()
    # Then
    assert sorted(rows) == sorted(kept.values())

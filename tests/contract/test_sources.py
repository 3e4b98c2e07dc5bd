"""The contract of Source, checked for each kind of source."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

import pytest
import sqlalchemy as sa
import uvicorn
from _pytest.mark import ParameterSet

from exporter.board import app, database, hostile
from exporter.clock import FakeClock
from exporter.core.checkpoints import Row
from exporter.sources import registry
from exporter.sources.base import Page, Source
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.sql.config import SqlConfig
from tests.rows_source import RowsConfig

ROWS = 230
"""Number of rows; a multiple of only a few of the page sizes below."""
KEY = "sk_test_sources"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
POSTINGS = list(
    islice((one for one in hostile.generate(2 * ROWS) if not one.columns.expired), ROWS)
)
"""Postings of the board, none expired: not every contract can search both kinds at once."""


class Make(Protocol):
    def __call__(self, page_size: int) -> Source: ...


class Subject(NamedTuple):
    """A kind of source; the instances that `make` returns share no state."""

    make: Make
    ids: list[str]
    """Ids of all rows, in order."""
    none: dict[str, Any] | None
    """A search that matches nothing; None if the source cannot search."""
    unknown: str
    """A well-formed id that no row has."""
    field: str = "_id"
    """The field of a row that holds its id."""
    announces: bool = True
    """Whether the source announces the number of rows."""
    owned: bool = False
    """Whether rows have owners, so that a lookup needs the owner as well."""

    def id_of(self, row: Row) -> str:
        return str(json.loads(bytes(row))[self.field])

    def read(self, found: Iterable[Page]) -> list[str]:
        return [self.id_of(row) for page in found for row in page.rows]

    def look_up(self, source: Source, ids: list[str]) -> Mapping[str, Row]:
        return source.lookup(ids, source.search({}, NOW, user_id="u1").query)

    def total(self) -> int | None:
        return ROWS if self.announces else None


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields the URL of a board with POSTINGS."""
    folder = tmp_path_factory.mktemp("board")
    (folder / "postings.jsonl").write_bytes(b"\n".join(posting.json for posting in POSTINGS))
    database.load(folder / "board.sqlite", folder / "postings.jsonl")
    served = app.create_app(folder / "board.sqlite", [KEY], bindbee_rate=1_000_000)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(served, access_log=False, log_level="error", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


_UPSTREAMS: dict[str, dict[str, Any]] = {
    "hirebase": {"none": {"job_titles": ['"no such title"']}, "unknown": "f" * 24},
    "qwestly": {"none": {"search": "xyzzy"}, "unknown": "f" * 24},
    "bindbee": {
        "none": {"status": "DRAFT"},
        "unknown": "ffffffff-ffff-5fff-bfff-ffffffffffff",
        "field": "id",
        "announces": False,
    },
    "coresignal": {"none": {"title": "xyzzy"}, "unknown": "999", "field": "id"},
}


_TABLES = {"sqlite": "sqlite_url", "postgres": "filled_postgres_url"}


@pytest.fixture(scope="module")
def sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Returns the URL of a table with ROWS rows each of u1 and u2."""
    url = f"sqlite:///{tmp_path_factory.mktemp('sql') / 'rows.sqlite'}"
    _fill(url, "TEXT")
    return url


@pytest.fixture(scope="module")
def filled_postgres_url(postgres_url: str) -> str:
    """Returns the URL of the same table in PostgreSQL, with UUID keys."""
    _fill(postgres_url.replace("postgresql:", "postgresql+psycopg:"), "UUID")
    return postgres_url


def _fill(url: str, key: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS jobs")
        connection.exec_driver_sql(
            f"CREATE TABLE jobs (id {key} PRIMARY KEY, user_id TEXT, status TEXT)"
        )
        connection.execute(
            sa.text(f"INSERT INTO jobs VALUES (CAST(:id AS {key}), :user, 'saved')"),
            [{"id": _uuid(n), "user": "u1" if n < ROWS else "u2"} for n in range(2 * ROWS)],
        )
    engine.dispose()


def _uuid(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def _external(name: str) -> ParameterSet:
    return pytest.param(name, marks=pytest.mark.external)


@pytest.fixture(
    params=[
        *("rows", "sqlite", _external("postgres")),
        *(_external(name) for name in registry.TYPES if name != "sql"),
    ]
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with ExitStack() as opened:
        if request.param == "rows":
            rows = tuple({"_id": str(number)} for number in range(ROWS))

            def listed(page_size: int) -> Source:
                return RowsConfig(rows=rows, page_size=page_size).make(FakeClock())

            yield Subject(listed, [str(number) for number in range(ROWS)], None, unknown="999")
            return

        if request.param in _TABLES:
            url = request.getfixturevalue(_TABLES[request.param])

            def table(page_size: int) -> Source:
                config = SqlConfig(url=url, page_size=page_size, columns=("id",))
                return opened.enter_context(closing(config.make(FakeClock())))

            own = sorted(_uuid(number) for number in range(ROWS))
            none = {"status": "offer"}
            yield Subject(table, own, none, unknown=_uuid(-1), field="id", owned=True)
            return

        url = request.getfixturevalue("board")
        url += "/cdapi" if request.param == "coresignal" else ""
        token: dict[str, Any] = {"connector_token": KEY} if request.param == "bindbee" else {}

        def upstream(page_size: int) -> Source:
            settings = {"base_url": url, "api_key": KEY, "page_size": page_size, **token}
            config = registry.TYPES[request.param].model_validate(settings)
            return opened.enter_context(closing(config.make(FakeClock())))

        known = Subject(upstream, [], **_UPSTREAMS[request.param])
        yield known._replace(ids=known.read(pages(upstream(100))))


def pages(
    source: Source,
    raw: dict[str, Any] | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[Page]:
    search = source.search(raw or {}, NOW, user_id="u1")
    cursor, found, rows = source.start(limit, offset), [], 0
    while True:
        found.append(source.fetch(search.query, cursor))
        cursor, rows = found[-1].next, rows + len(found[-1].rows)
        if cursor is None or (limit is not None and rows >= limit):
            return found
        assert len(found) < 1_000


@pytest.mark.parametrize("page_size", [7, 100])
def test_every_row_comes_exactly_once_and_in_one_order(subject: Subject, page_size: int) -> None:
    # When
    found = subject.read(pages(subject.make(page_size)))
    # Then
    assert found == subject.ids
    assert len(set(found)) == ROWS


def test_the_end_is_a_page_without_a_next_cursor_and_only_that(subject: Subject) -> None:
    # When
    found = pages(subject.make(100))
    # Then
    counts = [len(page.rows) for page in found]
    assert counts[:3] == [100, 100, 30]
    # A source may fetch a page past the end to prove the end.
    assert counts[3:] in ([], [0])
    assert [page.next is None for page in found] == [False] * (len(found) - 1) + [True]


def test_the_last_page_may_be_full(subject: Subject) -> None:
    # When
    found = pages(subject.make(ROWS // 5))
    # Then
    assert [len(page.rows) for page in found][:5] == [ROWS // 5] * 5
    assert sum(len(page.rows) for page in found) == ROWS


def test_every_page_announces_the_rows_of_the_whole_search(subject: Subject) -> None:
    # When
    found = pages(subject.make(100))
    # Then
    assert {page.total for page in found} == {subject.total()}


@pytest.mark.parametrize(("limit", "offset"), [(1, 0), (50, 0), (50, 100), (30, 217), (9, 300)])
def test_rows_from_an_offset_are_the_next_ones_up_to_the_limit(
    subject: Subject, limit: int, offset: int
) -> None:
    # When
    found: list[str] = []
    for page in pages(subject.make(20), limit=limit, offset=offset):
        found += subject.read([page])
        # Then: the total is that of the search, at any offset
        assert page.total == subject.total()
    assert found[:limit] == subject.ids[offset : offset + limit]


def test_a_new_instance_continues_from_a_cursor_that_was_stored_as_json(subject: Subject) -> None:
    # Given
    first = subject.make(40)
    query = first.search({}, NOW, user_id="u1").query
    cursor, found = first.start(None, 0), []
    # When: another worker fetches each page
    while cursor is not None:
        stored = json.dumps([query, cursor])
        query, cursor = json.loads(stored)
        page = subject.make(40).fetch(query, cursor)
        found += subject.read([page])
        cursor = page.next
    # Then
    assert found == subject.ids


def test_a_cursor_asks_for_the_same_page_however_often(subject: Subject) -> None:
    # Given
    source = subject.make(40)
    query, start = source.search({}, NOW, user_id="u1").query, source.start(None, 0)
    following = source.fetch(query, start).next
    # When
    once, again = source.fetch(query, following), source.fetch(query, following)
    # Then
    assert subject.read([once]) == subject.read([again]) == subject.ids[40:80]
    assert once.next == again.next


def test_a_page_size_changed_on_the_way_loses_nothing(subject: Subject) -> None:
    # Given: the cursor of a worker that read pages of 40
    before = subject.make(40)
    query = before.search({}, NOW, user_id="u1").query
    page = before.fetch(query, before.start(None, 0))
    found = subject.read([page])
    # When: the operator lowers page_size
    after = subject.make(15)
    while page.next is not None:
        page = after.fetch(query, page.next)
        found += subject.read([page])
    # Then
    assert found == subject.ids


@pytest.mark.parametrize("offset", [0, 15])
def test_a_predicted_cursor_is_the_next_cursor_of_the_page(subject: Subject, offset: int) -> None:
    # Given
    source = subject.make(20)
    query = source.search({}, NOW, user_id="u1").query
    cursor, known, named = source.start(None, offset), 0, 0
    # When
    while cursor is not None:
        ahead, page = source.predict_next(cursor), source.fetch(query, cursor)
        # Then: the prediction may be wrong only if the page is the last
        assert ahead is None or page.next in (ahead, None)
        known += ahead is not None and page.next is not None
        named += page.next is not None
        cursor = page.next
    # And all cursors are predicted, or none
    assert known in (0, named)


def test_a_search_that_matches_nothing_ends_with_its_first_page(subject: Subject) -> None:
    # Given
    if subject.none is None:
        pytest.skip("this source cannot search")
    # When
    found = pages(subject.make(100), subject.none)
    # Then
    assert [(list(page.rows), page.next, page.total) for page in found] == [
        ([], None, 0 if subject.announces else None)
    ]


def test_the_columns_hold_the_id_first_and_none_twice(subject: Subject) -> None:
    # When
    columns = subject.make(100).columns
    # Then
    assert columns[0] == subject.field
    assert len(set(columns)) == len(columns)


def test_a_count_is_the_number_of_rows_if_the_source_announces_it(subject: Subject) -> None:
    # Given
    source = subject.make(100)
    query = source.search({}, NOW, user_id="u1").query
    # When
    counted = source.count(query)
    # Then
    assert counted == subject.total()


def test_postings_are_looked_up_by_id_and_unknown_ids_are_left_out(subject: Subject) -> None:
    # Given: ids from both ends, and ids that no posting has
    source = subject.make(100)
    wanted = [subject.unknown, *subject.ids[:3], "no id at all", subject.ids[-1]]
    # When
    found = subject.look_up(source, wanted)
    # Then
    assert len(wanted) <= source.lookup_size
    known = [*subject.ids[:3], subject.ids[-1]]
    assert {id_: subject.id_of(row) for id_, row in found.items()} == {id_: id_ for id_ in known}


def test_a_looked_up_posting_is_the_one_that_a_page_holds(subject: Subject) -> None:
    # Given
    source = subject.make(100)
    rows = {subject.id_of(row): bytes(row) for row in pages(source)[0].rows}
    wanted = list(rows)[: source.lookup_size]
    # When
    found = subject.look_up(source, wanted)
    # Then
    assert {id_: bytes(row) for id_, row in found.items()} == {id_: rows[id_] for id_ in wanted}


@pytest.mark.external
def test_rows_are_the_bytes_that_the_board_serves(board: str) -> None:
    # Given
    config = HirebaseConfig(base_url=board, api_key=KEY)
    # When
    with closing(config.make(FakeClock())) as source:
        rows = [bytes(row) for page in pages(source) for row in page.rows]
    # Then
    assert sorted(rows) == sorted(posting.json for posting in POSTINGS)

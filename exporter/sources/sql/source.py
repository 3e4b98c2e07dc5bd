"""A source that reads the postings of one owner from a SQL table shared by many users."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
import sqlalchemy as sa

from exporter.clock import Clock
from exporter.contracts import timestamps
from exporter.contracts.pipeline import COLUMNS, SOURCES, STATUSES
from exporter.core import rates
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget
from exporter.errors import (
    FieldProblem,
    QueryError,
    SourceUnavailable,
    SourceUntrue,
    problem,
)
from exporter.sources.base import Page, Search
from exporter.sources.sql import database as sql_database
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.database import Database
from exporter.sources.sql.table import Key, Table


class _Cursor(msgspec.Struct, omit_defaults=True):
    size: int
    skip: int = 0
    """Number of rows before the first page that the caller's offset skips."""
    after: Key | None = None
    """The key of the last row read; None before the first page."""
    last: Key | None = None
    """The highest key in the table when the first page was read; later keys are not exported."""
    total: int = 0
    """Number of rows that matched when the first page was read."""
    read: int = 0
    """Number of rows that were read or skipped so far."""


class SqlSource:
    """Reads each row of one owner exactly once, by keyset pagination.

    Configured by `[sources.NAME]` with type "sql". The guarantee holds for rows that exist during
    the whole export, however the table changes. A row that is added or deleted meanwhile may or may
    not be in the file; the totals at start and end show the difference. A row with a key above the
    highest key at the start is left for the next export. A row whose `deleted_at` is set counts as
    deleted. The canonical search contains the owner, so on every surface a user reads only their
    own rows.

    An index on owner and key, with `WHERE deleted_at IS NULL`, makes the statements fast.
    """

    identity: str | None = None
    lookup_size = 1_000
    read_ahead = 1

    def __init__(self, config: SqlConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.names or COLUMNS
        # Keyset pagination loses no row to changes, so drift fails an export only if configured.
        strict = "tolerated_drift" in config.model_fields_set
        self.tolerated_drift = config.tolerated_drift if strict else float("inf")
        self._page_size = config.page_size
        self._clock = clock
        self._budget = budget
        self._database = Database(config.url)
        self._table = Table(self._database, config)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Validates the filters and returns their canonical form; all filters are optional.

        `status` and `source` accept one value of the contract or a list of such values. `from`
        (inclusive) and `to` (exclusive) bound `created_at`, so consecutive windows cover each row
        exactly once. Each of the two is a time, or a date, which means its first moment in UTC. The
        pipeline contract mentions filters but does not name them; this source has chosen these
        names.
        """
        echo = _filters(raw)
        return Search(query={"user_id": user_id, **echo}, echo=echo)

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def start(self, limit: int | None, offset: int) -> Cursor:
        size = self._page_size
        if limit is not None:
            size = -(-limit // -(-limit // size))
        return msgspec.to_builtins(_Cursor(size=size, skip=offset))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page at `cursor`.

        The page announces as total the number of rows that matched when the first page was read, or
        the number of rows read so far if that is higher. The last page announces the number of rows
        read.
        """
        at = msgspec.convert(cursor, _Cursor)
        first = at.after is None
        rates.acquire(self._budget, self._clock)
        shape = self._table.shape(self.columns)
        with self._reading() as connection:
            if first:
                at.total = self._table.count(connection, query)
                at.read = min(at.skip, at.total)
                at.last = self._table.last_key(connection, query)
            rows, after = self._table.page(
                connection,
                shape,
                query,
                size=at.size,
                after=at.after,
                last=at.last,
                skip=at.skip if first else 0,
            )
        read = at.read + len(rows)
        if after is None:
            return Page(rows=rows, next=None, total=at.total if first else read)
        following = _Cursor(size=at.size, after=after, last=at.last, total=at.total, read=read)
        return Page(rows=rows, next=msgspec.to_builtins(following), total=max(at.total, read))

    def predict_next(self, cursor: Cursor) -> Cursor | None:  # noqa: ARG002
        """Returns None, because the last key of a page is known only when it was read."""
        return None

    def count(self, query: Mapping[str, Any]) -> int:
        """Returns the number of rows that match now."""
        rates.acquire(self._budget, self._clock)
        with self._reading() as connection:
            return self._table.count(connection, query)

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:
        """Returns the owner's rows with these ids, by id, with one statement."""
        rates.acquire(self._budget, self._clock)
        shape = self._table.shape(self.columns)
        with self._reading() as connection:
            return self._table.lookup(connection, shape, query, ids)

    def snapshot(self, query: Mapping[str, Any], columns: Sequence[str]) -> Snapshot:
        """Returns a context manager that reads all rows matching the query, with these columns.

        All rows are read as they are in the table when the context manager is entered.
        """
        return Snapshot(self._database, self._table, query, columns, self._page_size)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """Yields a connection, whose statements are recorded as one request to the source."""
        began, status = self._clock.monotonic(), None
        try:
            with self._database.reading() as connection:
                yield connection
            status = 200
        finally:
            self._budget.record(self._clock.monotonic() - began, status)


class Snapshot:
    """Reads the rows of one query, page by page, as they were at one moment.

    A context manager that can be entered once; that moment is its entry. At most one page is in
    memory. The methods may be called from different threads, but only one at a time; `interrupt`
    may be called at any time. Raises the same errors as `SqlSource.fetch`, at the latest on exit.
    """

    def __init__(
        self,
        database: Database,
        table: Table,
        query: Mapping[str, Any],
        columns: Sequence[str],
        page_size: int,
    ) -> None:
        self.total = 0
        """Number of rows that match the query; set when the context manager is entered."""
        self._database = database
        self._table = table
        self._query = query
        self._columns = columns
        self._page_size = page_size
        self._lock = threading.Lock()
        self._connection: sa.Connection | None = None
        self._interrupted = False

    def __enter__(self) -> Self:
        self._shape = self._table.shape(self._columns)
        with ExitStack() as held:
            connection = held.enter_context(self._database.reading())
            # Runs before the connection returns to the pool, where `interrupt` must not reach it.
            held.callback(self._forget)
            with self._lock:
                self._connection = connection
                if self._interrupted:
                    raise SourceUnavailable("interrupted before it began")
            self.total = self._table.count(connection, self._query)
            self._held = held.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.__exit__(kind, error, trace)

    def pages(self) -> Iterator[Sequence[Row]]:
        """Yields all rows in pages.

        Raises SourceUntrue after the last page if the number of rows differs from `total`.
        """
        assert self._connection is not None
        read, after = 0, None
        while True:
            rows, after = self._table.page(
                self._connection, self._shape, self._query, size=self._page_size, after=after
            )
            read += len(rows)
            yield rows
            if after is None:
                break
        if read != self.total:
            raise SourceUntrue(f"the table returned {read} rows after a count of {self.total}")

    def interrupt(self) -> None:
        """Cancels the statement that another thread is running, which then raises an error there.

        If no statement runs, the next statement may fail instead; if the context manager is not yet
        entered, its entry fails.
        """
        with self._lock:
            self._interrupted = True
            if self._connection is not None:
                sql_database.interrupt(self._connection)

    def _forget(self) -> None:
        with self._lock:
            self._connection = None


def _filters(raw: Mapping[str, Any]) -> dict[str, Any]:
    problems: list[FieldProblem] = []
    found: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in _FILTER_READERS:
            problems.append(
                problem((name,), f"unknown filter; known: {', '.join(_FILTER_READERS)}")
            )
        elif value is not None:
            try:
                found[name] = _FILTER_READERS[name](value)
            except ValueError as error:
                problems.append(problem((name,), str(error)))
    if "from" in found and "to" in found and found["from"] >= found["to"]:
        text = (
            f"`to` must be later than `from`, but {found['to']} is not later than {found['from']}"
        )
        problems.append(problem(("to",), text))
    if problems:
        raise QueryError(problems)
    return {name: found[name] for name in _FILTER_READERS if name in found}


def _among(known: Sequence[str]) -> Callable[[Any], list[str]]:
    def read(value: Any) -> list[str]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list) or not given:
            raise ValueError(f"must be one value or a list of values; known: {', '.join(known)}")
        for one in given:
            if one not in known:
                raise ValueError(f"unknown value {str(one)[:100]!r}; known: {', '.join(known)}")
        return sorted(set(given))

    return read


def _moment(value: Any) -> str:
    return timestamps.sortable(timestamps.parse(value if isinstance(value, str) else repr(value)))


_FILTER_READERS: Mapping[str, Callable[[Any], Any]] = {
    "from": _moment,
    "to": _moment,
    "status": _among(STATUSES),
    "source": _among(SOURCES),
}
"""For each filter, the function that validates its value and returns the canonical value."""

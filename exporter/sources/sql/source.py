"""Reading postings from a table that holds those of many users."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import msgspec
import sqlalchemy as sa

from exporter.clock import Clock
from exporter.config import SqlConfig
from exporter.contracts.pipeline import COLUMNS, SOURCES, STATUSES
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import MAX_SLEEP_SECONDS, UNLIMITED, Budget
from exporter.errors import (
    FieldProblem,
    QueryError,
    SourceUnavailable,
    SourceUntrue,
    StoreUnavailable,
)
from exporter.sources.base import Page, Search
from exporter.sources.sql import database as sql_database
from exporter.sources.sql.database import Database
from exporter.sources.sql.table import Key, Table


class _Cursor(msgspec.Struct, omit_defaults=True):
    size: int
    skip: int = 0
    """Rows passed over before the first page."""
    after: Key | None = None
    """The key of the last row given; None before the first page."""
    last: Key | None = None
    """The highest key when the reading began."""
    total: int = 0
    """Rows that matched when the reading began."""
    read: int = 0
    """Rows given or passed over so far."""


class SqlSource:
    """Each row of the owner's that is there throughout the reading comes exactly once:
    `[sources.NAME]` with type "sql".

    Rows are read in the order of their key, so none is missed or doubled however the table changes
    meanwhile. Of rows that come or go, some may be in the file: the totals at start and end show
    it. One with a key above the highest at the start is left for the next export. A row whose
    `deleted_at` is set is not there. The canonical search holds the owner, so nobody reads
    another's rows, whichever surface they come by.

    An index on owner and key, `WHERE deleted_at IS NULL`, makes all of it quick.
    """

    identity: str | None = None
    lookup_size = 1_000
    read_ahead = 1

    def __init__(self, config: SqlConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.columns or COLUMNS
        # Reading by key loses nothing to changes, so they fail an export only if that was asked.
        strict = "tolerated_drift" in config.model_fields_set
        self.tolerated_drift = config.tolerated_drift if strict else float("inf")
        self._page_size = config.page_size
        self._clock = clock
        self._budget = budget
        self._database = Database(config.url)
        self._table = Table(self._database, config)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """The filters made canonical, all optional: `status` and `source`, one or a list of the
        contract's words; `from` and `to`, of `created_at`, the first included and the second not,
        each a time or a date, which is its first moment in UTC. So windows that follow each other
        share no row and leave none out.

        The contract plans filters and names none; these names are ours.
        """
        echo = _filters(raw)
        return Search(query={"user_id": user_id, **echo}, echo=echo)

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Pages of equal size that together just cover the limit."""
        size = self._page_size
        if limit is not None:
            size = -(-limit // -(-limit // size))
        return msgspec.to_builtins(_Cursor(size=size, skip=offset))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """The page. It announces as many rows as matched when the reading began; the last page, as
        many as there were in the end."""
        at = msgspec.convert(cursor, _Cursor)
        first = at.after is None
        self._wait_for_budget()
        shape = self._table.shape(self.columns)
        with self._database.reading() as connection:
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
        """None: only a page tells its last key."""
        return None

    def count(self, query: Mapping[str, Any]) -> int:
        """The rows that match now."""
        self._wait_for_budget()
        with self._database.reading() as connection:
            return self._table.count(connection, query)

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:
        """The owner's rows with these keys, in one statement."""
        self._wait_for_budget()
        shape = self._table.shape(self.columns)
        with self._database.reading() as connection:
            return self._table.lookup(connection, shape, query, ids)

    def snapshot(self, query: Mapping[str, Any], columns: Sequence[str]) -> Snapshot:
        """All rows that match, as they stand when it is entered."""
        return Snapshot(self._database, self._table, query, columns, self._page_size)

    def close(self) -> None:
        self._database.close()

    def _wait_for_budget(self) -> None:
        """Sleep until the budget lets a statement start. Raises SourceUnavailable if that is
        long."""
        try:
            wait = self._budget.reserve()
        except StoreUnavailable as error:
            raise SourceUnavailable(f"the rate budget cannot be read: {error}") from None
        if wait > MAX_SLEEP_SECONDS:
            text = f"the source's rate is used up for {wait:.1f} s"
            raise SourceUnavailable(text, retry_after=wait)
        if wait > 0:
            self._clock.sleep(wait)


class Snapshot:
    """The rows of one query as they stood at one moment, in bounded memory.

    A context manager, entered once; its steps may run in different threads, one at a time. Raises
    as `SqlSource.fetch` does, at the latest when it is left.
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
        """How many rows there are; known once entered."""
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
            # Before it goes back to the pool, where it is another's to interrupt.
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
        """All rows. Raises SourceUntrue instead of an end if they were not as many as counted."""
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
            raise SourceUntrue(f"the table gave {read} rows after it had counted {self.total}")

    def interrupt(self) -> None:
        """Make the step that another thread takes, or the next one, fail soon."""
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
            problems.append(_problem(name, f"unknown filter; known: {', '.join(_FILTER_READERS)}"))
        elif value is not None:
            try:
                found[name] = _FILTER_READERS[name](value)
            except ValueError as error:
                problems.append(_problem(name, str(error)))
    if "from" in found and "to" in found and found["from"] >= found["to"]:
        text = f"{found['to']} is not later than `from`, {found['from']}: no row is between them"
        problems.append(_problem("to", text))
    if problems:
        raise QueryError(problems)
    return {name: found[name] for name in _FILTER_READERS if name in found}


def _problem(name: str, text: str) -> FieldProblem:
    return {"loc": (name,), "msg": text, "type": "value_error"}


def _among(known: Sequence[str]) -> Callable[[Any], list[str]]:
    def read(value: Any) -> list[str]:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list) or not given:
            raise ValueError(f"give one or a list of {', '.join(known)}")
        for one in given:
            if one not in known:
                raise ValueError(f"unknown value {str(one)[:100]!r}; known: {', '.join(known)}")
        return sorted(set(given))

    return read


def _moment(value: Any) -> str:
    try:
        moment = datetime.fromisoformat(value)
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{str(value)[:100]!r} is no date and no time: write 2026-03-01 or 2026-03-01T12:00:00Z"
        ) from None
    # With all digits, so that texts compare as their times do.
    return aware.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


_FILTER_READERS: Mapping[str, Callable[[Any], Any]] = {
    "from": _moment,
    "to": _moment,
    "status": _among(STATUSES),
    "source": _among(SOURCES),
}
"""The filters, and what reads each."""

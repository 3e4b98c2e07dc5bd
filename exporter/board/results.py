"""Finds the pages of searches: the matching postings, their order and their JSON texts."""

from __future__ import annotations

import json
import sqlite3
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from exporter.board import database, postings
from exporter.board import search as searches
from exporter.contracts import hirebase
from exporter.core import canonical

_MAX_CACHED_NUMBERS = 16_000_000
"""Maximum posting numbers in the cache of searches: 8 bytes each, 128 MB in total."""
_ORDERS = {
    "relevance": "number",
    "date_posted": "posted",
    "salary": "coalesce(salary_max, salary_min, -1)",
    "company": "company",
    "yoe": "coalesce(yoe_min, yoe_max, -1)",
}
_EXPIRED = (
    "(SELECT number, id, moment FROM postings JOIN expiries USING (number)"
    " UNION ALL SELECT number, id, moment FROM removed)"
)
_LABELS = {
    "industries": "industry",
    "sub_industries": "sub_industry",
    "categories": "job_category",
}


class ResultPage(NamedTuple):
    """The postings on a page as JSON texts, and the totals of matching postings and companies."""

    documents: list[bytes]
    total: int
    companies: int


class _Matches(NamedTuple):
    numbers: array[int]
    companies: int


class Results:
    """Reads pages of search results; each page is read from one snapshot of the board.

    The order of the results is total, so pages do not overlap. The numbers of all matching postings
    are computed once per search and version of the board, and cached for the most recently used
    searches. So a page costs the same at any depth, and the totals cost nothing. Each thread has
    its own connection.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, str], Future[_Matches]] = OrderedDict()
        self._labels: tuple[int, dict[str, list[str]]] | None = None
        self._labelling = threading.Lock()

    def page(self, search: hirebase.JobSearch, page: int, limit: int, now: datetime) -> ResultPage:
        """Returns page `page` (from 1) of a search, with up to `limit` postings and the totals.

        A page past the end has no postings, but the same totals. Raises UnsupportedFilter for a
        filter that the board cannot apply.
        """
        with self.snapshot() as connection:
            matches = self._matches(
                connection, _cache_key(search, now), lambda: _find(connection, search, now)
            )
            documents = _documents(connection, matches.numbers[_slice(page, limit)].tolist())
        return ResultPage(documents, len(matches.numbers), matches.companies)

    def expired(self, since: datetime, page: int, limit: int) -> ResultPage:
        """Returns a page of the postings that expired at `since` or later, with only their `_id`.

        The expiry time is the time at which the board first stored the posting as expired; it also
        determines the order. Postings that were removed after that time are included, too. A
        posting with an unknown expiry time is always included, because a duplicate does less harm
        than a missing posting.
        """
        moment = int(since.timestamp() * 1_000_000)
        with self.snapshot() as connection:
            matches = self.numbers(
                connection, f"expired since {moment}", lambda: _find_expired(connection, moment)
            )
            numbers = matches[_slice(page, limit)].tolist()
            rows = connection.execute(
                f"SELECT number, id FROM {_EXPIRED}"  # noqa: S608 - a literal
                " WHERE number IN (SELECT value FROM json_each(?))",
                (json.dumps(numbers),),
            )
            ids: dict[int, str] = dict(rows)
        documents = [json.dumps({"_id": ids[number]}).encode() for number in numbers]
        return ResultPage(documents, len(matches), 0)

    def labels(self) -> dict[str, list[str]]:
        """Returns all labels of postings under `industries`, `sub_industries` and `categories`.

        Each label occurs once, in alphabetical order, spelled as in the first posting that has it.
        Computed once per version of the board.
        """
        with self._labelling, self.snapshot() as connection:
            version = database.meta(connection, "version")
            if self._labels is None or self._labels[0] != version:
                found = {name: _labels(connection, column) for name, column in _LABELS.items()}
                self._labels = version, found
            return self._labels[1]

    def is_cached(self, search: hirebase.JobSearch, now: datetime) -> bool:
        """True if the matches of this search are cached, so that a page takes less than 1 ms."""
        version = database.meta(self.connection(), "version")
        with self._lock:
            known = self._cache.get((version, _cache_key(search, now)))
        return known is not None and known.done()

    def one(self, identity: str) -> bytes | None:
        """Returns the JSON text of the posting with this id; None if there is no such posting."""
        row = self.connection().execute(
            "SELECT json FROM documents JOIN postings USING (number) WHERE id = ?",
            (identity.encode(errors="replace").decode(),),
        )
        found = row.fetchone()
        return found[0] if found else None

    def connection(self) -> sqlite3.Connection:
        """Returns this thread's connection; each statement sees the newest version of the board."""
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = database.reader(self._path)
            connection.create_function("kilometres", 4, searches.kilometres, deterministic=True)
            self._thread.connection = connection
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Yields this thread's connection in a read transaction that lasts until the block ends.

        So all statements in the block see the same version of the board.
        """
        connection = self.connection()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def numbers(
        self, connection: sqlite3.Connection, question: str, find: Callable[[], Iterable[int]]
    ) -> array[int]:
        """Returns the posting numbers that `find` returns, in the same order.

        The numbers are cached under `question`: `find` is called once per question and version of
        the board.
        """
        return self._matches(connection, question, lambda: _Matches(array("q", find()), 0)).numbers

    def _matches(
        self, connection: sqlite3.Connection, question: str, find: Callable[[], _Matches]
    ) -> _Matches:
        name = (database.meta(connection, "version"), question)
        with self._lock:
            known = self._cache.get(name)
            if known is None:
                mine = self._cache[name] = Future[_Matches]()
            else:
                self._cache.move_to_end(name)
        if known is not None:
            return known.result()
        try:
            mine.set_result(find())
        except BaseException as error:
            with self._lock:
                self._cache.pop(name, None)
            mine.set_exception(error)
            raise
        self._evict(name)
        return mine.result()

    def _evict(self, keep: tuple[int, str]) -> None:
        with self._lock:
            done = {name: entry for name, entry in self._cache.items() if entry.done()}
            held = sum(len(entry.result().numbers) + 1_000 for entry in done.values())
            for name, entry in done.items():
                if name != keep and (held > _MAX_CACHED_NUMBERS or name[0] < keep[0]):
                    held -= len(entry.result().numbers) + 1_000
                    del self._cache[name]


def _cache_key(search: hirebase.JobSearch, now: datetime) -> str:
    return canonical.digest(search.canonical(now))


def _slice(page: int, limit: int) -> slice:
    return slice((page - 1) * limit, page * limit)


def _documents(connection: sqlite3.Connection, numbers: list[int]) -> list[bytes]:
    # One statement for all numbers: a hundred single statements take twice as long.
    rows = connection.execute(
        "SELECT number, json FROM documents WHERE number IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    )
    texts: dict[int, bytes] = dict(rows)
    return [texts[number] for number in numbers]


def _find(connection: sqlite3.Connection, search: hirebase.JobSearch, now: datetime) -> _Matches:
    # The board has no ranking: its order by relevance is the order in which postings were stored. A
    # changed posting moves to the end, so a client may read it twice but never misses it.
    condition = searches.condition(search, now)
    descending = search.sort_order == "desc"
    order = _ORDERS[search.sort_by or "relevance"]
    # The number as last sort key makes the order total, so that pages are disjoint.
    direction = "DESC" if descending else "ASC"
    rows = connection.execute(
        f"SELECT number, company FROM postings WHERE {condition.sql}"  # noqa: S608 - values bound
        f" ORDER BY {order} {direction}, number {direction}",
        condition.values,
    )
    numbers, companies = array("q"), set()
    for number, company in rows:
        numbers.append(number)
        companies.add(company)
    companies.discard("")
    return _Matches(numbers, len(companies))


def _find_expired(connection: sqlite3.Connection, moment: int) -> Iterator[int]:
    rows = connection.execute(
        f"SELECT number FROM {_EXPIRED} WHERE moment >= ?"  # noqa: S608 - a literal
        " ORDER BY moment, number",
        (moment,),
    )
    return (number for (number,) in rows)


def _labels(connection: sqlite3.Connection, column: str) -> list[str]:
    # The column contains comparison keys of the labels; only documents have the original spelling.
    found: dict[str, str] = {}
    rows = connection.execute(
        f"SELECT min(number), {column} FROM postings WHERE {column} != ''"  # noqa: S608 - a literal
        f" GROUP BY {column} ORDER BY 1"
    )
    for number, joined in rows.fetchall():
        wanted = {key for key in joined.strip("|").split("|") if key} - found.keys()
        if wanted:
            (document,) = _documents(connection, [number])
            for label in postings.labels(document)[column]:
                if postings.key(label) in wanted:
                    found.setdefault(postings.key(label), label)
    return sorted(found.values(), key=str.casefold)

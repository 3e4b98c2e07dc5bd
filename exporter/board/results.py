"""The pages of searches: which postings match, in which order, and their JSON texts."""

from __future__ import annotations

import json
import sqlite3
import threading
from array import array
from collections import OrderedDict
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from exporter import queries
from exporter.board import database
from exporter.board import search as searches

_MOST_REMEMBERED = 16_000_000
"""Numbers of postings kept for searches that are being read: 128 MB."""
_ORDERS = {
    "relevance": "number",
    "date_posted": "posted",
    "salary": "coalesce(salary_max, salary_min, -1)",
    "company": "company",
    "yoe": "coalesce(yoe_min, yoe_max, -1)",
}


class Found(NamedTuple):
    """One page: the postings' JSON texts, and how many postings and companies match in all."""

    documents: list[bytes]
    total: int
    companies: int


class _Matches(NamedTuple):
    numbers: array[int]
    companies: int


class Results:
    """Pages of searches, each read from one state of the board, in an order that holds still.

    The numbers of all postings that match are found once per search and state of the board, and
    kept for the searches read last: so a page costs the same at any depth, and the totals cost
    nothing. One connection a thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[int, str], Future[_Matches]] = OrderedDict()

    def page(self, search: queries.JobSearch, page: int, limit: int, now: datetime) -> Found:
        """Page `page` (from 1) of `limit` postings; empty, with the true totals, past the end.

        Raises Refused if the board cannot do what a filter asks.
        """
        connection = self._connection()
        # One read transaction: what is found and what is read are the same state of the board.
        connection.execute("BEGIN")
        try:
            matches = self._matches(connection, search, now)
            first = min((page - 1) * limit, len(matches.numbers))
            documents = _documents(connection, matches.numbers[first : first + limit].tolist())
        finally:
            connection.execute("COMMIT")
        return Found(documents, len(matches.numbers), matches.companies)

    def remembers(self, search: queries.JobSearch, now: datetime) -> bool:
        """Whether a page of this search is only a read of its postings, of less than 1 ms."""
        version = database.meta(self._connection(), "version")
        with self._lock:
            known = self._remembered.get((version, queries.digest(search.canonical(now))))
        return known is not None and known.done()

    def one(self, identity: str) -> bytes | None:
        """The JSON text of the posting with this id, or None."""
        row = self._connection().execute(
            "SELECT json FROM documents JOIN postings USING (number) WHERE id = ?",
            (identity.encode(errors="replace").decode(),),
        )
        found = row.fetchone()
        return found[0] if found else None

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = database.reader(self._path)
            connection.create_function("kilometres", 4, searches.kilometres, deterministic=True)
            self._thread.connection = connection
        return connection

    def _matches(
        self, connection: sqlite3.Connection, search: queries.JobSearch, now: datetime
    ) -> _Matches:
        version = database.meta(connection, "version")
        name = (version, queries.digest(search.canonical(now)))
        with self._lock:
            known = self._remembered.get(name)
            if known is None:
                mine = self._remembered[name] = Future[_Matches]()
            else:
                self._remembered.move_to_end(name)
        if known is not None:
            return known.result()
        try:
            mine.set_result(_find(connection, search, now))
        except BaseException as error:
            with self._lock:
                self._remembered.pop(name, None)
            mine.set_exception(error)
            raise
        self._forget(name)
        return mine.result()

    def _forget(self, keep: tuple[int, str]) -> None:
        with self._lock:
            done = {name: entry for name, entry in self._remembered.items() if entry.done()}
            held = sum(len(entry.result().numbers) + 1_000 for entry in done.values())
            for name, entry in done.items():
                if name != keep and (held > _MOST_REMEMBERED or name[0] < keep[0]):
                    held -= len(entry.result().numbers) + 1_000
                    del self._remembered[name]


def _documents(connection: sqlite3.Connection, numbers: list[int]) -> list[bytes]:
    # One statement for all: a hundred statements take twice as long.
    rows = connection.execute(
        "SELECT number, json FROM documents WHERE number IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    )
    texts: dict[int, bytes] = dict(rows)
    return [texts[number] for number in numbers]


def _find(connection: sqlite3.Connection, search: queries.JobSearch, now: datetime) -> _Matches:
    # The board has no ranking: what it calls relevance is the order in which postings came in. A
    # posting that changes moves to the end, so a reader may see it twice and never misses it.
    condition = searches.condition(search, now)
    descending = search.sort_order == "desc"
    order = _ORDERS[search.sort_by or "relevance"]
    # The number makes the order total, and so pages disjoint.
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

"""The pages of one slice, the next ones under way while one is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Cursor
from exporter.core.exports import Spec
from exporter.sources.base import Page, Source

MOST_BYTES = 32 * 1024 * 1024
"""Of pages that wait for their turn, those under way taken to be as large as the largest so far."""


class _Asked(NamedTuple):
    cursor: Cursor
    page: Future[Page]


class Prefetch:
    """Gives pages in order, and only those that were asked for by their true cursor.

    Each page is fetched in a thread. Whoever stops taking pages leaves the threads behind: what
    they still do is a read that nobody looks at.
    """

    def __init__(self, source: Source, spec: Spec, go_on: Callable[[], bool]) -> None:
        """While a page is waited for, `go_on` is asked now and then whether to."""
        self._source = source
        self._spec = spec
        self._go_on = go_on
        self._asked: deque[_Asked] = deque()
        self._rows = 0
        """Of the largest page of the size that pages have now."""
        self._last = 0
        """Rows of the latest page."""
        self._bytes = 0
        """Of the largest page so far."""

    def get(self, cursor: Cursor) -> Page | None:
        """The page at that cursor; None if it was not to be waited for any longer.

        Raises as `Source.fetch` does, never because of a page that comes later.
        """
        if not self._source.read_ahead:
            return self._source.fetch(self._spec.query, cursor)
        if not self.awaits(cursor):
            self._ask(cursor)
        if not threads.wait(self._asked[0].page, self._go_on):
            return None
        page = self._asked.popleft().page.result()
        self._last = len(page.rows) + len(page.unknown)
        self._rows = max(self._rows, self._last)
        self._bytes = max(self._bytes, sum(map(len, page.rows)))
        return page

    def awaits(self, cursor: Cursor) -> bool:
        """Whether the page at that cursor is under way, or here.

        If others are instead, they were asked for by cursors that turned out not to be the next
        ones, and are thrown away.
        """
        if self._asked and self._asked[0].cursor != cursor:
            self._asked.clear()
            self._rows = self._last
        return bool(self._asked)

    def reach(self, at: Checkpoint) -> None:
        """Ask for the page at this position, and for as many after it as are surely needed."""
        if not self._source.read_ahead:
            return
        if not self.awaits(at.cursor):
            self._ask(at.cursor)
        most = self._most(at)
        while len(self._asked) < most:
            cursor = self._source.predict_next(self._asked[-1].cursor)
            if cursor is None:
                return
            self._ask(cursor)

    def _most(self, at: Checkpoint) -> int:
        """Pages that may be under way from this position on."""
        if any(one.page.done() and one.page.exception() is not None for one in self._asked):
            return 0  # the slice will end there
        if at.total_at_end is None or not self._rows or (at.pages == 1 and self._spec.offset):
            # Without a total every page may be the last; the first page behind an offset may be
            # the rest of one, so that it does not show how many rows a page holds.
            return 1
        left = at.total_at_end - at.fetched
        if self._spec.limit is not None:
            left = min(left, self._spec.limit - at.rows)
        fit = MOST_BYTES // max(self._bytes, 1)
        return min(self._source.read_ahead, -(-left // self._rows), fit)

    def _ask(self, cursor: Cursor) -> None:
        fetch, query = self._source.fetch, self._spec.query
        self._asked.append(_Asked(cursor, threads.start(lambda: fetch(query, cursor), "page")))

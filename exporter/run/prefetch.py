"""Prefetch of pages: the next pages are fetched while the current page is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Cursor
from exporter.core.exports import Spec
from exporter.sources.base import Page, Source

MAX_PREFETCHED_BYTES = 32 * 1024 * 1024
"""Bytes of pages that are fetched or waiting.

A page still being fetched counts as the largest page so far.
"""


class _Request(NamedTuple):
    cursor: Cursor
    page: Future[Page]


class Prefetch:
    """Returns pages in order; uses a prefetched page only if its cursor proves to be the next.

    Each page is fetched in a thread. A caller that stops abandons the threads: they finish their
    read, and its result is ignored.
    """

    def __init__(self, source: Source, spec: Spec, keep_waiting: Callable[[], bool]) -> None:
        """Calls `keep_waiting` from time to time while a page is awaited; False ends the wait."""
        self._source = source
        self._spec = spec
        self._keep_waiting = keep_waiting
        self._requests: deque[_Request] = deque()
        self._page_rows = 0
        """Rows of the largest page of the current page size."""
        self._latest_rows = 0
        """Rows of the latest page."""
        self._max_page_bytes = 0
        """Bytes of the largest page so far."""

    def get(self, cursor: Cursor) -> Page | None:
        """Returns the page at that cursor, or None if `keep_waiting` ended the wait.

        Raises as `Source.fetch` does, never because of a later page.
        """
        if not self._source.read_ahead:
            return self._source.fetch(self._spec.query, cursor)
        if not self.is_requested(cursor):
            self._request(cursor)
        if not threads.wait(self._requests[0].page, self._keep_waiting):
            return None
        page = self._requests.popleft().page.result()
        self._latest_rows = len(page.rows) + len(page.unknown)
        self._page_rows = max(self._page_rows, self._latest_rows)
        self._max_page_bytes = max(self._max_page_bytes, sum(map(len, page.rows)))
        return page

    def is_requested(self, cursor: Cursor) -> bool:
        """True if the page at that cursor is being fetched or has arrived.

        Prefetched pages for another cursor are dropped: their cursors were guesses that proved
        wrong.
        """
        if self._requests and self._requests[0].cursor != cursor:
            self._requests.clear()
            self._page_rows = self._latest_rows
        return bool(self._requests)

    def request_ahead(self, at: Checkpoint) -> None:
        """Requests the page at this position and the following pages that are certainly needed."""
        if not self._source.read_ahead:
            return
        if not self.is_requested(at.cursor):
            self._request(at.cursor)
        most = self._max_requests(at)
        while len(self._requests) < most:
            cursor = self._source.predict_next(self._requests[-1].cursor)
            if cursor is None:
                return
            self._request(cursor)

    def _max_requests(self, at: Checkpoint) -> int:
        """Returns how many pages may be in flight from this position on."""
        if any(one.page.done() and one.page.exception() is not None for one in self._requests):
            return 0  # the slice ends at the failed page
        if at.total_at_end is None or not self._page_rows or (at.pages == 1 and self._spec.offset):
            # Without a total every page may be the last. The first page behind an offset may be
            # incomplete, so its length is not the page size.
            return 1
        left = at.total_at_end - at.fetched
        if self._spec.limit is not None:
            left = min(left, self._spec.limit - at.rows)
        fit = MAX_PREFETCHED_BYTES // max(self._max_page_bytes, 1)
        return min(self._source.read_ahead, -(-left // self._page_rows), fit)

    def _request(self, cursor: Cursor) -> None:
        fetch, query = self._source.fetch, self._spec.query
        self._requests.append(_Request(cursor, threads.start(lambda: fetch(query, cursor), "page")))

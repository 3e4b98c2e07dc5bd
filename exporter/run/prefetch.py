"""Prefetch of pages: the next pages are fetched while the current page is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Cursor, Row
from exporter.core.exports import Partition, Spec
from exporter.native.pages import Rows
from exporter.sources.base import Page, Source

MAX_PREFETCHED_BYTES = 32 * 1024 * 1024
"""Maximum size of all pages that are being fetched or were fetched and are not yet used.

A page that is still being fetched counts as large as the largest page so far.
"""


class _Request(NamedTuple):
    cursor: Cursor
    page: Future[Page]


class Prefetch:
    """Returns pages in order, and fetches the next pages in threads before they are needed.

    A prefetched page is used only if it was fetched with the cursor that the previous page names as
    next. If the caller stops waiting, the threads still finish, and their results are ignored.
    """

    def __init__(
        self,
        source: Source,
        spec: Spec,
        keep_waiting: Callable[[], bool],
        partition: Partition | None = None,
    ) -> None:
        """Stores the source, the request and `keep_waiting`.

        While `get` waits for a page, it calls `keep_waiting` every half second, and stops waiting
        if that returns False. With a partition whose pages are known, the first pages are
        requested together.
        """
        self._source = source
        self._spec = spec
        self._keep_waiting = keep_waiting
        self._requests: deque[_Request] = deque()
        self._page_rows = partition.page_rows if partition else 0
        """Number of rows of the largest page since the size of pages last changed."""
        self._is_whole = self._page_rows > 0 or not spec.offset
        """False if the first page may lack rows that the offset skips."""
        self._latest_rows = 0
        """Number of rows of the latest page."""
        self._max_page_bytes = partition.page_bytes if partition else 0
        """Size of the largest page so far."""

    def get(self, at: Checkpoint) -> Page | None:
        """Returns the page at this position.

        Returns None if `keep_waiting` returned False before the page arrived. Raises the errors of
        `Source.fetch` for this page only; an error of a later page is raised when that page is
        requested. If the source has no `read_ahead`, the page is fetched in the calling thread.
        """
        if not self._source.read_ahead:
            return self._source.fetch(self._spec.query, at.cursor)
        if not self.is_requested(at.cursor):
            self.request_ahead(at)
        if not threads.wait(self._requests[0].page, self._keep_waiting):
            return None
        page = self._requests.popleft().page.result()
        self._latest_rows = len(page.rows) + len(page.unknown)
        self._page_rows = max(self._page_rows, self._latest_rows)
        self._max_page_bytes = max(self._max_page_bytes, size(page.rows))
        return page

    def is_requested(self, cursor: Cursor) -> bool:
        """True if the page at that cursor is being fetched or has arrived.

        If the next prefetched page has another cursor, all prefetched pages are dropped, because
        their predicted cursors were wrong.
        """
        if self._requests and self._requests[0].cursor != cursor:
            self._requests.clear()
            self._page_rows = self._latest_rows
        return bool(self._requests)

    def request_ahead(self, at: Checkpoint) -> None:
        """Starts to fetch the page at this position and the next pages certainly needed."""
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
        """Returns the number of pages, from this position on, that may be requested in advance."""
        if any(one.page.done() and one.page.exception() is not None for one in self._requests):
            return 0  # the slice ends at the failed page
        is_incomplete = at.pages == 1 and not self._is_whole
        if at.total_at_end is None or not self._page_rows or is_incomplete:
            # Without a total every page may be the last; the length of an incomplete page is not
            # the page size.
            return 1
        left = at.total_at_end - at.fetched
        if self._spec.limit is not None:
            left = min(left, self._spec.limit - at.rows)
        fit = MAX_PREFETCHED_BYTES // max(self._max_page_bytes, 1)
        return min(self._source.read_ahead, -(-left // self._page_rows), fit)

    def _request(self, cursor: Cursor) -> None:
        fetch, query = self._source.fetch, self._spec.query
        self._requests.append(_Request(cursor, threads.start(lambda: fetch(query, cursor), "page")))


def size(rows: Sequence[Row]) -> int:
    """Returns the number of bytes of the rows."""
    # The length of each row would cost a copy of it.
    return rows.total_bytes if isinstance(rows, Rows) else sum(map(len, rows))

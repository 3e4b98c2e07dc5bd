"""A source of listed postings: reads them, in list order, from any source with a `lookup`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from exporter.core.checkpoints import Cursor
from exporter.sources.base import Page, Search, Source


class IdList:
    """Reads the postings of listed ids from another source, `lookup_size` ids per page.

    Ids that the other source does not have are listed in `Page.unknown`. A cursor is an index into
    the list.
    """

    identity: str | None = None
    """None, because the list contains each id only once."""
    tolerated_drift = 0.0

    def __init__(self, source: Source, load: Callable[[], Sequence[str]]) -> None:
        """Stores `source`, which has the postings, and `load`, which returns the ids.

        `load` is called once, when the list is first used. Its errors are raised by the method that
        uses the list: `fetch`, `predict_next` or `count`.
        """
        self.columns = source.columns
        self._source = source
        self._load = load
        self._ids: Sequence[str] | None = None

    @property
    def lookup_size(self) -> int:
        """The current `lookup_size` of the other source; its first request may lower it."""
        return self._source.lookup_size

    @property
    def read_ahead(self) -> int:
        """At most 1: one lookup already uses all concurrent requests of the other source."""
        return min(self._source.read_ahead, 1)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:
        """Returns the canonical search that the other source's `search` returns."""
        return self._source.search(raw, now, user_id=user_id)

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:
        return self._source.search_may_block(raw)

    def start(self, limit: int | None, offset: int) -> Cursor:  # noqa: ARG002 - ids cost nothing
        """Returns `offset`, because a cursor is an index into the list."""
        return offset

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the postings of the next `lookup_size` ids, beginning at index `cursor`."""
        ids = self._listed()
        wanted = ids[cursor : cursor + self.lookup_size]
        found = self._source.lookup(wanted, query)
        end = cursor + len(wanted)
        return Page(
            rows=[found[one] for one in wanted if one in found],
            next=end if end < len(ids) else None,
            total=len(ids),
            unknown=[one for one in wanted if one not in found],
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """Returns the index after the page at `cursor`; None if that page is the last.

        The prediction is wrong if the `lookup_size` of the other source changes before the page is
        fetched.
        """
        end = cursor + self.lookup_size
        return end if end < len(self._listed()) else None

    def count(self, query: Mapping[str, Any]) -> int:  # noqa: ARG002
        """Returns the number of ids in the list."""
        return len(self._listed())

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the result of the other source's `lookup`."""
        return self._source.lookup(ids, query)

    def close(self) -> None:
        """Does nothing, because the caller has to close the other source."""

    def _listed(self) -> Sequence[str]:
        if self._ids is None:
            self._ids = self._load()
        return self._ids

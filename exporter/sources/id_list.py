"""Postings of a list of ids, in list order, from any source that has `lookup`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from exporter.core.checkpoints import Cursor
from exporter.sources.base import Page, Search, Source


class IdList:
    """Reads listed ids from a source, `lookup_size` ids a page.

    Ids that the source does not have are reported in `Page.unknown`. A cursor is an index into the
    list.
    """

    identity: str | None = None
    """None, because the list has each id once."""
    tolerated_drift = 0.0

    def __init__(self, source: Source, load: Callable[[], Sequence[str]]) -> None:
        """Stores `load`, which returns the ids and is called once, at the first use of the list.

        An error that `load` raises comes out of `fetch`, `predict_next` or `count`.
        """
        self.columns = source.columns
        self._source = source
        self._load = load
        self._ids: Sequence[str] | None = None

    @property
    def lookup_size(self) -> int:
        """The current `lookup_size` of the source, which may shrink after its first request."""
        return self._source.lookup_size

    @property
    def read_ahead(self) -> int:
        """At most 1, because one lookup already uses all concurrent requests of the source."""
        return min(self._source.read_ahead, 1)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:
        """Returns the search as the source checks it."""
        return self._source.search(raw, now, user_id=user_id)

    def start(self, limit: int | None, offset: int) -> Cursor:  # noqa: ARG002 - ids cost nothing
        """Returns `offset`: the cursor is an index into the list."""
        return offset

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the postings of the next `lookup_size` ids from index `cursor` on."""
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
        """Returns the index after that page; None if that page is the last.

        Wrong if the `lookup_size` of the source changes in between.
        """
        end = cursor + self.lookup_size
        return end if end < len(self._listed()) else None

    def count(self, query: Mapping[str, Any]) -> int:  # noqa: ARG002
        """Returns the length of the list."""
        return len(self._listed())

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns what `lookup` of the source returns."""
        return self._source.lookup(ids, query)

    def close(self) -> None:
        """Does nothing: the source belongs to the caller."""

    def _listed(self) -> Sequence[str]:
        if self._ids is None:
            self._ids = self._load()
        return self._ids

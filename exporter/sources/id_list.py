"""The postings of a list of ids, in its order, from any source that can look them up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from exporter.core.checkpoints import Cursor
from exporter.sources.base import Page, Search, Source


class IdList:
    """Asks a source for listed ids, as many at once as it takes; those that it does not have are
    reported with the page. Cursors are places in the list."""

    identity: str | None = None
    """The list names each id once."""
    tolerated_drift = 0.0

    def __init__(self, source: Source, load: Callable[[], Sequence[str]]) -> None:
        """`load` is called once, when the first page is asked for; what it raises comes out of
        `fetch`."""
        self.columns = source.columns
        self._source = source
        self._load = load
        self._ids: Sequence[str] | None = None

    @property
    def lookup_size(self) -> int:
        """As many as the source takes, which may learn that only by asking."""
        return self._source.lookup_size

    @property
    def read_ahead(self) -> int:
        """One at most: a lookup has as many requests under way as the source may have."""
        return min(self._source.read_ahead, 1)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:
        """The source's own search."""
        return self._source.search(raw, now, user_id=user_id)

    def start(self, limit: int | None, offset: int) -> Cursor:  # noqa: ARG002 - ids cost nothing
        """The place itself."""
        return offset

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """The postings of the ids at that place."""
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
        """The place behind that page, if the source takes as many ids then as now."""
        end = cursor + self.lookup_size
        return end if end < len(self._listed()) else None

    def count(self, query: Mapping[str, Any]) -> int:  # noqa: ARG002
        """As many as are listed."""
        return len(self._listed())

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Any]:
        """The source's own."""
        return self._source.lookup(ids, query)

    def close(self) -> None:
        """The source is not ours to close."""

    def _listed(self) -> Sequence[str]:
        if self._ids is None:
            self._ids = self._load()
        return self._ids

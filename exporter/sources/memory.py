"""A source over a list, for tests of everything above the seam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from exporter.core.checkpoints import Cursor, Row
from exporter.sources.base import Page, Search


class MemorySource:
    """Gives its rows page by page; cursors are offsets. `announces` its total, or never does.

    With a `read_ahead` its pages may be asked for before their turn, as of a source that has
    numbered pages.
    """

    identity: str | None = "_id"
    tolerated_drift = 0.05
    lookup_size = 10

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        page_size: int,
        columns: Sequence[str],
        announces: bool = True,
        read_ahead: int = 0,
    ) -> None:
        self.columns = tuple(columns)
        self.read_ahead = read_ahead
        self.fetched = 0
        self._rows = rows
        self._page_size = page_size
        self._announces = announces

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Any search is valid and matches all rows."""
        return Search(query=dict(raw), echo=dict(raw))

    def start(self, limit: int | None, offset: int) -> Cursor:  # noqa: ARG002
        """The offset itself."""
        return offset

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:  # noqa: ARG002
        """The rows from that offset on."""
        self.fetched += 1
        end = cursor + self._page_size
        return Page(
            rows=self._rows[cursor:end],
            next=end if end < len(self._rows) else None,
            total=len(self._rows) if self._announces else None,
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """The offset behind that page."""
        return cursor + self._page_size if self.read_ahead else None

    def count(self, query: Mapping[str, Any]) -> int | None:  # noqa: ARG002
        """All rows, if they are announced."""
        return len(self._rows) if self._announces else None

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """The rows whose `_id` is among the ids."""
        self.fetched += 1
        known = {str(msgspec.json.decode(row)["_id"]): row for row in self._rows}
        return {id_: known[id_] for id_ in ids if id_ in known}

    def close(self) -> None:
        """Nothing to give back."""

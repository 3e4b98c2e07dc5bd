"""A source over a list in memory, for tests of the code that reads from a `Source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from exporter.core.checkpoints import Cursor, Row
from exporter.sources.base import Page, Search
from exporter.sources.http.json_pages import reader


class _Answer(msgspec.Struct):
    rows: list[msgspec.Raw]


class MemorySource:
    """Serves a list of rows page by page; a cursor is an offset into the list.

    With `announces`, each page announces the number of rows. With a `read_ahead` above 0, the next
    cursor is predictable, as in a source with numbered pages. While `is_cut` is True, the rows are
    cut out of the JSON of a page, as those of HTTP sources are: by the compiled library, if it is
    there.
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
        self.is_cut = False
        self._read = reader(_Answer, "rows", self.identity)
        self._rows = rows
        self._page_size = page_size
        self._announces = announces

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Accepts any search; every search matches all rows."""
        return Search(query=dict(raw), echo=dict(raw))

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def start(self, limit: int | None, offset: int) -> Cursor:  # noqa: ARG002
        """Returns the offset, which is the cursor."""
        return offset

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:  # noqa: ARG002
        """Returns the page of rows that begins at offset `cursor`."""
        self.fetched += 1
        end = cursor + self._page_size
        rows = self._rows[cursor:end]
        if self.is_cut:
            rows = self._read(b'{"rows":[%b]}' % b",".join(map(bytes, rows))).rows
        return Page(
            rows=rows,
            next=end if end < len(self._rows) else None,
            total=len(self._rows) if self._announces else None,
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """Returns the offset after the page at `cursor`; None without `read_ahead`."""
        return cursor + self._page_size if self.read_ahead else None

    def count(self, query: Mapping[str, Any]) -> int | None:  # noqa: ARG002
        """Returns the number of rows; None without `announces`."""
        return len(self._rows) if self._announces else None

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """Returns the rows whose `_id` is among the ids, by id."""
        self.fetched += 1
        known = {str(msgspec.json.decode(row)["_id"]): row for row in self._rows}
        return {id_: known[id_] for id_ in ids if id_ in known}

    def close(self) -> None:
        """Does nothing: the list has no connections."""

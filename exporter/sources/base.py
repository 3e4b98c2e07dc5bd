"""The interface of a source, and the pages and searches that pass through it.

A source may be an upstream HTTP API, a SQL table or a list of ids. The export engine knows no more
of it than `Source`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from exporter.core.checkpoints import Cursor, Row


class Page(msgspec.Struct, frozen=True):
    """The rows of one fetch, and the cursor of the page after them."""

    rows: Sequence[Row]
    next: Cursor
    """The cursor of the following page; None if this page is proven to be the last."""
    total: int | None
    """Rows that match the whole query, as announced with this page; None if never announced."""
    unknown: Sequence[str] = ()
    """Requested ids that the source does not have."""


class Search(msgspec.Struct, frozen=True):
    """A checked search, in the form that is stored and in the form that is echoed.

    `query` is stored and sent upstream; `echo` is shown to the caller.
    """

    query: dict[str, Any]
    echo: dict[str, Any]
    limit: int | None = None
    offset: int = 0


class Source(Protocol):
    """Reads postings page by page.

    No fetch depends on an earlier fetch of the same instance: query and cursor hold all that a page
    needs, so another process can continue.
    """

    columns: tuple[str, ...]
    """The declared fields of a row, in the order of the columns of a CSV."""
    identity: str | None
    """The field by which repeated rows are recognised; None if pages never repeat a row.

    Numbered pages repeat rows when the list changes during the export.
    """
    tolerated_drift: float
    """The share of its rows by which the source may change during an export.

    Beyond this share the export fails instead of ending as partial.
    """

    @property
    def lookup_size(self) -> int:
        """The most ids that one `lookup` accepts; 0 if the source cannot look up."""

    @property
    def read_ahead(self) -> int:
        """The most pages that may be fetched ahead, concurrently in threads; 0 for none."""

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:
        """Returns the caller's search in canonical form.

        Where rows have owners, the canonical search matches rows of `user_id` only. Raises
        QueryError, which names each wrong field.
        """

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Returns the first cursor; its page size causes few rows beyond `limit` to be fetched."""

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page at `cursor`.

        Raises SourceRefused, SourceUnavailable or SourceUntrue. An error is always raised; an empty
        or short page is never returned in place of an error.
        """

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """Predicts the `next` of the page at `cursor` without fetching it; None if unknown.

        The prediction is wrong if that page is the last, or had to be fetched as a smaller page.
        """

    def count(self, query: Mapping[str, Any]) -> int | None:
        """Returns how many rows match the query now; None if the source has no such count.

        Reads no row that upstream bills. Raises the same errors as `fetch`.
        """

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:
        """Returns postings by id, without the ids that the source does not have.

        Accepts at most `lookup_size` ids and sends the fewest requests that upstream allows.
        `query` only limits the rows to their owner, where rows have owners. Raises the same errors
        as `fetch`.
        """

    def close(self) -> None:
        """Closes the connections of the source."""

"""The interface of a source, with the pages and searches that it exchanges.

A source may be an upstream HTTP API, a SQL table or a list of ids. The export engine uses a source
only through `Source`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import msgspec

from exporter.core.checkpoints import Cursor, Row

PAST_THE_END = frozenset({204, 400, 404, 410, 416, 422})
"""Statuses with which upstreams answer the request for a page after the last one."""


class Page(msgspec.Struct, frozen=True):
    """The rows of one fetch, and the cursor of the page after them."""

    rows: Sequence[Row]
    next: Cursor
    """The cursor of the following page; None if this page is certainly the last."""
    total: int | None
    """Rows that match the whole query, as announced with this page; None if never announced."""
    unknown: Sequence[str] = ()
    """Requested ids that the source does not have."""


class Search(msgspec.Struct, frozen=True):
    """A valid search: `query` for the source, `echo` for the caller.

    `query` is stored and sent upstream. `echo` is the form that answers to the caller contain.
    """

    query: dict[str, Any]
    echo: dict[str, Any]
    limit: int | None = None
    offset: int = 0


@runtime_checkable
class ListsValues(Protocol):
    """A source whose upstream publishes the allowed values of some filters."""

    def listed_values(self) -> Mapping[str, Sequence[str]]:
        """Returns the allowed values by filter, which may ask the upstream; never raises.

        A filter is left out if its values are unknown now.
        """


class Source(Protocol):
    """Reads postings page by page.

    A page depends only on query and cursor, not on pages that the same instance fetched before.
    Another process can therefore continue with the same query and cursor.
    """

    columns: tuple[str, ...]
    """The fields of a row that the source declares, in the order of the columns of a CSV."""
    identity: str | None
    """The field that is equal in repeated rows; None if pages never repeat a row.

    Numbered pages repeat rows when the list changes during the export.
    """
    tolerated_drift: float
    """The share of its rows by which the source may change during an export.

    With a smaller change the export is `partial`; with a larger change it fails.
    """

    @property
    def lookup_size(self) -> int:
        """Maximum number of ids that one `lookup` accepts; 0 if the source has no lookup by id."""

    @property
    def read_ahead(self) -> int:
        """Maximum number of pages that may be fetched in advance, in concurrent threads."""

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:
        """Validates a search of a caller and returns its canonical form.

        If the rows of the source have owners, the canonical search matches only rows of `user_id`.
        Raises QueryError, which names each wrong field.
        """

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:
        """True if `search` may ask the upstream about this search; it must then run in a thread."""

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Returns the cursor of the first page.

        All pages have the same size, chosen so that they together read as few rows beyond `limit`
        as possible: an upstream may charge for each row.
        """

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page at `cursor`.

        Raises SourceRefused, SourceUnavailable or SourceUntrue if the source does not return the
        page; an empty or short page is never returned instead.
        """

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """Returns the predicted cursor of the page after the page at `cursor`, without a request.

        Returns None if the source cannot predict cursors. The prediction is wrong if the page at
        `cursor` is the last, or if it can be fetched only as a smaller page.
        """

    def count(self, query: Mapping[str, Any]) -> int | None:
        """Returns how many rows match the query now; None if the source cannot count its rows.

        Reads no row for which the upstream charges. Raises the same errors as `fetch`.
        """

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:
        """Returns the postings with these ids, by id; ids without a posting are left out.

        Accepts at most `lookup_size` ids and sends the fewest requests that the upstream allows.
        `query` only limits the rows to their owner, where rows have owners. Raises the same errors
        as `fetch`.
        """

    def close(self) -> None:
        """Closes the connections of the source."""

"""The seam between an upstream job API and the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from exporter.core.checkpoints import Cursor, Row


class Page(msgspec.Struct, frozen=True):
    """What a source returns at once."""

    rows: Sequence[Row]
    next: Cursor
    """Asks for the following page; None means that the source has proven its end."""
    total: int | None
    """Rows that the source announces for the whole query, with this page; None if it never does."""
    unknown: Sequence[str] = ()
    """Ids that were asked for and that the source does not have."""


class Search(msgspec.Struct, frozen=True):
    """A checked search: what is stored and sent, and what is echoed to the caller."""

    query: dict[str, Any]
    echo: dict[str, Any]
    limit: int | None = None
    offset: int = 0


class Source(Protocol):
    """Reads postings page by page. Stateless: all that a page needs travels in its cursor."""

    columns: tuple[str, ...]
    """The declared fields of a row, which are the columns of a CSV, in order."""
    identity: str | None
    """The field that tells rows apart, if pages may repeat rows: those read by number do, when
    the list changes meanwhile."""
    tolerated_drift: float
    """The share of its rows by which the source may change while it is read, before the export
    fails instead of ending as partial."""

    @property
    def lookup_size(self) -> int:
        """How many ids `lookup` takes at once; 0: it cannot look up."""

    @property
    def read_ahead(self) -> int:
        """How many pages may be asked for before their turn, at once and in threads. 0: none."""

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:
        """A caller's search made canonical. Raises QueryError naming each wrong field.

        Where rows have owners, the canonical search matches rows of `user_id` only.
        """

    def start(self, limit: int | None, offset: int) -> Cursor:
        """The cursor of the first page, sized so that few rows beyond `limit` are fetched."""

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """The page at that cursor.

        Raises SourceRefused, SourceUnavailable or SourceUntrue; never returns an empty or
        short page in place of an error.
        """

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """The cursor that the page at this one names as next, unless it is the last or had to be
        made smaller; None if only reading tells."""

    def count(self, query: Mapping[str, Any]) -> int | None:
        """How many rows the query matches now, as the source says; None if it does not say.

        Reads no row that upstream bills. Raises as `fetch` does.
        """

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:
        """The postings of these ids, at most `lookup_size`, by id; one that the source does not
        have is left out. Takes the fewest requests that upstream allows. Raises as `fetch` does.

        Where rows have owners, `query` says whose rows it may be; it is of no other use.
        """

    def close(self) -> None:
        """Give back connections."""

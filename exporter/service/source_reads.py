"""Reads of a source while a caller waits: previews of a search, and test reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from exporter.core.checkpoints import Row
from exporter.core.plans import Plan
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService

PREVIEW_ROWS = 20


class Preview(msgspec.Struct, frozen=True):
    """The first rows of a search, as the source sends them."""

    rows: Sequence[Mapping[str, Any]]
    total: int | None
    """Rows that match; None if the source announces no total."""
    seconds: float
    """Duration of the read."""


def preview(
    service: ExportService,
    source: str,
    search: Mapping[str, Any],
    *,
    user_id: str,
    plan: Plan,
    rows: int = PREVIEW_ROWS,
) -> Preview:
    """Returns the first rows of an export of this search. Costs no credits.

    A page or an offset in the search is ignored: the rows begin with the first. Raises NotInPlan,
    QueryError and SourceError like `ExportService.create`.
    """
    new = NewExport(user_id=user_id, surface="", source=source, search=search)
    query = service.draft(new, plan).query
    own, began = service.source(source), service.clock.monotonic()
    page = own.fetch(query, own.start(rows, 0))
    return Preview(
        rows=[_decoded(row) for row in page.rows[:rows]],
        total=page.total,
        seconds=round(service.clock.monotonic() - began, 3),
    )


def _decoded(row: Row) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(bytes(row))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            found = json.loads(bytes(row).decode(errors="replace"), strict=False)
        except (ValueError, RecursionError):
            found = None
    return found if isinstance(found, dict) else {}

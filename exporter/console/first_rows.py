"""The first rows of an export, as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from exporter.api.surfaces.native import previews
from exporter.console import export_page
from exporter.console.visits import Visit, route

MAX_ROWS = 20
MAX_COLUMNS = 16


async def show(visit: Visit) -> Response:
    """Shows the first rows that are stored, in the first columns that have a value."""
    export_id = str(visit.request.path_params["export_id"])
    one = await export_page.find(visit, export_id)
    if one is None:
        return export_page.missing(visit)
    found = await visit.call(previews.preview, export_id)
    if not found.is_success and found.status != 409:
        return visit.failed(found)
    # 409: no rows are stored, yet or any more.
    content = (found.body or b"") if found.is_success else b""
    rows = _rows(content, is_csv=one["format"] == "csv")
    names = dict.fromkeys(name for row in rows for name, value in row.items() if value)
    return visit.page(
        "first_rows.html",
        one=one,
        rows=rows,
        columns=list(names)[:MAX_COLUMNS],
        detail=found.detail,
        is_partial="X-Exporter-Partial" in found.headers,
    )


def _rows(content: bytes, *, is_csv: bool) -> Sequence[Mapping[str, Any]]:
    if is_csv:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig", "replace"), newline=""))
        return [row for row, _ in zip(reader, range(MAX_ROWS), strict=False)]
    return [msgspec.json.decode(line) for line in content.splitlines()[:MAX_ROWS]]


ROUTES = (route("/exports/{export_id:uuid}/rows", show),)

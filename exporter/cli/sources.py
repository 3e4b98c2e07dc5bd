"""The commands about sources: what can be exported, with which filters, and its first rows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from exporter.cli.console import err, out, report_errors
from exporter.cli.exports import AsJson, Filters, Key, Query, Url, print_json, search

if TYPE_CHECKING:
    from exporter.client import Preview, Source

MAX_SHOWN_COLUMNS = 6
MAX_CELL_CHARS = 40
MAX_SHOWN_CHOICES = 12


def sources(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Show the filters and columns of this source."),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List the sources of the service; with a name, the filters and columns of that source."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = [exporter.source(name)] if name else exporter.sources()
    if as_json:
        for one in found:
            print_json(one.to_dict())
    elif name:
        _print_source(found[0])
    else:
        table = Table("name", "type", "", box=None, pad_edge=False)
        for one in found:
            table.add_row(Text(one.name), Text(one.type), "" if one.allowed else "not in your plan")
        out.print(table)


def preview(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE|ID", help="Name of a source, or the id of an export."),
    ],
    query: Query = "{}",
    filters: Filters = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show the first rows that a query has now, free; with an id, those of that export.

    An export shows them as soon as they are safely stored, also while it runs.
    """
    from exporter.cli import remote

    wanted = search(query, filters or [])
    is_export = _is_id(source)
    if is_export and wanted != {}:
        raise typer.BadParameter("an export has its own query: leave out --query and --filter")
    with report_errors(), remote.connected(url, key) as exporter:
        if is_export:
            first = exporter.first_rows(source)
            rows = first.rows
            facts = "more follow: the export runs" if first.is_partial else "the export is finished"
        else:
            found = exporter.preview(source, wanted)
            rows, facts = found.rows, _matching(found)
    if as_json:
        for row in rows:
            print_json(row)
    else:
        _print_rows(rows, facts)


def _is_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _matching(found: Preview) -> str:
    if found.total is None:
        return "the source does not say how many match"
    return f"{found.total:,} rows match"


def _print_source(source: Source) -> None:
    table = Table("filter", "kind", "meaning", box=None, pad_edge=False)
    for one in source.filters:
        choices = ", ".join(one.choices[:MAX_SHOWN_CHOICES])
        more = ", …" if len(one.choices) > MAX_SHOWN_CHOICES else ""
        text = " ".join(filter(None, (one.description, f"One of: {choices}{more}" * bool(choices))))
        table.add_row(Text(one.name, no_wrap=True), Text(one.kind), Text(text))
    out.print(table)
    columns = ", ".join(source.columns)
    out.print(Text(f"\ncolumns: {columns}" if columns else "\ncolumns: those that its rows have"))


def _print_rows(rows: Sequence[Mapping[str, Any]], facts: str) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns[:MAX_SHOWN_COLUMNS], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns[:MAX_SHOWN_COLUMNS]))
    if rows:
        out.print(table)
    hidden = len(columns) - MAX_SHOWN_COLUMNS
    more = f", {hidden} more columns: see --json" if hidden > 0 else ""
    err.print(f"the first {len(rows)} rows; {facts}{more}", highlight=False)


def _cell(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    line = " ".join(text.split())
    return line if len(line) <= MAX_CELL_CHARS else line[: MAX_CELL_CHARS - 1] + "…"

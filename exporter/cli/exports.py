"""The commands about exports: create, list, show, watch, download, cancel, retry, delete."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from exporter.cli.console import err, out, report_errors
from exporter.errors import ExporterError

if TYPE_CHECKING:
    from exporter.client import Export

STDOUT = Path("-")

Url = Annotated[
    str | None,
    typer.Option(
        envvar="EXPORTER_PUBLIC_URL",
        help="The service; default: that of `exporter up` here.",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        "--api-key",
        envvar="EXPORTER_API_KEY",
        help="Default: the key of `exporter up` here.",
        show_default=False,
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of an export.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="File to write; `-`: stdout. Default: the name that it suggests."
    ),
]


def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write; `-`: standard output.")
    ],
    source: Annotated[str, typer.Option(help="Name of a configured source.")] = "board",
    query: Annotated[str, typer.Option(help="The search, as JSON.")] = "{}",
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="NAME=VALUE of the search, beside --query: JSON, else text. NAME[]=VALUE, or the "
            "same name again, makes a list.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        str, typer.Option(help="csv, json (JSON Lines) or another name that /docs lists.")
    ] = "csv",
    columns: Annotated[
        str | None, typer.Option(help="Columns, comma-separated; default: the source's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most; default: all.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="0 to 9, higher is more urgent.")] = 0,
    csv_safe: Annotated[
        bool, typer.Option(help="Guard cells that a spreadsheet would run as formulas.")
    ] = False,
    bom: Annotated[
        bool, typer.Option(help="Begin a CSV file with a byte order mark, for Excel.")
    ] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Export from a running service into a file: enqueue, watch, download, verify."""
    from exporter.cli import remote, watch
    from exporter.formats import registry

    if csv_safe and format not in registry.names_with("guard"):
        raise typer.BadParameter(f"--csv-safe has no effect with --format {format}: leave it out")
    request: dict[str, Any] = {
        "source": source,
        "query": search(query, filters or []),
        "format": format,
        "priority": priority,
        "csv_safe": csv_safe,
    }
    if bom:
        request["bom"] = True
    if columns:
        request["columns"] = [name.strip() for name in columns.split(",")]
    if limit is not None:
        request["limit"] = limit
    with report_errors(), remote.connected(url, key) as exporter:
        check_folder(output)
        created = watch.create(exporter, request, err)
        _save(exporter, watch.follow(exporter, created.id, err), output)


def ls(
    limit: Annotated[int, typer.Option(min=1, help="Exports at most.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List your exports, newest first; with --json, one object on each line."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = list(islice(exporter.list(page_size=min(limit, 100)), limit))
        if as_json:
            for one in found:
                _print_json(one.to_dict())
        elif found:
            out.print(_table(found))
        else:
            err.print("no exports yet: make one with `exporter export -o jobs.csv`")


def show(export_id: Id, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show an export: its state, the reason of a wait or failure, and the proof of its file."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = exporter.get(export_id)
    if as_json:
        _print_json(found.to_dict())
    else:
        out.print(_details(found))


def watch(export_id: Id, url: Url = None, key: Key = None) -> None:
    """Show the progress of an export until its end; exit code 1 if it ends without a file."""
    from exporter.cli import remote
    from exporter.cli import watch as watching

    with report_errors(), remote.connected(url, key) as exporter:
        found = watching.follow(exporter, export_id, err)
        err.print(watching.proof(found), highlight=False, soft_wrap=True)


def download(export_id: Id, output: Output = None, url: Url = None, key: Key = None) -> None:
    """Download the file of a finished export; goes on where an earlier try stopped."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = exporter.get(export_id)
        if found.result is None:
            why = f": {found.error}" if found.error else ""
            raise ExporterError(f"export {found.id} is {found.state} and has no file{why}")
        file = output or Path(Path(found.result.file_name).name)
        check_folder(file)
        _save(exporter, found, file)


def cancel(export_id: Id, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Cancel an export that has not ended."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = exporter.cancel(export_id)
    if as_json:
        _print_json(found.to_dict())
        return
    said = f"is {found.state}" if found.has_ended else "was asked to stop"
    err.print(f"export {found.id} {said}", highlight=False)


def retry(export_id: Id, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Create a new export with the request of one that failed or was canceled."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = exporter.retry(export_id)
    if as_json:
        _print_json(found.to_dict())
    else:
        err.print(f"export {found.id} is {found.state}", highlight=False)


def rm(export_id: Id, url: Url = None, key: Key = None) -> None:
    """Delete an export with its file; a running one is canceled first."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        exporter.delete(export_id)
    err.print(f"export {export_id} is deleted", highlight=False)


def search(query: str, filters: list[str]) -> dict[str, Any]:
    """Returns the search of --query and all --filter.

    >>> search('{"days_ago": 7}', ["yoe=3", "job_titles[]=engineer"])
    {'days_ago': 7, 'yoe': 3, 'job_titles': ['engineer']}
    """
    try:
        found = json.loads(query)
    except ValueError as error:
        raise typer.BadParameter(f"--query is not JSON: {error}") from None
    if not filters:
        return found  # type: ignore[no-any-return]  # the service refuses other values
    if not isinstance(found, dict):
        raise typer.BadParameter("--query is not a JSON object: --filter cannot be added to it")
    given: dict[str, list[Any]] = {}
    lists: set[str] = set()
    for one in filters:
        name, separator, text = one.partition("=")
        plain = name.removesuffix("[]")
        if not separator or not plain:
            raise typer.BadParameter(f"--filter {one}: write NAME=VALUE")
        if plain in found:
            raise typer.BadParameter(f"--filter {one}: --query has {plain}, too")
        if plain != name:
            lists.add(plain)
        given.setdefault(plain, []).append(_value(text))
    for name, values in given.items():
        found[name] = values if len(values) > 1 or name in lists else values[0]
    return found


def check_folder(file: Path) -> None:
    """Raises ExporterError if the folder of a file to be written does not exist."""
    if not file.parent.is_dir():
        raise ExporterError(f"{file.parent} is not a directory: make it, or give another -o")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _save(exporter: Any, found: Export, file: Path) -> None:
    from exporter.cli import watch

    if file != STDOUT:
        watch.fetch(exporter, found, file, err)
        return
    for data in exporter.read(found):
        sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    err.print(watch.proof(found), highlight=False, soft_wrap=True)


def _print_json(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")


def _table(found: list[Export]) -> Table:
    table = Table("id", "state", "source", box=None, pad_edge=False)
    table.add_column("rows", justify="right")
    table.add_column("age", justify="right")
    for one in found:
        table.add_row(
            Text(one.id, no_wrap=True),
            Text(_state(one)),
            Text(one.source),
            f"{one.record_count or 0:,}",
            _age(one.created_at),
        )
    return table


def _details(one: Export) -> Table:
    from exporter.cli.watch import proof

    table = Table.grid(padding=(0, 2))
    lines = {
        "id": one.id,
        "state": _state(one),
        "waits for": one.waiting_for,
        "next try": f"in {one.retry_in_seconds} s" if one.retry_in_seconds is not None else None,
        "error": one.error,
        "source": one.source,
        "query": json.dumps(one.query, ensure_ascii=False) if one.query is not None else None,
        "format": " ".join(filter(None, (one.format, one.compression.replace("none", "")))),
        "rows": f"{one.record_count or 0:,} ({one.progress:.0%})",
        "created": one.created_at,
        "ended": one.completed_at,
        "file": one.result.file_name if one.result else None,
        "proof": proof(one) if one.result else None,
        "link until": one.result.expiry_time if one.result else None,
    }
    for name, value in lines.items():
        if value:
            table.add_row(Text(name, style="bold"), Text(str(value), overflow="fold"))
    return table


def _state(one: Export) -> str:
    if one.cancel_requested and not one.has_ended:
        return "stopping"
    return one.phase if one.state == "processing" and one.phase else one.state


def _age(created_at: str) -> str:
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds()
    except (TypeError, ValueError):
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"

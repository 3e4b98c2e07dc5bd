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
    from exporter.client import Activity, Export

STDOUT = Path("-")
_OTHER_COLUMNS_CHARS = 68
"""Width of a list without the names: the ids, states, rows and ages."""

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
Query = Annotated[str, typer.Option(help="The search, as JSON.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="NAME=VALUE of the search, beside --query: JSON, else text. NAME[]=VALUE, or the "
        "same name again, makes a list.",
    ),
]
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
    query: Query = "{}",
    filters: Filters = None,
    format: Annotated[  # noqa: A002
        str, typer.Option(help="csv, json (JSON Lines) or another name that /docs lists.")
    ] = "csv",
    columns: Annotated[
        str | None, typer.Option(help="Columns, comma-separated; default: the source's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most; default: all.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=9, help="0 to 9, higher is more urgent.")] = 0,
    name: Annotated[str, typer.Option(help="Your name of the export, shown in lists.")] = "",
    metadata: Annotated[
        list[str] | None, typer.Option(help="KEY=TEXT of your own, found by lists; repeatable.")
    ] = None,
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
    if name:
        request["name"] = name
    if metadata:
        request["metadata"] = pairs(metadata)
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
    state: Annotated[
        str | None,
        typer.Option(help="queued, processing, finished, failed, canceled; with commas between."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Of this source.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Words of the name, or their beginnings.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="For operators: of this user.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """List your exports, newest first; with --json, one object on each line."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        given = {"state": state, "source": source, "name": name, "user": user}
        found = list(islice(exporter.list(page_size=min(limit, 100), **given), limit))
        if as_json:
            for one in found:
                print_json(one.to_dict())
        elif found:
            out.print(_table(found))
        elif any(given.values()):
            err.print("no export meets these filters")
        else:
            err.print("no exports yet: make one with `exporter export -o jobs.csv`")


def show(export_id: Id, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Show an export: its state, the reason of a wait or failure, and the proof of its file."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = exporter.get(export_id)
        happened = [] if as_json else _activity(exporter, export_id)
    if as_json:
        print_json(found.to_dict())
    else:
        out.print(_details(found))
        if happened:
            out.print(_timeline(happened))


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
        print_json(found.to_dict())
        return
    said = f"is {found.state}" if found.has_ended else "was asked to stop"
    err.print(f"export {found.id} {said}", highlight=False)


def retry(export_id: Id, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Create a new export with the request of one that failed or was canceled."""
    from exporter.cli import remote

    with report_errors(), remote.connected(url, key) as exporter:
        found = exporter.retry(export_id)
    if as_json:
        print_json(found.to_dict())
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


def pairs(given: list[str]) -> dict[str, str]:
    """Returns the pairs of --metadata KEY=TEXT.

    >>> pairs(["team=growth", "formula=a=b"])
    {'team': 'growth', 'formula': 'a=b'}
    """
    found: dict[str, str] = {}
    for one in given:
        key, separator, text = one.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"--metadata {one}: write KEY=TEXT")
        if key in found:
            raise typer.BadParameter(f"--metadata {one}: {key} is given twice")
        found[key] = text
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


def print_json(values: dict[str, Any]) -> None:
    """Prints an object as one line of JSON."""
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")


def _table(found: list[Export]) -> Table:
    table = Table("id", "state", "name or source", box=None, pad_edge=False)
    left = max(out.width - _OTHER_COLUMNS_CHARS, len("name or source"))
    table.add_column("rows", justify="right")
    table.add_column("age", justify="right")
    for one in found:
        table.add_row(
            Text(one.id, no_wrap=True),
            Text(_state(one)),
            Text(_cut(one.name or one.source, left)),
            f"{one.record_count or 0:,}",
            _age(one.created_at),
        )
    return table


def _details(one: Export) -> Table:
    from exporter.cli.watch import proof

    table = Table.grid(padding=(0, 2))
    lines = {
        "id": one.id,
        "name": one.name,
        "metadata": ", ".join(f"{key}={text}" for key, text in one.metadata.items()),
        "state": _state(one),
        "queue": _ahead(one),
        "time left": _duration(one.eta_seconds) if one.eta_seconds is not None else None,
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


def _activity(exporter: Any, export_id: str) -> list[Activity]:
    from exporter.client import NotFound

    try:
        return list(exporter.activity(export_id))
    except NotFound:
        return []  # an older service, which records no activity


def _timeline(happened: list[Activity]) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in happened:
        table.add_row(Text(one.at, style="dim"), Text(one.what), Text(one.by), Text(one.detail))
    return table


def _cut(text: str, chars: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


def _ahead(one: Export) -> str | None:
    if one.queue_position is None:
        return None
    plural = "" if one.queue_position == 1 else "s"
    return f"{one.queue_position:,} export{plural} ahead" if one.queue_position else "next"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{rest} s" if not minutes else f"{minutes} min {rest} s"


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

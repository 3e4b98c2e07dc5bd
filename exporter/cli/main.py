"""The `exporter` command."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from exporter import logs
from exporter.cli import endpoints, keys
from exporter.cli.console import err, out, report_errors
from exporter.errors import ExporterError

app = typer.Typer(
    help="Turns a search over job postings into a file: all the rows, proven.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
board = typer.Typer(help="The reference job board, an upstream to try.", no_args_is_help=True)
app.add_typer(keys.keys, name="keys")
app.add_typer(endpoints.endpoints, name="endpoints")
app.add_typer(board, name="board")

DATA_DIR = Path(".exporter")

Port = Annotated[int, typer.Option(help="Port to listen on.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Database = Annotated[
    Path, typer.Option(envvar="EXPORTER_BOARD_DATABASE", help="The board's SQLite file.")
]
Faults = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Misbehave on order, such as 'latency=20ms-80ms, 429=2%, reset=1%, drift=3/s': "
        "latency=TIME; drift=N/s (postings inserted, updated, deleted a second); seed=N; and, each "
        "with a share of the searches, 429, 503, 502, 500 (refused), reset, truncate, slow (broken "
        "or dripping bodies), html, shape (no page at all), empty, short, total (pages that lie). "
        "'' misbehaves only when told by POST /faults.",
    ),
]


@app.command()
def up(
    data_dir: Annotated[Path, typer.Option(help="Where all state is kept.")] = DATA_DIR,
    port: Annotated[int, typer.Option(help="The API's port; all others derive from it.")] = 8800,
    workers: Annotated[int, typer.Option(min=1, help="Slices at once.")] = 2,
    board: Annotated[bool, typer.Option(help="Start the reference board too.")] = True,
    board_rows: Annotated[
        int | None, typer.Option(min=1, help="Fill an empty board with synthetic postings.")
    ] = None,
    board_data: Annotated[
        Path | None, typer.Option(exists=True, help="Fill an empty board from JSON Lines.")
    ] = None,
    board_faults: Faults = None,
) -> None:
    """Start the whole stack in the foreground: Redis, S3, board, API, workers, beat."""
    from exporter.local import stack

    if board_faults is not None:
        from exporter.board.misbehavior import faults

        with report_errors():  # now, and not in the log of a board that cannot start
            faults.parse(board_faults)
    raise typer.Exit(
        stack.run(data_dir, port, workers, board, board_rows, board_data, board_faults)
    )


@app.command()
def demo(
    rows: Annotated[int, typer.Option(min=1, help="Postings on the board.")] = 20_000,
) -> None:
    """See the main job: start the stack, export from the board, download, show the proof."""
    from exporter.cli.demo import run

    with report_errors():
        raise typer.Exit(run(rows, out, err))


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    source: Annotated[str, typer.Option(help="Name of a configured source.")] = "board",
    query: Annotated[str, typer.Option(help="The search, as JSON.")] = "{}",
    format: Annotated[str, typer.Option(help="csv or json (JSON Lines).")] = "csv",  # noqa: A002
    columns: Annotated[
        str | None, typer.Option(help="Columns, comma-separated; default: the source's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Rows at most; default: all.")] = None,
    priority: Annotated[int, typer.Option(help="0 to 9, higher is more urgent.")] = 0,
    csv_safe: Annotated[
        bool, typer.Option(help="Guard cells that a spreadsheet would run as formulas.")
    ] = False,
    url: Annotated[
        str, typer.Option(envvar="EXPORTER_PUBLIC_URL", help="The service.")
    ] = "http://127.0.0.1:8800",
    api_key: Annotated[
        str | None,
        typer.Option(envvar="EXPORTER_API_KEY", help="Default: the key of `exporter up` here."),
    ] = None,
) -> None:
    """Export from a running service into a file: enqueue, watch, download, verify."""
    from exporter.cli.client import Client
    from exporter.cli.watch import fetch

    try:
        search = json.loads(query)
    except ValueError as error:
        raise typer.BadParameter(f"--query is no JSON: {error}") from None
    request = {
        "source": source,
        "query": search,
        "format": format,
        "priority": priority,
        "csv_safe": csv_safe,
    }
    if columns:
        request["columns"] = [name.strip() for name in columns.split(",")]
    if limit is not None:
        request["limit"] = limit
    with report_errors(), Client(url, api_key or _local_key()) as client:
        if not output.parent.is_dir():
            raise ExporterError(f"{output.parent} is no directory: make it, or give another -o")
        fetch(client, request, output, err)


@app.command()
def doctor() -> None:
    """Check every dependency and setting, and say how to mend what is wrong."""
    from exporter.cli.doctor import examine

    table = Table("", "what", "found")
    ill = 0
    for finding in examine():
        ill += not finding.well
        table.add_row(
            "[green]ok[/]" if finding.well else "[red]no[/]", finding.what, escape(finding.detail)
        )
    out.print(table)
    raise typer.Exit(1 if ill else 0)


@app.command()
def api(port: Port = 8800, host: Host = "127.0.0.1") -> None:
    """Serve the REST API."""
    logs.configure("api")
    with report_errors():
        from exporter.api.server import serve

        serve(host, port)


@app.command()
def worker(
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Slices at once; default: two a core.")
    ] = None,
) -> None:
    """Run the Celery workers that do the exports."""
    arguments = [] if concurrency is None else [f"--concurrency={concurrency}"]
    os.execv(sys.executable, [sys.executable, "-m", "workers", "worker", *arguments])  # noqa: S606


@app.command()
def webhooks() -> None:
    """Run the Celery workers that send webhooks; they do no exports."""
    os.execv(sys.executable, [sys.executable, "-m", "workers", "webhooks"])  # noqa: S606


@app.command()
def beat() -> None:
    """Run the clock of the hourly tasks; exactly one is needed, none is harmless."""
    os.execv(sys.executable, [sys.executable, "-m", "workers", "beat"])  # noqa: S606


@board.command("serve")
def board_serve(
    database: Database = DATA_DIR / "board.sqlite",
    data: Annotated[
        Path | None, typer.Option(exists=True, help="JSON Lines (.gz too) to load first.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Synthetic postings to make first.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Other seed, other postings.")] = 1,
    port: Port = 8810,
    host: Host = "127.0.0.1",
    faults: Faults = None,
) -> None:
    """Serve the board. It takes the key in BOARD_KEY."""
    from exporter.board import app as board_app

    logs.configure("board")
    key = os.environ.get("BOARD_KEY")
    with report_errors():
        if not key:
            raise ExporterError("BOARD_KEY is not set: choose a key that callers must show")
        _fill(database, data, rows, seed)
        board_app.serve(database, host, port, [key], faults)


@board.command("load")
def board_load(
    file: Annotated[Path, typer.Argument(exists=True, help="JSON Lines, .gz too.")],
    database: Database = DATA_DIR / "board.sqlite",
) -> None:
    """Load postings into the board; one that serves them already shows them at once."""
    with report_errors():
        _fill(database, file, None, 1)


def _fill(database: Path, data: Path | None, rows: int | None, seed: int) -> None:
    from exporter.board import database as stored
    from exporter.board.synthetic import synthesize

    try:
        stored.prepare(database)
        if rows is not None:
            synthesize(database, rows, seed)
            err.print(f"{rows} synthetic postings of seed {seed} in {database}", highlight=False)
        if data is not None:
            loaded = stored.load(database, data)
            err.print(
                f"{loaded.loaded} postings from {data} into {database}, "
                f"{loaded.replaced} in place of older ones",
                highlight=False,
                soft_wrap=True,
            )
    except sqlite3.Error as error:
        raise ExporterError(f"{database}: {error}") from None


def _local_key() -> str:
    try:
        return (DATA_DIR / "api_key").read_text("utf-8").strip()
    except OSError:
        raise ExporterError("no API key: set EXPORTER_API_KEY or give --api-key") from None


def main() -> None:
    app()

"""`exporter demo`: starts the whole service, runs one export, and shows its result."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import sys
import tempfile
from itertools import chain, count, islice
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.cli import remote, watch
from exporter.client import Export
from exporter.errors import ConfigurationError
from exporter.local import ports
from exporter.local.stack import Stack

COLUMNS = ("_id", "job_title", "company_name", "location_raw", "date_posted")
MAX_CELL_CHARS = 28
DEFAULT_PORT = 8800
"""Port of the API of `exporter up` unless it is told another."""


def run(rows: int, out: Console, err: Console) -> int:
    """Starts the stack, runs an export from the board, and prints its first rows and its proof.

    The proof shows that the file is complete. The file is kept in the working directory, under a
    name that no file has there; all else is removed at the end. Returns the exit code. Raises
    ConfigurationError, before anything is started, if no file can be written there, and
    ExporterError if a step fails.
    """
    file = _new_file()
    with tempfile.TemporaryDirectory(prefix="exporter-demo-") as scratch:
        err.print(
            "Starting Redis, S3 (SeaweedFS), a job board with "
            f"{rows:,} synthetic postings, the API and two Celery workers …"
        )
        port = ports.find_base()
        stack = Stack(Path(scratch) / "stack", port, 2, board_rows=rows)
        with (
            stack as addresses,
            remote.open_client(addresses.url, addresses.api_key) as exporter,
        ):
            request = {"source": "board", "query": {}, "format": "csv"}
            err.print(f"POST {addresses.url}/v1/exports {request}", highlight=False)
            created = watch.create(exporter, request, err)
            export = watch.fetch(exporter, watch.follow(exporter, created.id, err), file, err)
            out.print(_first_rows(file))
            out.print(_proof(export))
    out.print(_next_steps(file, rows, port), soft_wrap=True, highlight=False, markup=False)
    return 0


def _new_file() -> Path:
    """Returns the first of jobs.csv, jobs-2.csv, … that does not exist in the working directory."""
    if not os.access(".", os.W_OK):
        raise ConfigurationError(
            f"No file can be written in {Path.cwd()}: run the demo in a folder of your own."
        )
    names = chain(["jobs.csv"], (f"jobs-{number}.csv" for number in count(2)))
    return next(file for file in map(Path, names) if not os.path.lexists(file))


def _next_steps(file: Path, rows: int, port: int) -> str:
    command = shlex.quote(_command())
    url = f"http://127.0.0.1:{port}"
    there = "" if port == DEFAULT_PORT else f" --port {port}"
    return f"""\
The file is ./{file}. All servers of the demo have ended. The next three commands:

  {command} up --detach --board-rows {rows}{there}
  {command} export --query '{{"job_titles": ["engineer"]}}' -o engineers.csv
  {command} doctor

The first keeps the service running, with its API on {url}/docs;
`{command} down` ends it."""


def _command() -> str:
    """Returns how the `exporter` of this Python is called from the working directory."""
    script = Path(sys.executable).with_name("exporter")
    on_path = shutil.which("exporter")
    if on_path is not None and Path(on_path) == script:
        return "exporter"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def _first_rows(file: Path) -> Table:
    table = Table(title="The first rows of the file", show_lines=False)
    for name in COLUMNS:
        table.add_column(name, max_width=MAX_CELL_CHARS, no_wrap=True, overflow="ellipsis")
    with file.open(newline="", encoding="utf-8") as lines:
        for row in islice(csv.DictReader(lines), 8):
            table.add_row(*(Text(" ".join(row[name].split())) for name in COLUMNS))
    return table


def _proof(export: Export) -> Table:
    table = Table("what was proven", "", title="The result")
    result = export.result
    assert result is not None
    proof = result.completeness
    assert proof is not None
    table.add_row("outcome", proof.outcome)
    table.add_row("how the end is known", proof.end_reason)
    table.add_row("rows announced at the start", f"{proof.total_at_start:,}")
    table.add_row("rows announced at the end", f"{proof.total_at_end:,}")
    table.add_row("rows in the file, counted after the download", f"{result.record_count:,}")
    table.add_row("bytes", f"{result.file_size:,}")
    table.add_row("link valid until", str(result.expiry_time))
    return table

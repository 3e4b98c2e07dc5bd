"""`exporter demo`: starts the whole service, runs one export, and shows its result."""

from __future__ import annotations

import csv
import tempfile
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.cli.client import Client
from exporter.cli.watch import fetch
from exporter.local import ports
from exporter.local.stack import Stack

COLUMNS = ("_id", "job_title", "company_name", "location_raw", "date_posted")
MAX_CELL_CHARS = 28


def run(rows: int, out: Console, err: Console) -> int:
    """Starts the stack, runs an export from the board, and prints its first rows and its proof.

    The proof shows that the file is complete. All files are removed at the end. Returns the exit
    code. Raises ExporterError if a step fails.
    """
    with tempfile.TemporaryDirectory(prefix="exporter-demo-") as scratch:
        file = Path(scratch) / "jobs.csv"
        err.print(
            "Starting Redis, S3 (SeaweedFS), a job board with "
            f"{rows:,} synthetic postings, the API and two Celery workers …"
        )
        stack = Stack(Path(scratch) / "stack", ports.find_base(), 2, board_rows=rows)
        with stack as addresses, Client(addresses.url, addresses.api_key) as client:
            request = {"source": "board", "query": {}, "format": "csv"}
            err.print(f"POST {addresses.url}/v1/exports {request}", highlight=False)
            record = fetch(client, request, file, err)
            out.print(_first_rows(file))
            out.print(_proof(record["result"]))
        err.print("That was the whole service. `exporter up` keeps it running: see the README.")
    return 0


def _first_rows(file: Path) -> Table:
    table = Table(title="The first rows of the file", show_lines=False)
    for name in COLUMNS:
        table.add_column(name, max_width=MAX_CELL_CHARS, no_wrap=True, overflow="ellipsis")
    with file.open(newline="", encoding="utf-8") as lines:
        for row in islice(csv.DictReader(lines), 8):
            table.add_row(*(Text(" ".join(row[name].split())) for name in COLUMNS))
    return table


def _proof(result: dict[str, object]) -> Table:
    table = Table("what was proven", "", title="The result")
    proof = result["completeness"]
    assert isinstance(proof, dict)
    table.add_row("outcome", str(proof["outcome"]))
    table.add_row("how the end is known", str(proof["end_reason"]))
    table.add_row("rows announced at the start", f"{proof['total_at_start']:,}")
    table.add_row("rows announced at the end", f"{proof['total_at_end']:,}")
    table.add_row("rows in the file, counted after the download", f"{result['record_count']:,}")
    table.add_row("bytes", f"{result['file_size']:,}")
    table.add_row("link valid until", str(result["expiry_time"]))
    return table

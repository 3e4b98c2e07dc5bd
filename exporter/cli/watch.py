"""Runs an export from a terminal: shows its progress, downloads its file and checks it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from exporter.cli import progress
from exporter.cli.client import Client, ServiceError, count_rows, download


def fetch(client: Client, request: Mapping[str, Any], file: Path, err: Console) -> dict[str, Any]:
    """Creates an export, waits for it, downloads its file, and returns the record of the export.

    Raises ServiceError if the export does not finish, or if the file has another size or another
    number of rows than the record says.
    """
    created = client.create(request)
    export_id = created["id"]
    err.print(f"export {export_id} is {created['state']}", highlight=False)
    try:
        with progress.shown(err) as show:
            record = client.wait(export_id, show)
        if record["state"] != "finished":
            why = f": {record['error']}" if record["error"] else ""
            raise ServiceError(f"export {export_id} {record['state']}{why}")
        result = record["result"]
        _download(result, file, err)
    except KeyboardInterrupt:
        err.print(f"\nThe export continues. Poll {export_id} by the API, or cancel it.")
        raise
    rows = count_rows(file, record["format"])
    if rows != result["record_count"]:
        raise ServiceError(f"{file} holds {rows} rows, {result['record_count']} were announced")
    said = result["completeness"]
    err.print(
        f"{file}: {rows:,} rows, {result['file_size']:,} bytes, {said['outcome']} "
        f"({said['end_reason']}; announced at the start {said['total_at_start']}, "
        f"at the end {said['total_at_end']})",
        highlight=False,
        soft_wrap=True,
    )
    for field, count in sorted(result["unmapped_fields"].items()):
        err.print(
            f"  not a column: {escape(field)}, in {count:,} rows (give --columns to have it)",
            highlight=False,
        )
    return record


def _download(result: Mapping[str, Any], file: Path, err: Console) -> None:
    with Progress(
        TextColumn("download  "),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=err,
    ) as bar:
        task = bar.add_task("", total=result["file_size"])
        download(
            result["download_url"],
            file,
            result["file_size"],
            lambda count: bar.advance(task, count),
        )

"""Runs an export from a terminal: shows its progress, downloads its file and checks it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
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
from exporter.cli.remote import ServiceError, count_rows
from exporter.client import Export, Exporter

CANCEL_SECONDS = 3.0
"""Time after Ctrl-C in which another one cancels the export."""
INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended."""


def create(exporter: Exporter, request: Mapping[str, Any], err: Console) -> Export:
    """Creates the export of a request and prints its id."""
    source, query = request["source"], request["query"]
    options: Any = {name: one for name, one in request.items() if name not in ("source", "query")}
    export = exporter.create(source, query, **options)
    err.print(f"export {export.id} is {export.state}", highlight=False)
    return export


def follow(exporter: Exporter, export_id: str, err: Console) -> Export:
    """Shows the progress of an export until its end, and returns it.

    Raises ServiceError if it ends without a file. Ctrl-C ends the command and leaves the export;
    a second one cancels it.
    """
    try:
        with progress.shown(err) as show:
            export = exporter.wait(export_id, watch=lambda one: show(one.to_dict()))
    except KeyboardInterrupt:
        _leave(exporter, export_id, err)
        raise typer.Exit(INTERRUPTED) from None
    if export.state != "finished":
        why = f": {export.error}" if export.error else ""
        raise ServiceError(f"export {export.id} {export.state}{why}")
    return export


def fetch(exporter: Exporter, export: Export, file: Path, err: Console) -> Export:
    """Downloads the file of a finished export, counts its rows and prints the proof.

    Raises ServiceError if the file has another number of rows than the record says.
    """
    assert export.result is not None
    try:
        _download(exporter, export, file, err)
    except KeyboardInterrupt:
        err.print(f"\nThe same command again goes on: download {export.id}", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    result = export.result
    if export.compression == "none":
        rows = count_rows(file, export.format)
        if rows != result.record_count:
            raise ServiceError(f"{file} holds {rows} rows, {result.record_count} were announced")
    err.print(f"{file}: {proof(export)}", highlight=False, soft_wrap=True)
    for field, count in sorted(result.unmapped_fields.items()):
        err.print(
            f"  not a column: {escape(field)}, in {count:,} rows (give --columns to have it)",
            highlight=False,
        )
    return export


def proof(export: Export) -> str:
    """Returns the size of the file of an export, and how its end is known, in one line."""
    result = export.result
    assert result is not None
    text = f"{result.record_count:,} rows, {result.file_size:,} bytes"
    said = result.completeness
    if said is None:
        return text
    return (
        f"{text}, {said.outcome} ({said.end_reason}; announced at the start "
        f"{said.total_at_start}, at the end {said.total_at_end})"
    )


def _leave(exporter: Exporter, export_id: str, err: Console) -> None:
    """Prints how to watch again; cancels the export if Ctrl-C comes again."""
    err.print(
        f"\nThe export goes on: `exporter watch {export_id}` shows it again. "
        f"Ctrl-C within {CANCEL_SECONDS:g} s cancels it.",
        highlight=False,
        soft_wrap=True,
    )
    try:
        time.sleep(CANCEL_SECONDS)
    except KeyboardInterrupt:
        export = exporter.cancel(export_id)
        said = "canceled" if export.has_ended else "asked to stop"
        err.print(f"export {export_id} is {said}", highlight=False)


def _download(exporter: Exporter, export: Export, file: Path, err: Console) -> None:
    assert export.result is not None
    with Progress(
        TextColumn("download  "),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=err,
    ) as bar:
        task = bar.add_task("", total=export.result.file_size)
        exporter.download(export, file, count=lambda size: bar.update(task, completed=size))

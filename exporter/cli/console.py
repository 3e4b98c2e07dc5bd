"""The terminal of the `exporter` command: output, errors, and the folder of a local stack."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from exporter.errors import ExporterError

DATA_DIR = Path(".exporter")
"""Folder of the state of `exporter up`, below the working directory."""

out = Console()
err = Console(stderr=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turns our errors into one line on stderr and exit code 1."""
    try:
        yield
    except (ExporterError, ValueError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None

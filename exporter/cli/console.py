"""Where the `exporter` command writes, and how it says what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from exporter.errors import ExporterError

out = Console()
err = Console(stderr=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Turns our errors into one line for the reader and exit code 1."""
    try:
        yield
    except (ExporterError, ValueError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None

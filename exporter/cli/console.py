"""Console of the `exporter` command: output, error messages, and the folder of a local stack."""

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
    """Context manager that prints an expected error as one line on stderr and exits with code 1.

    Expected are ExporterError, ValueError and OSError.
    """
    try:
        yield
    except (ExporterError, ValueError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None

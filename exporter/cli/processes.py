"""The commands that the Procfile uses: each runs one process of the service until SIGTERM."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from exporter import logs
from exporter.cli import local_stack
from exporter.cli.console import report_errors
from exporter.settings import MAX_CONCURRENCY

Port = Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]


def _slots(value: int | None) -> int | None:
    if value is not None and not 1 <= value <= MAX_CONCURRENCY:
        raise typer.BadParameter(
            f"{value}: give 1 to {MAX_CONCURRENCY}; for more slices at once, start more workers"
        )
    return value


def api(port: Port = 8800, host: Host = "127.0.0.1") -> None:
    """Serve the REST API."""
    local_stack.use()
    logs.configure("api")
    with report_errors():
        from exporter.api.server import serve
        from exporter.settings import load

        if load().console:
            from exporter.console.app import pages

            serve(host, port, pages())
        else:
            serve(host, port)


def worker(
    concurrency: Annotated[
        int | None,
        typer.Option(callback=_slots, help="Slices at once; default: two for each core."),
    ] = None,
) -> None:
    """Run Celery workers that write exports."""
    _become("worker", str(concurrency or 2 * (os.cpu_count() or 1)))


def webhooks() -> None:
    """Run Celery workers that send webhooks; they write no exports."""
    _become("webhooks")


def beat() -> None:
    """Run the scheduler of the hourly cleanup. Run one; without it the cleanup does not run."""
    _become("beat")


def _become(*arguments: str) -> NoReturn:
    """Replaces this process by `python -m workers`, which gets its signals and sets its exit code.

    The package `workers` imports Celery and is never imported by `exporter`.
    """
    local_stack.use()
    os.execv(sys.executable, [sys.executable, "-m", "workers", *arguments])  # noqa: S606

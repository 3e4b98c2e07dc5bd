"""Console of the `exporter` command: output, error messages, and the folder of a local stack."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from exporter.errors import ConfigurationError, ExporterError

DATA_DIR = Path(".exporter")
"""Folder of the state of `exporter up`, below the working directory."""


class SafeConsole(Console):
    """A console that shows control characters as text instead of sending them to the terminal.

    Descriptions, URLs, names and errors come from other people, and a terminal runs the escape
    sequences that it receives: they move the cursor, rename the window or change what is read.
    Words between colons stay words, too: `:key:` in a text is no emoji.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_visible(segment.text), segment.style)


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape").decode()
        for one in text
    )


out = SafeConsole()
err = SafeConsole(stderr=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Context manager that prints an expected error as one line on stderr and exits with code 1.

    Expected are ExporterError, ValueError and OSError. A wrong setting ends with code 78: a
    supervisor that starts the process again changes nothing.
    """
    try:
        yield
    except ConfigurationError as error:
        _print_error(error)
        raise typer.Exit(os.EX_CONFIG) from None
    except (ExporterError, ValueError, OSError) as error:
        _print_error(error)
        raise typer.Exit(1) from None


def _print_error(error: Exception) -> None:
    err.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


def print_warning(text: str) -> None:
    """Prints a warning as one line on stderr."""
    err.print(f"[yellow]warning:[/] {escape(text)}", highlight=False, soft_wrap=True)

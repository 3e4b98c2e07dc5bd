"""The console of the command line: texts of other people cannot control the terminal."""

from __future__ import annotations

import io

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from exporter.cli.console import SafeConsole

HOSTILE = "a\x1b[2Jb\x07c\x9b1;31md\u202ee\rf"
SHOWN = r"a\x1b[2Jb"


def printed(*renderables: object) -> str:
    file = io.StringIO()
    SafeConsole(file=file, width=120).print(*renderables, markup=False, highlight=False)
    return file.getvalue()


def check(text: str) -> None:
    assert SHOWN in text
    assert all(one.isprintable() or one == "\n" for one in text)


def in_table() -> Table:
    table = Table("a description")
    table.add_row(HOSTILE)
    return table


@pytest.mark.parametrize(
    "renderable", [HOSTILE, Text(HOSTILE), in_table()], ids=["str", "Text", "Table"]
)
def test_control_characters_are_shown_as_text(renderable: object) -> None:
    # When
    text = printed(renderable)

    # Then
    check(text)


def test_control_characters_in_a_progress_bar_are_shown_as_text() -> None:
    # Given
    file = io.StringIO()
    console = SafeConsole(file=file, width=120)

    # When
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bar:
        bar.add_task(HOSTILE)

    # Then
    check(file.getvalue())


def test_our_own_colors_and_lines_are_kept() -> None:
    # Given
    file = io.StringIO()
    console = SafeConsole(file=file, width=120, force_terminal=True, color_system="standard")

    # When
    console.print("[red]error:[/] two\nlines, naïve 🦊")

    # Then
    assert file.getvalue() == "\x1b[31merror:\x1b[0m two\nlines, naïve 🦊\n"

"""Whoever follows an export sees why it waits and for how long, in a terminal and in a log."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from exporter.cli import progress
from exporter.cli.console import SafeConsole

REASON = "the source answered 503: over capacity, the board is being updated"
RUNNING = {"state": "processing", "phase": "reading", "progress": 0.4, "record_count": 8_000}
WAITING = RUNNING | {
    "phase": "waiting",
    "waiting_for": REASON,
    "retry_at": "2026-11-30T12:01:35Z",
    "retry_in_seconds": 95,
}
FINISHED = RUNNING | {"state": "finished", "phase": "done", "progress": 1.0}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def drawn(bar: progress._Bar, width: int) -> list[str]:
    """The lines that are on the screen now."""
    file = io.StringIO()
    console = SafeConsole(file=file, width=width, force_terminal=True, color_system=None)
    console.print(bar.get_renderable())
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_shows_the_reason_and_counts_the_seconds_down(clock: Clock, width: int) -> None:
    # Given
    screen = SafeConsole(file=io.StringIO(), width=width, force_terminal=True)
    with progress.shown(screen) as show:
        bar = show.__self__  # type: ignore[attr-defined]
        # When
        show(WAITING)
        before = drawn(bar, width)
        clock.now += 31
        after = drawn(bar, width)
        clock.now += 99
        late = drawn(bar, width)
        show(RUNNING)
        running = drawn(bar, width)
    # Then
    assert before[0].startswith("waiting ")
    assert "40%" in before[0]
    assert "".join(before[1:]).startswith("next try in 1:35: the source answered 503")
    assert "".join(after[1:]).startswith("next try in 1:04: ")
    assert "".join(late[1:]).startswith("next try as soon as a worker is free: ")
    assert REASON.replace(" ", "") in "".join("".join(after[1:]).split())
    assert max(map(len, before + after)) <= width
    assert len(running) == 1


def test_without_a_terminal_each_wait_is_one_line(clock: Clock) -> None:
    # Given
    file = io.StringIO()
    with progress.shown(Console(file=file, width=60)) as show:
        # When
        for record in (RUNNING, RUNNING, WAITING, WAITING | {"retry_in_seconds": 93}):
            show(record)
            clock.now += 1
        show(WAITING | {"retry_at": "2026-11-30T12:05:00Z", "retry_in_seconds": 200})
        clock.now += 300
        show(RUNNING)
        clock.now += progress.SECONDS_BETWEEN_LINES
        show(RUNNING)
        show(FINISHED)
    # Then
    assert file.getvalue().splitlines() == [
        "reading 40% 8,000 rows",
        f"waiting 40% 8,000 rows, next try in 1:35: {REASON}",
        f"waiting 40% 8,000 rows, next try in 3:20: {REASON}",
        "reading 40% 8,000 rows",
        "reading 40% 8,000 rows",
        "finished 100% 8,000 rows",
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"retry_in_seconds": 7_384}, "next try in 2:03:04: "),
        ({"retry_in_seconds": 0}, "next try as soon as a worker is free: "),
        ({"retry_in_seconds": None}, "rows, the source"),
        ({"waiting_for": None}, "no reason is known"),
        ({"waiting_for": "[red]x[/] \x1b[2J"}, r": [red]x[/] \x1b[2J"),
        ({"waiting_for": "long " * 200}, "long …"),
    ],
)
def test_any_wait_is_shown(clock: Clock, more: dict[str, Any], said: str) -> None:
    # Given: a service of version 0.1.0 gives no seconds
    file = io.StringIO()
    # When
    with progress.shown(SafeConsole(file=file, width=60)) as show:
        show(WAITING | more)
    # Then
    (line,) = file.getvalue().splitlines()
    assert re.search(re.escape(said), line)
    assert len(line) < 300

"""Shows the progress of an export: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
"""Minimum time between two lines that differ only in the progress, where there is no terminal."""
MAX_REASON_CHARS = 200
"""Longest reason of a wait that is shown."""

Show = Callable[[Mapping[str, Any]], None]
"""Shows a polled record."""


@contextmanager
def shown(console: Console) -> Iterator[Show]:
    """Yields the function that shows a polled record of an export.

    While the export waits, the reason is shown, with the seconds until it continues; a terminal
    counts them down.
    """
    if not console.is_terminal:
        yield _Lines(console).show
        return
    with _Bar(console) as bar:
        yield bar.show


class _Bar(Progress):
    def __init__(self, console: Console) -> None:
        self._wait: _Wait | None = None
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}% {task.fields[rows]:,} rows"),
            TimeElapsedColumn(),
            console=console,
        )
        self._export = self.add_task("queued", total=1.0, rows=0)

    def show(self, record: Mapping[str, Any]) -> None:
        self._wait = _Wait.of(record)
        self.update(
            self._export,
            description=f"{_doing(record):10}",
            completed=record["progress"],
            rows=record["record_count"] or 0,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self._wait is not None:
            yield Text(self._wait.text(), overflow="fold")


class _Lines:
    """Prints a line when the activity changes, and now and then about the progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[object, ...] = ()
        self._printed_at = float("-inf")

    def show(self, record: Mapping[str, Any]) -> None:
        doing, wait = _doing(record), _Wait.of(record)
        activity = (doing, record.get("waiting_for"), record.get("retry_at"))
        now = time.monotonic()
        if activity == self._last and (
            wait is not None or now - self._printed_at < SECONDS_BETWEEN_LINES
        ):
            return
        self._last, self._printed_at = activity, now
        rows = record["record_count"] or 0
        line = f"{doing} {record['progress']:.0%} {rows:,} rows"
        if wait is not None:
            line += f", {wait.text()}"
        self._console.print(Text(line), soft_wrap=True)


class _Wait:
    """The reason of a wait, and the time at which it ends by the clock of this process."""

    def __init__(self, reason: str, seconds: float | None) -> None:
        cut = reason if len(reason) <= MAX_REASON_CHARS else f"{reason[:MAX_REASON_CHARS]}…"
        self._reason = " ".join(cut.split())
        self._until = None if seconds is None else time.monotonic() + seconds

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> _Wait | None:
        """Returns the wait of a polled record; None if its export does not wait."""
        if _doing(record) != "waiting":
            return None
        reason = record.get("waiting_for") or "no reason is known"
        return cls(reason, record.get("retry_in_seconds"))

    def text(self) -> str:
        if self._until is None:
            return self._reason
        left = round(self._until - time.monotonic())
        if left <= 0:
            return f"next try as soon as a worker is free: {self._reason}"
        return f"next try in {_duration(left)}: {self._reason}"


def _doing(record: Mapping[str, Any]) -> str:
    """Returns one word for the activity of an export."""
    return str(record["phase"] if record["state"] == "processing" else record["state"])


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

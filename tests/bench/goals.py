"""The ratios that the goals of the project are stated in, computed from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from tests.bench.contestants import ENGINES
from tests.bench.turns import Turn, TurnFailed


class Median(NamedTuple):
    """What a contestant took, in the middle of its rounds."""

    speed: float
    """Rows per second."""
    cpu: float
    """Seconds of CPU for a million rows."""


Medians = Mapping[str, Median]
Ratio = Callable[[Medians], float]


class Goal(NamedTuple):
    """A figure that must be reached, and one that would be better still."""

    must: float
    stretch: float | None = None

    def __str__(self) -> str:
        return f"{self.must:g}" if self.stretch is None else f"{self.must:g} / {self.stretch:g}"


PLAIN = Goal(1.9, 2.6)
CPU_LESS = Goal(2.0, 2.8)
OVER_FLOOR = Goal(2.1, 1.6)
LATENCY = 20
"""Milliseconds that a page takes where the goal is stated."""
WAITING = Goal(4, 5.5)
MEMORY = Goal(150, 130)
"""Megabytes of a worker process at most."""


def ran(turns: Iterable[Turn | TurnFailed]) -> list[Turn]:
    """The turns that did not fail."""
    return [turn for turn in turns if isinstance(turn, Turn)]


def medians(turns: Mapping[str, list[Turn | TurnFailed]]) -> dict[str, Median]:
    """By the name of the contestant, without those who always failed."""
    return {
        name: Median(
            statistics.median(turn.rows / turn.seconds for turn in ran(one)),
            statistics.median(turn.cpu / turn.rows * 1e6 for turn in ran(one)),
        )
        for name, one in turns.items()
        if ran(one)
    }


def _speeds(ours: str, other: str) -> Ratio:
    return lambda found: found[ours].speed / found[other].speed


def _over_engines(ours: str, engines: Iterable[str] = ENGINES) -> Ratio:
    return lambda found: (
        found[ours].speed / max(found[name].speed for name in engines if name in found)
    )


def _cpus(one: str, other: str) -> Ratio:
    return lambda found: found[one].cpu / found[other].cpu


RATIOS: tuple[tuple[str, Ratio, dict[str, Goal]], ...] = (
    (
        "rows/s over ClickHouse, pages (`chdb`): 2 workers",
        _speeds("ours-2", "chdb"),
        {"csv": PLAIN, "jsonl": PLAIN, "csv.gz": Goal(2.3, 3), "jsonl.gz": Goal(3, 3.5)},
    ),
    ("rows/s over ClickHouse, pages: 1 worker", _speeds("ours-1", "chdb"), {}),
    ("rows/s over the quickest engine on pages: 2 workers", _over_engines("ours-2"), {}),
    ("rows/s over the quickest engine on pages: 1 worker", _over_engines("ours-1"), {}),
    ("rows/s over `naive`: 2 workers", _speeds("ours-2", "naive"), {"csv": Goal(14)}),
    ("rows/s over `naive`: 1 worker", _speeds("ours-1", "naive"), {}),
    (
        "CPU of ClickHouse over that of 2 workers",
        _cpus("chdb", "ours-2"),
        {"csv": CPU_LESS, "jsonl": CPU_LESS},
    ),
    (
        "CPU over the floor, the less the better: 2 workers",
        _cpus("ours-2", "floor"),
        {"csv": OVER_FLOOR, "jsonl": OVER_FLOOR},
    ),
    (
        "CPU over the floor: 1 worker",
        _cpus("ours-1", "floor"),
        {"csv": OVER_FLOOR, "jsonl": OVER_FLOOR},
    ),
)
"""What is compared, and the goals by format."""


def ratios(by_format: Mapping[str, Medians]) -> Iterator[tuple[str, ...]]:
    """Lines of a table: what is compared, then for each format the ratio, and the goal if any."""
    for title, ratio, goals in RATIOS:
        cells = []
        for format_, found in by_format.items():
            try:
                goal = f" ({goals[format_]})" if format_ in goals else ""
                cells.append(f"{ratio(found):.2f}{goal}")
            except (KeyError, ValueError):
                cells.append("")  # a contestant did not take part
        if any(cells):
            yield title, *cells


def waiting(found: Medians) -> str | None:
    """The speed of 2 workers over that of the quickest engine, where pages take a while."""
    try:
        ratio = _over_engines("ours-2", (*ENGINES, "polars-nd"))(found)
    except (KeyError, ValueError):
        return None
    return f"{ratio:.2f} ({WAITING})"

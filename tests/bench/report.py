"""The page of results: the same layout each time, and nothing in it that names the machine."""

from __future__ import annotations

import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import sampling
from tests.bench.contestants import ALL, SHOWN, Contestant
from tests.bench.turns import Turn, TurnFailed

HOW_TO_READ = """\
# How quick it is

Written by `python -m tests.bench`; a further run replaces it.

Everybody makes the same file of the same postings: from pages of 200 that an HTTP server on this
machine has ready in memory, to one object in an S3 on this machine. All run on the same cores, one
after another in rounds; a figure is the median of its rounds. Trust the order and the ratios, not
the rows per second: those are this machine's, and include what the servers take of it.

- rows/s: from the order to the published file. Starting the process and importing libraries come
  before; ours begins with the creation of the export, and ends when its record says finished.
- x naive, x best: how many times the speed of the naive script, and what share of the quickest's.
- CPU s/M: seconds of CPU, user and system, of all its processes, for a million rows. The
  steadiest figure on a machine that does other things, too.
- peak MB: resident memory of all its processes together, each at its highest.
- file MB: what it wrote. Descriptions are a few hundred words, shuffled: they pack somewhat better
  than real ones do.

CSV has 26 columns, lists and objects in them as JSON text; JSON Lines are whole postings.
"""
SINKS = {
    "null": "To an S3 that discards what it gets\n\nWhat the contestants themselves can do.",
    "s3": "To SeaweedFS\n\nA real S3 on the same cores, which then has the larger share of the "
    "work: differences shrink. One round, unless it was run alone.",
}


@dataclass
class Session:
    """What was measured."""

    rows: int
    runs: int
    latency: float
    versions: dict[str, str]
    missing: Sequence[Contestant]
    turns: defaultdict[tuple[str, str], dict[str, list[Turn | TurnFailed]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    profiles: dict[str, Turn] = field(default_factory=dict)
    memory: dict[int, Turn] = field(default_factory=dict)

    def add(self, sink: str, format_: str, one: Contestant, turn: Turn | TurnFailed) -> None:
        self.turns[sink, format_].setdefault(one.name, []).append(turn)


def page(session: Session) -> str:
    """All that was measured, as Markdown."""
    parts = [HOW_TO_READ, "\n".join(_circumstances(session))]
    for sink, title in SINKS.items():
        tables = [
            f"### {format_}\n\n" + "\n".join(_comparison(session.rows, turns))
            for (at, format_), turns in session.turns.items()
            if at == sink
        ]
        if tables:
            parts += [f"## {title}", *tables]
    if session.profiles:
        parts.append("## Where the time of one worker goes\n\n" + PROFILE_NOTE)
        for format_, turn in session.profiles.items():
            parts.append(f"### {format_}\n\n" + "\n".join(_profile(session.rows, turn)))
    if session.memory:
        lines = [(f"{rows:,}", _mb(sum(turn.peaks))) for rows, turn in session.memory.items()]
        table = "\n".join(_table(("rows", "peak MB"), lines))
        parts.append(f"## Memory of one worker, CSV\n\n{table}")
    if session.turns:
        parts.append("## In what they differ\n\n" + "\n".join(_differences(session)))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


PROFILE_NOTE = """\
Looked at every 5 ms; a library's time belongs to what called it. CPU is that of all threads; wall
is the main thread's time, waiting included. Sampling itself is not in it."""


def _circumstances(session: Session) -> Iterator[str]:
    latency = f"{session.latency:g} ms" if session.latency else "none"
    packages = [f"{name} {session.versions[name]}" for name in SHOWN if name in session.versions]
    yield from _table(
        ("", ""),
        [
            ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
            ("rows of each export", f"{session.rows:,}"),
            ("rounds", str(session.runs)),
            ("latency of a page", latency),
            ("machine", _machine()),
            ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
            ("peers", ", ".join(packages)),
        ],
    )


def _machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return f"{os.cpu_count()} cores ({cpu}), {memory / 2**30:.0f} GiB"


def _comparison(rows: int, turns: dict[str, list[Turn | TurnFailed]]) -> Iterator[str]:
    speeds = {
        name: statistics.median(rows / turn.seconds for turn in _ran(one))
        for name, one in turns.items()
        if _ran(one)
    }
    best, naive = max(speeds.values(), default=0.0), speeds.get("naive")
    lines: list[tuple[str, ...]] = []
    for name in sorted(turns, key=lambda name: -speeds.get(name, 0.0)):
        title = next(f"{one.what} (`{name}`)" for one in ALL if one.name == name)
        if name not in speeds:
            lines.append((title, "failed", *[""] * 5))
            continue
        ran = _ran(turns[name])
        lines.append(
            (
                title,
                f"{speeds[name]:,.0f}",
                f"{speeds[name] / naive:.1f}" if naive else "",
                f"{speeds[name] / best:.2f}",
                f"{statistics.median(turn.cpu for turn in ran) / rows * 1e6:.1f}",
                _mb(statistics.median(sum(turn.peaks) for turn in ran)),
                _mb(ran[0].size),
            )
        )
    yield from _table(("", "rows/s", "x naive", "x best", "CPU s/M", "peak MB", "file MB"), lines)


def _ran(turns: Iterable[Turn | TurnFailed]) -> list[Turn]:
    return [turn for turn in turns if isinstance(turn, Turn)]


def _profile(rows: int, turn: Turn) -> Iterator[str]:
    samples = turn.told["samples"]
    cpu, wall = (sum(one[place] for one in samples.values()) for place in (0, 1))
    yield from _table(
        ("", "CPU s/M", "of CPU", "of wall"),
        [
            (
                group,
                f"{samples[group][0] / rows * 1e6:.1f}",
                f"{samples[group][0] / cpu:.0%}",
                f"{samples[group][1] / wall:.0%}",
            )
            for group in sampling.ORDER
        ],
    )


def _differences(session: Session) -> Iterator[str]:
    ran = {name for turns in session.turns.values() for name in turns}
    for one in ALL:
        if one in session.missing:
            yield f"- `{one.name}`: left out, {' or '.join(one.needs)} was not installed."
        elif one.name in ran:
            yield f"- `{one.name}`: {one.apart}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for line in lines:
        yield f"| {' | '.join(line)} |"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}"

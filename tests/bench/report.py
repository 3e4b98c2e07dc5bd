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

from tests.bench import goals, sampling
from tests.bench.contestants import ALL, BY_NAME, SHOWN, Contestant
from tests.bench.goals import medians, ran
from tests.bench.turns import Turn, TurnFailed

HOW_TO_READ = """\
# How quick it is

Written by `python -m tests.bench`; a further run replaces it.

Everybody makes the same file of the same postings: from pages of 200 that an HTTP server on this
machine has ready in memory, to one object in an S3 on this machine. All run on the same cores, one
after another in rounds; a figure is the median of its rounds. Peers with less than half the speed
of the quickest of them have one round only. Trust the order and the ratios, not the rows per
second: those are this machine's, and include what the servers take of it.

- rows/s: from the order to the published file. Starting the process and importing libraries come
  before; ours begins with the creation of the export, and ends when its record says finished.
- x naive, x best: how many times the speed of the naive script, and what share of the quickest's.
- CPU s/M: seconds of CPU, user and system, of all its processes, for a million rows. The
  steadiest figure on a machine that does other things, too.
- servers: seconds of CPU for a million rows that the upstream and the S3 took meanwhile, from the
  same cores.
- peak MB: resident memory of all its processes together, each at its highest.
- file MB: what it wrote. Descriptions are a few hundred words, shuffled: they pack somewhat better
  than real ones do.

CSV has 26 columns, lists and objects in them as JSON text; JSON Lines are whole postings.
"""
SINKS = {
    "null": "To an S3 that discards what it gets\n\nWhat the contestants themselves can do.",
    "s3": "To SeaweedFS\n\nA real S3 on the same cores, which then has the larger share of the "
    "work: differences shrink. One round of fewer rows, unless it was run alone.",
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
    memory: dict[int, dict[str, Turn | TurnFailed]] = field(default_factory=dict)
    waiting: dict[int, dict[str, list[Turn | TurnFailed]]] = field(default_factory=dict)
    """By milliseconds that a page takes, then by contestant."""

    def add(self, sink: str, format_: str, one: Contestant, turn: Turn | TurnFailed) -> None:
        self.turns[sink, format_].setdefault(one.name, []).append(turn)


def page(session: Session) -> str:
    """All that was measured, as Markdown."""
    parts = [HOW_TO_READ, "\n".join(_circumstances(session)), *_goals(session)]
    for sink, title in SINKS.items():
        tables = [
            f"### {format_}\n\n" + "\n".join(_comparison(turns))
            for (at, format_), turns in session.turns.items()
            if at == sink
        ]
        if tables:
            parts += [f"## {title}", *tables]
    if session.waiting:
        parts.append(f"## {WAITING_NOTE}\n\n" + "\n".join(_waiting(session)))
    if session.profiles:
        parts.append("## Where the time of one worker goes\n\n" + PROFILE_NOTE)
        for format_, turn in session.profiles.items():
            parts.append(f"### {format_}\n\n" + "\n".join(_profile(turn)))
    if session.memory:
        parts.append(f"## {MEMORY_NOTE}\n\n" + "\n".join(_memory(session)))
    if session.turns:
        parts.append("## In what they differ\n\n" + "\n".join(_differences(session)))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


GOALS_NOTE = """\
Goals and what was reached

To the S3 that discards; after a ratio, in parentheses, what it must be and what it should be.
"""
WAITING_NOTE = """\
When a page takes a while

CSV, to the S3 that discards; rows/s where each page waits before it is answered. The floor asks for
one page after another. One round."""
MEMORY_NOTE = """\
Memory of a worker process

CSV, to the S3 that discards; the most that a process held, in MB, of 2 that of the larger."""
PROFILE_NOTE = """\
Looked at every 5 ms; a library's time belongs to what called it. CPU is that of all threads; wall
is the main thread's time, waiting included. Sampling itself is not in it. Not seen is the CPU of
threads that ended between two looks."""


def _circumstances(session: Session) -> Iterator[str]:
    latency = f"{session.latency:g} ms" if session.latency else "none"
    packages = [f"{name} {session.versions[name]}" for name in SHOWN if name in session.versions]
    yield from _table(
        ("", ""),
        [
            ("date", f"{datetime.now(UTC):%Y-%m-%d}"),
            ("rows of each export", _rows(session)),
            ("rounds", f"{session.runs}; of the slow and of SeaweedFS 1"),
            ("latency of a page", latency),
            ("machine", _machine()),
            ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
            ("peers", ", ".join(packages)),
        ],
    )


def _rows(session: Session) -> str:
    fewer = {
        turn.rows
        for (sink, _), turns in session.turns.items()
        if sink == "s3"
        for some in turns.values()
        for turn in ran(some)
    } - {session.rows}
    return f"{session.rows:,}" + "".join(f"; to SeaweedFS {rows:,}" for rows in fewer)


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


def _goals(session: Session) -> Iterator[str]:
    by_format = {
        format_: medians(turns) for (at, format_), turns in session.turns.items() if at == "null"
    }
    lines = list(goals.ratios(by_format))
    waiting = goals.waiting(medians(session.waiting.get(goals.LATENCY, {})))
    notes = []
    if waiting is not None:
        notes.append(
            f"- With {goals.LATENCY} ms a page, CSV, rows/s over the quickest engine: 2 workers "
            f"{waiting}."
        )
    peaks = [max(turn.peaks) for one in session.memory.values() for turn in ran(one.values())]
    if peaks:
        notes.append(f"- Memory of a worker process, in MB: {_mb(max(peaks))} ({goals.MEMORY}).")
    if not lines and not notes:
        return
    yield f"## {GOALS_NOTE}"
    if lines:
        yield "\n".join(_table(("", *by_format), lines))
    if notes:
        yield "\n".join(notes)


def _comparison(turns: dict[str, list[Turn | TurnFailed]]) -> Iterator[str]:
    found = medians(turns)
    best = max((one.speed for one in found.values()), default=0.0)
    lines: list[tuple[str, ...]] = []
    for name in sorted(turns, key=lambda name: -found[name].speed if name in found else 0.0):
        title = f"{BY_NAME[name].what} (`{name}`)"
        if name not in found:
            lines.append((title, "failed", *[""] * 7))
            continue
        these = ran(turns[name])
        speed = found[name].speed
        upstream, s3 = (
            statistics.median(turn.servers[place] / turn.rows * 1e6 for turn in these)
            for place in (0, 1)
        )
        lines.append(
            (
                title,
                f"{speed:,.0f}",
                f"{speed / found['naive'].speed:.1f}" if "naive" in found else "",
                f"{speed / best:.2f}",
                f"{found[name].cpu:.1f}",
                f"{upstream:.1f} + {s3:.1f}",
                _mb(statistics.median(sum(turn.peaks) for turn in these)),
                _mb(these[0].size),
                str(len(these)),
            )
        )
    yield from _table(COLUMNS, lines)


COLUMNS = (
    *("", "rows/s", "x naive", "x best", "CPU s/M", "servers", "peak MB", "file MB", "rounds"),
)


def _waiting(session: Session) -> Iterator[str]:
    found = {latency: medians(turns) for latency, turns in session.waiting.items()}
    names = [
        one.name for one in ALL if any(one.name in these for these in session.waiting.values())
    ]
    rows = {
        turn.rows for one in session.waiting.values() for some in one.values() for turn in ran(some)
    }
    yield f"{max(rows, default=0):,} rows.\n"
    yield from _table(
        ("", *(f"{latency} ms" for latency in found)),
        [
            (
                f"{BY_NAME[name].what} (`{name}`)",
                *(f"{one[name].speed:,.0f}" if name in one else "failed" for one in found.values()),
            )
            for name in names
        ],
    )


def _memory(session: Session) -> Iterator[str]:
    names = [one.name for one in ALL if any(one.name in these for these in session.memory.values())]
    yield from _table(
        ("rows", *(BY_NAME[name].what for name in names)),
        [
            (
                f"{rows:,}",
                *(
                    _mb(max(turn.peaks)) if isinstance(turn, Turn) else "failed"
                    for turn in (turns[name] for name in names)
                ),
            )
            for rows, turns in session.memory.items()
        ],
    )


def _profile(turn: Turn) -> Iterator[str]:
    samples = turn.told["samples"]
    cpu, wall = (sum(one[place] for one in samples.values()) for place in (0, 1))
    lines = [
        (
            group,
            f"{samples[group][0] / turn.rows * 1e6:.1f}",
            f"{samples[group][0] / cpu:.0%}",
            f"{samples[group][1] / wall:.0%}",
        )
        for group in sampling.ORDER
    ]
    # Of threads that ended between two looks.
    unseen = max(turn.cpu - turn.told["looks"] - cpu, 0.0)
    lines.append(("not seen", f"{unseen / turn.rows * 1e6:.1f}", "", ""))
    yield from _table(("", "CPU s/M", "of CPU", "of wall"), lines)


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

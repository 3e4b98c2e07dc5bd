"""`python -m tests.bench`: the same export by us and by others, on this machine, side by side.

    python -m tests.bench prepare             installs the peers, once, in the folder of caches
    python -m tests.bench                     the whole session, some 40 minutes; writes RESULTS.md
    python -m tests.bench --quick             few rows, one round, in 3 minutes
    python -m tests.bench --only ours-1,naive --formats csv --rows 100000
    python -m tests.bench check               whether what they write is right
    python -m tests.bench profile csv         where the time of one worker goes
    python -m tests.bench latency             with pages that take a while
    python -m tests.bench memory              of a worker, with few and many rows

Whatever is less than the whole session is only printed. Peers are taken from the environment that
`prepare` has made, or the interpreter that `--peers` names; those that are not installed there are
left out, and said to be.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from tests.bench import checking, contestants, goals, preparing, report, servers
from tests.bench.contestants import ALL, BY_NAME, FORMATS, OURS, WAITING, Contestant
from tests.bench.report import Session
from tests.bench.turns import Track, Turn, TurnFailed
from tests.bench.upstream import PAGE

ROWS = 200_000
S3_ROWS = 40_000
"""Of the second store at most."""
LATENCY_ROWS = 100_000
"""With pages that take a while, at most."""
LATENCIES = (0, 20, 50)
"""Milliseconds that a page takes."""
SLOW = 2
"""Peers that are so many times slower than the quickest of them have one round only."""
QUICK_ROWS = 8_000
CHECKED_ROWS = 4_000
RUNS = 3
MEMORY_ROWS = (10_000, 100_000, 1_000_000)
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    asked = _arguments()
    if asked.what == "prepare":
        preparing.prepare()
        return
    # So that a session that is told to end takes its servers and contestants along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    needed = {*contestants.SHOWN, *(name for one in ALL for name in one.needs)}
    versions = contestants.installed(asked.peers, needed)
    taking_part = [one for one in asked.only if one.ours or set(one.needs) <= versions.keys()]
    missing = [one for one in asked.only if one not in taking_part]
    out = Path(asked.out) if asked.out else RESULTS if _is_whole(asked) else None
    with tempfile.TemporaryDirectory() as name:
        if asked.what == "check":
            _say(f"left out, not installed: {', '.join(one.name for one in missing) or 'nobody'}")
            _check(Path(name), asked, taking_part)
            return
        session = Session(
            rows=asked.rows,
            runs=asked.runs,
            latency=asked.latency,
            versions=versions,
            missing=missing,
        )
        _measure(Path(name), asked, taking_part, session)
    text = report.page(session)
    sys.stdout.write(text)
    if out is not None:
        out.write_text(text, encoding="utf-8")


def _measure(
    directory: Path, asked: argparse.Namespace, taking_part: Sequence[Contestant], session: Session
) -> None:
    if asked.what == "compare":
        for sink in asked.sink:
            with _track(directory / sink, sink, asked.latency, asked) as track:
                _compare(track, sink, asked, taking_part, session)
    if asked.what == "latency" or _is_kept(asked):
        waiting = [one for one in WAITING if one in taking_part]
        for latency in LATENCIES:
            turns = session.waiting.setdefault(latency, {})
            with _track(directory / f"latency-{latency}", "null", latency, asked) as track:
                for one in waiting:
                    turn = _turn(track, one, "csv", min(asked.rows, LATENCY_ROWS))
                    turns.setdefault(one.name, []).append(turn)
    if asked.what in ("profile", "memory") or _is_kept(asked):
        with _track(directory / "own", "null", asked.latency, asked) as track:
            if asked.what != "memory":
                for format_ in (asked.format,) if asked.what == "profile" else ("csv", "jsonl"):
                    session.profiles[format_] = track.run(OURS, format_, asked.rows, "sample")
            for rows in MEMORY_ROWS if asked.what != "profile" else ():
                session.memory[rows] = {
                    name: _turn(track, BY_NAME[name], "csv", rows) for name in ("ours-1", "ours-2")
                }


def _compare(
    track: Track,
    sink: str,
    asked: argparse.Namespace,
    taking_part: Sequence[Contestant],
    session: Session,
) -> None:
    # A second store is a second opinion, for which one round of fewer rows is enough.
    is_first = sink == asked.sink[0]
    rows = asked.rows if is_first else min(asked.rows, S3_ROWS)
    for number in range(asked.runs if is_first else 1):
        for format_ in asked.formats:
            found = goals.medians(session.turns[sink, format_])
            peers = {one.name for one in taking_part if not one.here} & found.keys()
            best = max((found[name].speed for name in peers), default=0.0)
            for one in _turned(taking_part, number):
                is_slow = number and one.name in peers and found[one.name].speed * SLOW < best
                if not is_slow:
                    session.add(sink, format_, one, _turn(track, one, format_, rows))


def _turn(track: Track, one: Contestant, format_: str, rows: int) -> Turn | TurnFailed:
    try:
        turn = track.run(one, format_, rows)
    except TurnFailed as failed:
        _say(f"{one.name} {format_} failed:\n{failed}")
        return failed
    _say(
        f"{one.name:10} {format_:9} {rows / turn.seconds:8,.0f} rows/s "
        f"{turn.cpu / rows * 1e6:6.1f} CPU s/M {sum(turn.peaks) / 1e6:6.0f} MB"
    )
    return turn


def _check(directory: Path, asked: argparse.Namespace, taking_part: Sequence[Contestant]) -> None:
    # The null sink keeps nothing that could be looked at.
    with _track(directory, "s3", asked.latency, asked) as track:
        reference = checking.reference(track.servers, asked.rows)
        for format_ in asked.formats:
            for one in taking_part:
                try:
                    track.run(one, format_, asked.rows, keep=True)
                    found = checking.look(track.servers, reference, format_)
                except TurnFailed as failed:
                    found = f"failed:\n{failed}"
                finally:
                    track.servers.empty()
                _say(f"{one.name:10} {format_:9} {found}")


@contextmanager
def _track(
    directory: Path, sink: str, latency: float, asked: argparse.Namespace
) -> Iterator[Track]:
    directory.mkdir(exist_ok=True)
    with servers.running(directory, sink, latency) as running:
        yield Track(running, directory, asked.peers, in_flight=asked.in_flight)


def _turned(taking_part: Sequence[Contestant], number: int) -> list[Contestant]:
    """Each round begins with another, so that nobody always follows the same neighbour."""
    at = number * 5 % len(taking_part)
    return [*taking_part[at:], *taking_part[:at]]


def _is_kept(asked: argparse.Namespace) -> bool:
    """Whether it is a page for somebody to read later, which tells more than who is quickest."""
    return _is_whole(asked) or asked.out is not None


def _is_whole(asked: argparse.Namespace) -> bool:
    return (
        asked.what == "compare"
        and not asked.quick
        and asked.only == ALL
        and asked.formats == FORMATS
        and asked.sink == servers.SINKS
        and not asked.latency
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="?",
        default="compare",
        choices=("compare", "check", "profile", "latency", "memory", "prepare"),
    )
    parser.add_argument("format", nargs="?", default="csv", help="of the profile: csv or json")
    parser.add_argument("--rows", type=int, help=f"of each export; default {ROWS:,}")
    parser.add_argument("--runs", type=int, help=f"rounds of the session; default {RUNS}")
    parser.add_argument("--quick", action="store_true", help="few rows, one round, no S3")
    parser.add_argument("--formats", type=_formats, default=FORMATS, help=", ".join(FORMATS))
    parser.add_argument(
        "--only", type=_contestants, default=ALL, help=", ".join(one.name for one in ALL)
    )
    parser.add_argument("--latency", type=float, default=0.0, help="ms that each page takes")
    parser.add_argument(
        "--in-flight", type=int, default=8, help="pages that one worker of ours asks for at once"
    )
    parser.add_argument("--sink", choices=servers.SINKS, help="default: the one, then the other")
    parser.add_argument(
        "--peers", default=preparing.interpreter(), help="the interpreter of the others"
    )
    parser.add_argument("--out", help="a file to write to, besides printing")
    asked = parser.parse_args()
    asked.format = {"json": "jsonl"}.get(asked.format, asked.format)
    if asked.format not in FORMATS:
        parser.error(f"no format is called {asked.format!r}; choose one of {', '.join(FORMATS)}")
    few = QUICK_ROWS if asked.what == "compare" else CHECKED_ROWS
    usual = few if asked.quick or asked.what == "check" else ROWS
    # Whole pages, so that every page is full.
    asked.rows = -(-(asked.rows or usual) // PAGE) * PAGE
    asked.runs = asked.runs or (1 if asked.quick else RUNS)
    asked.sink = (asked.sink,) if asked.sink else ("null",) if asked.quick else servers.SINKS
    return asked


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - set(FORMATS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def _contestants(text: str) -> tuple[Contestant, ...]:
    names = text.split(",")
    if unknown := set(names) - {one.name for one in ALL}:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return tuple(one for one in ALL if one.name in names)


if __name__ == "__main__":
    main()

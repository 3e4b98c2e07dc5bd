"""Soak test with random faults: `python -m tests.faults.soak --minutes 30 --seed 1`.

Creates exports continuously; every few seconds a process is killed or stopped, or messages are
lost. Then the faults stop, and every export must end within a time limit. Prints a table of the
results. Exits with 1 if a count that must be zero is not, or if a takeover took too long, and with
2 if the soak test could not be completed.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import logging
import random
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import structlog

from exporter.errors import ExporterError
from exporter.maintenance.sweeper import INTERVAL_SECONDS
from tests.faults.cluster import LEASE, SLICE, Cluster
from tests.faults.history import MUST_BE_ZERO, History, export_references, request_kinds
from tests.faults.takeovers import Takeovers

FAULT_INTERVAL_SECONDS = 3.0
"""Average seconds between two faults."""
SLACK_SECONDS = 3.0
"""Additional seconds after lease and sweep interval until an export must be ready again.

The machine is busy restarting killed workers.
"""
ROW_LIMITS = (2_000, 6_000, 13_000, 30_000)
MAX_TURN_SECONDS = SLICE.total_seconds()
"""Maximum seconds that a ready export waits for each other export before it is claimed.

Each other export may run one slice first, while all workers but one are dead, stopped or starting.
"""
LATENCY = "latency=10ms-60ms"
"""Delay of the board's responses; without it, two cores only move bytes and the disk fills up."""
UPSTREAM_SHARES = {"429": 3, "503": 3, "reset": 1.5, "truncate": 1.5, "short": 0.5, "html": 0.5}
"""Relative shares of the board's faults.

False totals are not included: an export that ends by its total and gets a false total at its end
must fail.
"""
FALSE_TOTALS_PERCENT = 0.15
"""Percent of the board's responses with a false total, in addition to the other faults.

A false total makes an export that was cut into partitions continue as one stream. Hardly any export
in this test ends by its total.
"""
SETTLE_SECONDS = 300.0
"""Seconds after the last fault within which every export must end."""
RECLAIM_INTERVAL_SECONDS = 45.0


class Chaos:
    """Injects random faults into a cluster; equal seeds give equal faults in the same order."""

    def __init__(self, cluster: Cluster, takeovers: Takeovers, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._takeovers = takeovers
        self._random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._away: set[str] = set()
        self._kinds: dict[str, tuple[int, Callable[[int], None]]] = {
            "worker kill -9": (30, self._kill_worker),
            "pool process kill -9": (8, self._kill_pool),
            "worker SIGSTOP, SIGCONT": (18, self._pause),
            "worker SIGTERM": (12, self._term),
            "redis kill -9": (8, lambda _: self._restart("redis")),
            "s3 kill -9": (8, lambda _: self._restart("s3")),
            "api kill -9": (6, lambda _: self._cluster.kill_api()),
            "messages deleted": (6, lambda _: self._cluster.delete_messages()),
            "messages duplicated": (4, lambda _: self._cluster.duplicate_messages()),
        }

    def inject_fault(self) -> None:
        """Injects one random fault, unless the chosen fault is impossible at present."""
        number = self._random.randrange(len(self._cluster.workers))
        weights = [weight for weight, _ in self._kinds.values()]
        kind = self._random.choices(list(self._kinds), weights)[0]
        if kind.startswith("messages") and "redis" in self._away:
            return
        if kind.startswith("worker") and (
            self._cluster.is_terminating(number) or self._cluster.is_paused(number)
        ):
            return
        self._kinds[kind][1](number)
        self.done[kind] += 1

    def run_due(self) -> None:
        """Runs the scheduled actions that are due, such as the restart of a killed server."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def recover(self) -> None:
        """Runs all scheduled actions and waits until the cluster is ready."""
        while self._due:
            time.sleep(max(0.0, self._due[0][0] - time.monotonic()))
            self.run_due()
        self._cluster.settle()

    @property
    def servers_up(self) -> bool:
        """True if Redis and S3 run."""
        return not self._away

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))

    def _kill_worker(self, number: int) -> None:
        pids = self._cluster.pids(number)
        self._takeovers.kill_and_watch(pids, lambda: self._cluster.kill_worker(number))

    def _kill_pool(self, number: int) -> None:
        pids = self._cluster.pids(number)
        self._takeovers.kill_and_watch(pids, lambda: self._cluster.kill_pool(number))

    def _pause(self, number: int) -> None:
        self._cluster.pause_worker(number)
        seconds = LEASE.total_seconds() * self._random.uniform(0.5, 3)
        self._later(seconds, lambda: self._cluster.continue_worker(number))

    def _term(self, number: int) -> None:
        self._cluster.term_worker(number)
        if self._away:
            self._cluster.ignore_drain_times()

    def _restart(self, name: str) -> None:
        if name in self._away:
            return
        server = self._cluster.redis if name == "redis" else self._cluster.s3
        if name == "redis":
            self._takeovers.disturb()
        self._cluster.ignore_drain_times()
        server.kill()
        self._away.add(name)

        def launch() -> None:
            server.launch()
            look()

        def look() -> None:
            if server.ready():
                self._away.discard(name)
            else:
                self._later(0.1, look)

        self._later(self._random.choice((0.1, 1.0, 3.0, 8.0)), launch)


class Memory:
    """Samples the resident memory of the workers' processes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._samples: list[tuple[float, int]] = []

    def sample(self) -> None:
        sizes = [0]
        for number in range(len(self._cluster.workers)):
            for pid in self._cluster.pids(number):
                try:
                    sizes.append(psutil.Process(pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
        self._samples.append((time.monotonic(), max(sizes)))

    def peaks(self) -> tuple[float, float]:
        """Returns the MB of the largest process in the first and in the last third of the time."""
        begin, end = self._samples[0][0], self._samples[-1][0]
        third = (end - begin) / 3
        first = max(size for at, size in self._samples if at <= begin + third)
        last = max(size for at, size in self._samples if at >= end - third)
        return first / 1e6, last / 1e6


def upstream_faults(percent: float, seed: int) -> str:
    """Returns the board's fault spec for a given percentage of faulty responses."""
    scale = percent / sum(UPSTREAM_SHARES.values())
    shares = (f"{name}={share * scale:.3f}%" for name, share in UPSTREAM_SHARES.items())
    return ",".join([LATENCY, *shares, f"seed={seed}"])


def soak(
    directory: Path, minutes: float, seed: int, percent: float, workers: int, at_once: int
) -> bool:
    """Runs the soak test and prints the table; True if all requirements are met."""
    requests = request_kinds(ROW_LIMITS)
    with Cluster(directory, workers=workers, rows=max(ROW_LIMITS)) as cluster:
        calm = export_references(cluster, requests, directory)
        size = sum(one.size for one in calm.values())
        _log(f"without faults: {len(calm)} files, {size / 1e6:.0f} MB")
        faults = upstream_faults(percent, seed)
        cluster.set_faults(f"{faults},total={FALSE_TOTALS_PERCENT}%" if percent else faults)
        history = History(cluster, calm, requests, seed=seed, discard=True)
        takeovers = Takeovers(cluster.store.client)
        takeovers.start()
        chaos, memory = Chaos(cluster, takeovers, seed), Memory(cluster)
        stop = threading.Event()
        clients = threading.Thread(target=history.work, args=(at_once, stop), name="clients")
        clients.start()
        most_disk = 0
        try:
            ends_at = time.monotonic() + minutes * 60
            chance = random.Random(seed + 1)
            strike_at = tidy_at = time.monotonic() + FAULT_INTERVAL_SECONDS
            while time.monotonic() < ends_at:
                if not clients.is_alive():
                    raise RuntimeError("the clients' thread ended: see its error above")
                chaos.run_due()
                cluster.supervise()
                now = time.monotonic()
                if now >= strike_at:
                    chaos.inject_fault()
                    memory.sample()
                    strike_at = time.monotonic() + chance.uniform(
                        0.5, 2 * FAULT_INTERVAL_SECONDS - 0.5
                    )
                if now >= tidy_at and chaos.servers_up:
                    most_disk = max(most_disk, cluster.disk())
                    # In a thread, because S3 may take a minute and `supervise` must go on running.
                    threading.Thread(target=cluster.reclaim_disk, daemon=True).start()
                    tidy_at = time.monotonic() + RECLAIM_INTERVAL_SECONDS
                    _log(f"{(ends_at - now) / 60:.1f} min left: {dict(history.counts)}")
                time.sleep(0.1)
            cluster.set_faults("")
            chaos.recover()
        finally:
            stop.set()
            clients.join()
        finishing = threading.Thread(target=history.settle, args=(SETTLE_SECONDS,), name="clients")
        finishing.start()
        while finishing.is_alive():
            cluster.supervise()
            memory.sample()
            finishing.join(0.5)
        history.audit()
        takeovers.stop()
        keys = cluster.store.client.dbsize()
        counters = cluster.store.counters()
        history.counts["cut"] = counters.get("exports_cut", 0)
        history.counts["rejoined"] = counters.get("exports_rejoined", 0)
        return _report(
            history,
            chaos,
            cluster,
            takeovers,
            memory,
            keys,
            most_disk,
            turns=at_once * MAX_TURN_SECONDS,
        )


def _report(
    history: History,
    chaos: Chaos,
    cluster: Cluster,
    takeovers: Takeovers,
    memory: Memory,
    keys: int,
    disk: int,
    *,
    turns: float,
) -> bool:
    bound = LEASE.total_seconds() + INTERVAL_SECONDS + SLACK_SECONDS
    taken = takeovers.measured()
    ready = max((one.ready_after or 0 for one in taken), default=0.0)
    claimed = max((one.claimed_after or 0 for one in taken), default=0.0)
    first, last = memory.peaks()
    counts = history.counts
    rows: list[tuple[str, object]] = [
        ("exports accepted", counts["exports"] + counts["accepted without response"]),
        ("  of them without a response", counts["accepted without response"]),
        ("posts unanswered", counts["posts unanswered"]),
        ("finished and compared", counts["finished"]),
        ("rows", counts["rows"]),
        ("bytes", counts["bytes"]),
        ("cut into partitions, including the run without faults", counts["cut"]),
        ("rejoined to one stream", counts["rejoined"]),
        *sorted(chaos.done.items()),
        *((f"workers ended: {why}", count) for why, count in sorted(cluster.ended.items())),
        ("longest drain, s", f"{max(cluster.drains, default=0.0):.1f}"),
        *((name, counts[name]) for name in MUST_BE_ZERO),
        ("orphans before cleaning", counts["orphans before cleaning"]),
        ("takeovers measured", len(taken)),
        (f"longest until ready again, s (below {bound:g})", f"{ready:.1f}"),
        (f"longest takeover, s (below {bound + turns:g})", f"{claimed:.1f}"),
        ("largest worker process, MB, first third", f"{first:.0f}"),
        ("largest worker process, MB, last third", f"{last:.0f}"),
        ("Redis keys at the end", keys),
        ("largest disk, MB", f"{disk / 1e6:.0f}"),
    ]
    for complaint in history.problems:
        _log(complaint)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        must = "   must be 0" if name in MUST_BE_ZERO and value else ""
        sys.stdout.write(f"{name:{width}}  {value!s:>12}{must}\n")
    sys.stdout.flush()
    return not history.violations() and ready < bound and claimed < bound + turns


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


def _percent(text: str) -> float:
    matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%?", text)
    if not matched or float(matched[1]) > 50:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0% to 50%")
    return float(matched[1])


def main() -> int:
    """Runs the soak test from the command line and returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--upstream-faults", type=_percent, default=5.0, metavar="SHARE")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument(
        "--at-once", type=int, default=6, help="Number of exports that run at the same time."
    )
    parser.add_argument(
        "--keep", type=Path, help="Directory for data and logs, which is kept after the test."
    )
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="exporter-soak-") as scratch:
        directory = asked.keep or Path(scratch)
        try:
            well = soak(
                directory,
                asked.minutes,
                asked.seed,
                asked.upstream_faults,
                asked.workers,
                asked.at_once,
            )
        except ExporterError as error:
            _log(f"the soak test was aborted: {error}")
            return 2
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.faults.soak --minutes 30 --seed 1`: everything that can die, dies, for a while.

Exports are posted all the time, every few seconds something is killed, stopped or lost, and in the
end all is left in peace until every export has ended. Then one table says what happened; the exit
code is 1 when anything is not zero that must be.
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
from tests.faults.history import MUST_BE_ZERO, History, calm_files, kinds
from tests.faults.takeovers import Takeovers

PAUSE = 3.0
"""Seconds between two faults, on average."""
SLACK = 3.0
"""Seconds by which an export may be ready again later than after lease and sweep: for a machine
that starts killed workers all the time."""
SIZES = (2_000, 6_000, 13_000, 30_000)
TURN = SLICE.total_seconds()
"""Seconds that a ready export may wait for each other one before it is claimed: it may have a slice
first, while all workers but one are dead, stopped or starting."""
LATENCY = "latency=10ms-60ms"
"""Without it two cores would do nothing but move bytes, and a disk would fill."""
UPSTREAM_SHARES = {"429": 3, "503": 3, "reset": 1.5, "truncate": 1.5, "short": 0.5, "html": 0.5}
"""In what proportion the board's faults come. A false total is not among them: an export that
ends by its total, and meets one there, fails, and rightly so."""
FALSE_TOTALS = 0.15
"""Percent of the board's answers, beside the share of those faults: what makes an export that was
cut be read as one. Hardly any ends by its total here."""
PATIENCE = 300.0
"""Seconds after the last fault in which every export must end."""
TIDY_EVERY = 45.0


class Chaos:
    """Hurts a cluster at random; the same seed means the same faults in the same order."""

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

    def strike(self) -> None:
        """One fault, now."""
        number = self._random.randrange(len(self._cluster.workers))
        weights = [weight for weight, _ in self._kinds.values()]
        kind = self._random.choices(list(self._kinds), weights)[0]
        if kind.startswith("messages") and "redis" in self._away:
            return
        if kind.startswith("worker") and (
            self._cluster.is_told(number) or self._cluster.is_paused(number)
        ):
            return
        self._kinds[kind][1](number)
        self.done[kind] += 1

    def tick(self) -> None:
        """What was to happen by now happens."""
        while self._due and self._due[0][0] <= time.monotonic():
            heapq.heappop(self._due)[2]()

    def calm(self) -> None:
        """All that was to come back comes back, and nothing more is hurt."""
        while self._due:
            time.sleep(max(0.0, self._due[0][0] - time.monotonic()))
            self.tick()
        self._cluster.settle()

    @property
    def all_there(self) -> bool:
        """Whether Redis and S3 run."""
        return not self._away

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), action))

    def _kill_worker(self, number: int) -> None:
        pids = self._cluster.pids(number)
        self._takeovers.killed(pids, lambda: self._cluster.kill_worker(number))

    def _kill_pool(self, number: int) -> None:
        pids = self._cluster.pids(number)
        self._takeovers.killed(pids, lambda: self._cluster.kill_pool(number))

    def _pause(self, number: int) -> None:
        self._cluster.pause_worker(number)
        seconds = LEASE.total_seconds() * self._random.uniform(0.5, 3)
        self._later(seconds, lambda: self._cluster.continue_worker(number))

    def _term(self, number: int) -> None:
        self._cluster.term_worker(number)
        if self._away:
            self._cluster.excuse_drains()

    def _restart(self, name: str) -> None:
        if name in self._away:
            return
        server = self._cluster.redis if name == "redis" else self._cluster.s3
        if name == "redis":
            self._takeovers.disturb()
        self._cluster.excuse_drains()
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
    """Resident memory of the workers' processes over time."""

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
        """MB of the largest process in the first and in the last third."""
        begin, end = self._samples[0][0], self._samples[-1][0]
        third = (end - begin) / 3
        first = max(size for at, size in self._samples if at <= begin + third)
        last = max(size for at, size in self._samples if at >= end - third)
        return first / 1e6, last / 1e6


def upstream_faults(percent: float, seed: int) -> str:
    """What the board is told, so that this share of its answers is bad."""
    scale = percent / sum(UPSTREAM_SHARES.values())
    shares = (f"{name}={share * scale:.3f}%" for name, share in UPSTREAM_SHARES.items())
    return ",".join([LATENCY, *shares, f"seed={seed}"])


def soak(
    directory: Path, minutes: float, seed: int, percent: float, workers: int, at_once: int
) -> bool:
    """Run it, print the table, and say whether all that must be zero is."""
    requests = kinds(SIZES)
    with Cluster(directory, workers=workers, rows=max(SIZES)) as cluster:
        calm = calm_files(cluster, requests, directory)
        _say(f"calm: {len(calm)} files, {sum(one.size for one in calm.values()) / 1e6:.0f} MB")
        faults = upstream_faults(percent, seed)
        cluster.order_faults(f"{faults},total={FALSE_TOTALS}%" if percent else faults)
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
            strike_at = tidy_at = time.monotonic() + PAUSE
            while time.monotonic() < ends_at:
                if not clients.is_alive():
                    raise RuntimeError("the clients' thread ended: see its error above")
                chaos.tick()
                cluster.supervise()
                now = time.monotonic()
                if now >= strike_at:
                    chaos.strike()
                    memory.sample()
                    strike_at = time.monotonic() + chance.uniform(0.5, 2 * PAUSE - 0.5)
                if now >= tidy_at and chaos.all_there:
                    most_disk = max(most_disk, cluster.disk())
                    # Aside, for S3 may take a minute, in which nobody would start what ended.
                    threading.Thread(target=cluster.reclaim_disk, daemon=True).start()
                    tidy_at = time.monotonic() + TIDY_EVERY
                    _say(f"{(ends_at - now) / 60:.1f} min left: {dict(history.counts)}")
                time.sleep(0.1)
            cluster.order_faults("")
            chaos.calm()
        finally:
            stop.set()
            clients.join()
        finishing = threading.Thread(target=history.settle, args=(PATIENCE,), name="clients")
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
            history, chaos, cluster, takeovers, memory, keys, most_disk, turns=at_once * TURN
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
    bound = LEASE.total_seconds() + INTERVAL_SECONDS + SLACK
    taken = takeovers.measured()
    ready = max((one.ready_after or 0 for one in taken), default=0.0)
    claimed = max((one.claimed_after or 0 for one in taken), default=0.0)
    first, last = memory.peaks()
    counts = history.counts
    rows: list[tuple[str, object]] = [
        ("exports accepted", counts["exports"] + counts["accepted unheard"]),
        ("  of them without an answer", counts["accepted unheard"]),
        ("posts unanswered", counts["posts unanswered"]),
        ("finished and compared", counts["finished"]),
        ("rows", counts["rows"]),
        ("bytes", counts["bytes"]),
        ("cut into partitions, with those of the calm", counts["cut"]),
        ("rejoined and read as one", counts["rejoined"]),
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
    for complaint in history.complaints:
        _say(complaint)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        must = "   must be 0" if name in MUST_BE_ZERO and value else ""
        sys.stdout.write(f"{name:{width}}  {value!s:>12}{must}\n")
    sys.stdout.flush()
    return not history.wrong() and ready < bound and claimed < bound + turns


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


def _percent(text: str) -> float:
    matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%?", text)
    if not matched or float(matched[1]) > 50:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0% to 50%")
    return float(matched[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--upstream-faults", type=_percent, default=5.0, metavar="SHARE")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=6, help="Exports under way at a time.")
    parser.add_argument("--keep", type=Path, help="Directory of data and logs, kept afterwards.")
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
            _say(f"the soak broke off: {error}")
            return 2
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

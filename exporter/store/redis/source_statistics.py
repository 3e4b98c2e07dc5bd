"""Statistics of the requests to sources in Redis, kept by the processes that send them."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

import msgspec
import redis
import structlog

from exporter.clock import Clock, SystemClock
from exporter.core.rates import Meter
from exporter.store.redis import errors, records
from exporter.store.redis.keys import DEFAULT, KeyNames

log: structlog.stdlib.BoundLogger = structlog.get_logger()

FLUSH_SECONDS = 1.0
"""Time for which a process collects before it writes; a process that dies loses that much."""
HOUR_TTL = timedelta(hours=3)
LATEST_TTL = timedelta(days=30)
LIMITED_STATUS = 429
_STEP = 1.25
"""Ratio of the bounds of two durations that are counted apart, so of the error of a percentile."""


class SourceUse(msgspec.Struct, frozen=True, kw_only=True):
    """The latest requests to a source, of all processes, in this hour and the hour before."""

    requests: int = 0
    limited: int = 0
    """Answers 429."""
    failed: int = 0
    """Other answers than 2xx and 429, and requests without an answer."""
    p95_seconds: float | None = None
    """Duration that 95 percent of the answers did not exceed, up to a quarter too high."""
    succeeded_at: datetime | None = None
    failed_at: datetime | None = None
    failure: int | None = None
    """HTTP status of the latest failure; 0 if the source did not answer."""
    next_in_seconds: float = 0.0
    """Time until the rate of the source, or a pause that it asked for, allows a request."""

    @property
    def is_reachable(self) -> bool | None:
        """True if the latest request succeeded; None if no request is known."""
        if self.succeeded_at is None and self.failed_at is None:
            return None
        return self.failed_at is None or (
            self.succeeded_at is not None and self.succeeded_at >= self.failed_at
        )


class SourceStatistics:
    """Collects the requests of this process, writes them about once a second, and reads them.

    Nothing waits for Redis but a thread of its own, and an error of Redis only loses counts. Safe
    in several threads, and in child processes that are forked before their first request.
    """

    def __init__(
        self, client: redis.Redis, names: KeyNames = DEFAULT, clock: Clock | None = None
    ) -> None:
        self._client, self._names = client, names
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}
        self._latest: dict[str, dict[str, int]] = {}
        self._is_scheduled = False

    def meter(self, source: str) -> Meter:
        """Returns the function that records a request to a source."""
        return partial(self._record, source)

    def flush(self) -> None:
        """Writes everything that was collected."""
        with self._lock:
            counts, self._counts = self._counts, {}
            latest, self._latest = self._latest, {}
            self._is_scheduled = False
        hour = str(int(self._clock.now().timestamp() // 3600))
        try:
            pipe = self._client.pipeline(transaction=False)
            for source, found in counts.items():
                key = self._names("source_hour", hour, source)
                for field, count in found.items():
                    pipe.hincrby(key, field, count)
                pipe.pexpire(key, records.millis(HOUR_TTL))
            for source, fields in latest.items():
                key = self._names("source", source)
                pipe.hset(key, mapping=cast("Mapping[Any, Any]", fields))
                pipe.pexpire(key, records.millis(LATEST_TTL))
            pipe.execute()
        except redis.RedisError as error:
            log.warning("source.statistics_lost", reason=str(error))

    def read(self, sources: Sequence[str]) -> Mapping[str, SourceUse]:
        """Returns the use of each source. Raises StoreUnavailable if Redis does not answer."""
        hour = int(self._clock.now().timestamp() // 3600)
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            for source in sources:
                pipe.hgetall(self._names("source", source))
                pipe.hgetall(self._names("source_hour", str(hour), source))
                pipe.hgetall(self._names("source_hour", str(hour - 1), source))
                pipe.get(self._names("budget", source))
            (seconds, micros), *replies = pipe.execute()
        now = seconds * 1_000_000 + micros
        return {
            source: _use(replies[4 * place : 4 * place + 4], now)
            for place, source in enumerate(sources)
        }

    def _record(self, source: str, seconds: float, status: int | None) -> None:
        is_ok = status is not None and 200 <= status < 300
        kind = "ok" if is_ok else "limited" if status == LIMITED_STATUS else "failed"
        now = records.micros(self._clock.now() - records.EPOCH)
        with self._lock:
            counts = self._counts.setdefault(source, Counter())
            counts[kind] += 1
            if status is not None:
                counts[str(_bucket(seconds))] += 1
            latest = self._latest.setdefault(source, {})
            if is_ok:
                latest["succeeded_at"] = now
            else:
                latest |= {"failed_at": now, "failure": status or 0}
            if self._is_scheduled:
                return
            self._is_scheduled = True
        timer = threading.Timer(FLUSH_SECONDS, self.flush)
        timer.daemon = True
        timer.start()


def _bucket(seconds: float) -> int:
    """Returns the exponent of _STEP whose power is the next number of milliseconds."""
    return max(0, math.ceil(math.log(max(seconds * 1000, 1), _STEP)))


def _use(replies: Sequence[Any], now: int) -> SourceUse:
    latest, this, before, budget = replies
    counts = Counter[str]()
    for hour in (this, before):
        counts.update({field.decode(): int(count) for field, count in hour.items()})
    ok, limited, failed = counts["ok"], counts["limited"], counts["failed"]
    return SourceUse(
        requests=ok + limited + failed,
        limited=limited,
        failed=failed,
        p95_seconds=_p95({int(one): n for one, n in counts.items() if one.isdigit()}),
        succeeded_at=records.moment_or_none(latest.get(b"succeeded_at")),
        failed_at=records.moment_or_none(latest.get(b"failed_at")),
        failure=int(latest[b"failure"]) if b"failure" in latest else None,
        next_in_seconds=max(0, int(budget) - now) / 1_000_000 if budget else 0.0,
    )


def _p95(answers: Mapping[int, int]) -> float | None:
    rest = 0.95 * sum(answers.values())
    for bucket in sorted(answers):
        rest -= answers[bucket]
        if rest <= 0:
            return round(_STEP**bucket / 1000, 3)
    return None

"""Estimates how fast an export goes and when it ends."""

from __future__ import annotations

import math
from datetime import datetime

from exporter.clock import Clock
from exporter.core.exports import Export, Phase, State
from exporter.errors import StoreUnavailable
from exporter.store.base import ExportStore
from exporter.store.filters import Filters

SPEED_TTL_SECONDS = 60.0
"""Time for which the speed of a source's latest exports is remembered."""
MAX_SPEEDS = 1_000
"""Maximum number of speeds that are remembered."""
_LATEST = 5
"""Finished exports of a source from which its speed is computed."""
_MIN_SECONDS = 0.5
"""Time after the start before which the speed of an export is too uncertain."""


def rows_per_second(export: Export, now: datetime) -> float | None:
    """Returns the rows per second from the start to the end, or to `now`; None before the start.

    Waits count as time in which no rows came.
    """
    if export.started_at is None:
        return None
    rows = export.result.record_count if export.result else export.rows
    seconds = ((export.completed_at or now) - export.started_at).total_seconds()
    return round(rows / max(seconds, 0.001), 1)


class Speeds:
    """Estimates the end of exports; remembers the speeds of sources, to read them rarely."""

    def __init__(self, store: ExportStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._speeds: dict[str, tuple[float, float | None]] = {}
        """Monotonic time of the reading, and rows per second, by source."""

    def eta_seconds(self, export: Export, now: datetime) -> int | None:
        """Returns the seconds to the end of a running export; None when that is unknown.

        They follow from the share of rows that is written and the time since the start. Before the
        first rows, they follow from the limit and the source's speed, if `read_speed` has read it.
        The time of a queued export is unknown, because it depends on the exports ahead.
        """
        if export.state is not State.PROCESSING or export.started_at is None:
            return None
        elapsed = (now - export.started_at).total_seconds()
        if export.rows and export.progress > 0 and elapsed >= _MIN_SECONDS:
            rest = elapsed * (1 - export.progress) / export.progress
        else:
            speed = self._speeds.get(export.spec.source, (0.0, None))[1]
            if not speed or export.spec.limit is None:
                return None
            rest = export.spec.limit / speed
        if export.phase is Phase.WAITING and export.retry_at is not None:
            rest += max(0.0, (export.retry_at - now).total_seconds())
        return max(1, math.ceil(rest))

    def needs_speed(self, export: Export) -> bool:
        """True if the end of the export can be estimated only after `read_speed`."""
        if export.state is not State.PROCESSING or export.rows or export.spec.limit is None:
            return False
        read_at, _ = self._speeds.get(export.spec.source, (-math.inf, None))
        return self._clock.monotonic() - read_at >= SPEED_TTL_SECONDS

    def read_speed(self, source: str) -> None:
        """Reads the speed of the source's latest finished exports; the thread waits for the store.

        Nothing is changed if the store does not answer.
        """
        filters = Filters(states=(State.FINISHED,), source=source)
        try:
            latest = self._store.list(None, limit=_LATEST, filters=filters).exports
        except StoreUnavailable:
            return
        rows = sum(one.result.record_count for one in latest if one.result)
        times = [(one.completed_at, one.started_at) for one in latest]
        seconds = sum((end - start).total_seconds() for end, start in times if end and start)
        if len(self._speeds) >= MAX_SPEEDS:
            self._speeds.clear()
        speed = rows / seconds if rows and seconds > 0 else None
        self._speeds[source] = self._clock.monotonic(), speed

"""How fast an export goes, and when it ends, as far as that is known."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from exporter.clock import FakeClock
from exporter.core.exports import Export, Phase, State
from exporter.service.estimates import Speeds, rows_per_second
from exporter.store.memory.store import MemoryStore
from tests.specs import spec

CLOCK = FakeClock()
NOW = CLOCK.now()


def running(*, limit: int | None = None, seconds: float = 20, **facts: Any) -> Export:
    start = NOW - timedelta(seconds=seconds)
    given: dict[str, Any] = {
        "state": State.PROCESSING,
        "phase": Phase.READING,
        "progress": 0.25,
        "rows": 500,
        "created_at": start,
        "updated_at": NOW,
        "started_at": start,
    }
    return Export(spec=spec(limit=limit), **(given | facts))


def eta(export: Export) -> int | None:
    return Speeds(MemoryStore(CLOCK), CLOCK).eta_seconds(export, NOW)


def test_the_rest_takes_as_long_as_its_share_of_the_time_so_far() -> None:
    # Given a quarter of the rows after 20 seconds
    export = running()
    # Then
    assert eta(export) == 60
    assert rows_per_second(export, NOW) == 25.0


def test_a_wait_is_added_to_the_time_that_is_left() -> None:
    # Given
    export = running(phase=Phase.WAITING, retry_at=NOW + timedelta(seconds=90))
    # Then
    assert eta(export) == 150


@pytest.mark.parametrize(
    "export",
    [
        running(state=State.QUEUED, phase=Phase.READY, started_at=None, rows=0, progress=0.0),
        running(state=State.FINISHED, progress=1.0),
        running(progress=0.0),  # no total is known
        running(rows=0, progress=0.0, limit=100),  # nor the speed of the source
        running(seconds=0.1),  # too early to say
    ],
)
def test_what_is_not_known_is_not_guessed(export: Export) -> None:
    # Then
    assert eta(export) is None


def test_before_the_first_rows_the_speed_of_the_sources_latest_exports_counts() -> None:
    # Given an export of 1,000 rows that took 10 seconds
    clock = FakeClock()
    store = MemoryStore(clock)
    speeds = Speeds(store, clock)
    finished = running(state=State.FINISHED, rows=1000, seconds=10)
    assert finished.started_at is not None
    finished = msgspec.structs.replace(finished, completed_at=NOW, result=_Result(1000))
    store.list = lambda *_, **__: _Page([finished])  # type: ignore[method-assign, assignment]
    fresh = running(rows=0, progress=0.0, limit=3000)
    assert speeds.needs_speed(fresh)
    # When
    speeds.read_speed(fresh.spec.source)
    # Then
    assert speeds.eta_seconds(fresh, NOW) == 30
    assert not speeds.needs_speed(fresh)


class _Result:
    def __init__(self, record_count: int) -> None:
        self.record_count = record_count


class _Page:
    def __init__(self, exports: list[Export]) -> None:
        self.exports = exports

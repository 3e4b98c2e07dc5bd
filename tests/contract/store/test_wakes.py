"""Sweeping and waking: no export is left lying, whatever is lost."""

from __future__ import annotations

import time
from datetime import timedelta

from exporter.clock import FakeClock
from exporter.core.exports import Phase
from exporter.store.base import ExportStore
from exporter.store.memory.store import MemoryStore
from tests.contract.store.given import (
    KEEP,
    SHORT,
    Elapse,
    claim,
    drain,
    fill,
    known,
    spec,
)


def test_an_expired_lease_makes_the_export_ready_unclean_with_one_attempt_more(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given one lease that runs out, and one that does not
    store.create(spec("e"))
    first = claim(store, SHORT)
    store.create(spec("other", "bob"))
    claim(store)

    # When
    elapse(SHORT)
    swept = store.sweep()

    # Then
    assert (swept.expired, swept.ready) == (1, 1)
    assert known(store, "e").phase is Phase.READY
    assert known(store, "other").phase is Phase.READING
    again = claim(store)
    assert not again.clean
    assert again.export.attempts == 1
    assert again.fence != first.fence
    assert store.sweep().expired == 0


def test_a_sweep_does_no_more_than_its_limit(store: ExportStore) -> None:
    # Given
    fill(store, 7)
    for _ in range(7):
        claim(store, timedelta(0))

    # When / Then
    assert [store.sweep(limit=3).expired for _ in range(4)] == [3, 3, 1, 0]
    assert store.sweep().ready == 7


def test_a_sweep_makes_waiting_exports_ready_and_wakes(store: ExportStore, elapse: Elapse) -> None:
    # Given
    fill(store, 2, priority=6)
    for retry_in in (SHORT, KEEP):
        claimed = claim(store)
        store.release(claimed.export.id, claimed.fence, clean=True, retry_in=retry_in, reason="429")
    drain(store)

    # When
    elapse(SHORT)
    swept = store.sweep()

    # Then
    assert (swept.expired, swept.due, swept.ready) == (0, 1, 1)
    assert drain(store) == [("ann-6-0", 6)]
    assert known(store, "ann-6-1").phase is Phase.WAITING


def test_create_release_and_sweep_each_wake_once_with_the_priority(store: ExportStore) -> None:
    # Given
    store.create(spec("e", priority=7))
    created = drain(store)

    # When
    store.release("e", claim(store).fence, clean=True)
    released = drain(store)
    claim(store, timedelta(0))
    store.sweep()
    swept = drain(store)

    # Then
    assert created == released == swept == [("e", 7)]


def test_wake_ups_come_in_order_and_each_to_one_caller(store: ExportStore) -> None:
    ids = fill(store, 5)
    assert drain(store) == [(export_id, 0) for export_id in ids]
    assert drain(store) == []


def test_a_sweep_makes_up_for_lost_wake_ups_within_bounds(store: ExportStore) -> None:
    # Given
    fill(store, 30)
    store.create(spec("urgent", "bob", priority=9))
    drain(store)

    # When
    assert store.sweep().ready == 31
    made = drain(store)

    # Then
    assert len(made) == len(set(made)) == 16
    assert made[0] == ("urgent", 9)


def test_a_sweep_adds_no_wake_ups_while_some_are_left_or_nothing_is_ready(
    store: ExportStore,
) -> None:
    # Given
    fill(store, 2)
    claim(store), claim(store)
    drain(store)

    # When / Then
    store.sweep()
    assert drain(store) == []
    fill(store, 3, "bob")
    store.next_wake(timeout=timedelta(0))
    store.sweep()
    assert len(drain(store)) == 2


def test_waiting_for_a_wake_up_ends_with_none(store: ExportStore, clock: FakeClock) -> None:
    # Given
    def now() -> float:
        return clock.monotonic() if isinstance(store, MemoryStore) else time.monotonic()

    before = now()

    # When / Then
    assert store.next_wake(timeout=timedelta(seconds=1.3)) is None
    assert 1.25 < now() - before < 3

"""Tests of the sweeper that every process runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import cast

import pytest

from exporter.clock import FakeClock
from exporter.core.exports import State
from exporter.errors import StoreUnavailable
from exporter.maintenance.sweeper import Sweeper
from exporter.store.base import ExportStore, Swept
from exporter.store.memory.store import MemoryStore
from tests.harness import LIMITS, Bench, postings

SOON = 0.005


class Store:
    """A store with only a sweep; counts the calls and waits for them."""

    def __init__(self, sweep: Callable[[int], Swept]) -> None:
        self.calls = 0
        self._sweep = sweep
        self._called = threading.Condition()

    def sweep(self, *, limit: int = 100) -> Swept:
        with self._called:
            self.calls += 1
            self._called.notify_all()
        return self._sweep(self.calls)

    def wait(self, calls: int) -> None:
        with self._called:
            assert self._called.wait_for(lambda: self.calls >= calls, timeout=10)


NOTHING = MemoryStore(FakeClock()).sweep()


def test_an_export_whose_worker_died_is_finished_by_another() -> None:
    # Given
    bench = Bench(postings(25))
    dead = bench.claim()
    assert dead is not None
    bench.clock.advance(LIMITS.lease.total_seconds() + 1)
    swept = threading.Event()
    sweeper = Sweeper(bench.memory_store, then=swept.set, interval=SOON)
    # When
    sweeper.start()
    assert swept.wait(10)
    sweeper.stop()
    sweeper.join(10)
    # Then
    claim = bench.claim()
    assert claim is not None
    assert not claim.clean
    bench.slice(claim)
    assert bench.export.state is State.FINISHED


def test_the_sweeper_repeats_until_it_is_stopped() -> None:
    # Given
    store = Store(lambda _: NOTHING)
    sweeper = Sweeper(cast("ExportStore", store), interval=SOON)
    # When
    sweeper.start()
    store.wait(3)
    sweeper.stop()
    sweeper.join(10)
    # Then
    assert not sweeper.is_alive()
    calls = store.calls
    threading.Event().wait(SOON * 10)
    assert store.calls == calls


def test_a_sweep_that_failed_is_tried_again() -> None:
    # Given
    def sometimes(call: int) -> Swept:
        if call in (1, 2):
            raise StoreUnavailable("Redis did not answer")
        return NOTHING

    store, swept = Store(sometimes), threading.Event()
    sweeper = Sweeper(cast("ExportStore", store), then=swept.set, interval=SOON)
    # When
    sweeper.start()
    store.wait(2)
    # Then: `then` is not called after a failed sweep
    assert swept.wait(10)
    assert store.calls >= 3
    sweeper.stop()
    sweeper.join(10)


def test_nothing_is_swept_before_the_first_interval_is_over() -> None:
    # Given
    store = Store(lambda _: NOTHING)
    sweeper = Sweeper(cast("ExportStore", store), interval=60)
    # When
    sweeper.start()
    sweeper.stop()
    sweeper.join(10)
    # Then: stopping does not wait for the interval
    assert not sweeper.is_alive()
    assert store.calls == 0


@pytest.mark.parametrize("count", [3])
def test_many_sweepers_make_an_export_ready_once(count: int) -> None:
    # Given
    bench = Bench(postings(5))
    assert bench.claim() is not None
    bench.clock.advance(LIMITS.lease.total_seconds() + 1)
    done = threading.Semaphore(0)
    sweepers = [Sweeper(bench.memory_store, then=done.release, interval=SOON) for _ in range(count)]
    # When
    for sweeper in sweepers:
        sweeper.start()
    for _ in range(count * 3):
        assert done.acquire(timeout=10)
    for sweeper in sweepers:
        sweeper.stop()
        sweeper.join(10)
    # Then
    assert bench.claim() is not None
    assert bench.claim() is None
    assert bench.export.attempts == 1

"""When a worker is deaf, and when it only has nothing to do or no hand free."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from exporter.errors import StoreUnavailable
from exporter.store.base import Swept
from exporter.store.memory.store import MemoryStore
from tests.harness import Bench, postings
from workers import pulse, watchdog
from workers.watchdog import Watchdog

SLOTS = 1
"""The slot of a process that is no child is the first."""


@pytest.fixture(autouse=True)
def _no_claim_yet() -> Iterator[None]:
    pulse.reset_slot()
    pulse._claimed_at.value = 0.0
    yield
    pulse.reset_slot()
    pulse._claimed_at.value = 0.0


@pytest.fixture
def store() -> MemoryStore:
    """One export is ready."""
    return Bench(postings(1)).memory_store


def dog(store: MemoryStore, *, can_reach_broker: bool = True) -> Watchdog:
    return Watchdog(store, SLOTS, [], can_reach_broker=lambda: can_reach_broker)


def test_work_that_nobody_asks_for_although_a_slot_is_idle_is_deafness(store: MemoryStore) -> None:
    # Given
    one = dog(store)
    # When / Then
    assert one.stuck_seconds(1_000.0) == 0
    assert one.stuck_seconds(1_030.0) == 30
    assert one.stuck_seconds(1_061.0) > watchdog.MAX_STUCK_SECONDS


def test_any_child_that_asks_for_work_proves_that_doorbells_come_through(
    store: MemoryStore,
) -> None:
    # Given
    one = dog(store)
    one.stuck_seconds(1_000.0)
    # When
    pulse._claimed_at.value = 1_050.0
    # Then
    assert one.stuck_seconds(1_061.0) == 11


def test_a_worker_without_work_is_not_deaf_however_long_nobody_asked(store: MemoryStore) -> None:
    # Given
    one = dog(store)
    claim = store.claim("another worker", lease=timedelta(hours=2))
    assert claim is not None
    one.stuck_seconds(1_000.0)
    # When: work arrives an hour later, between two looks
    store.release(claim.export.id, claim.fence, clean=True)
    # Then
    assert one.stuck_seconds(4_600.0) == 0
    assert one.stuck_seconds(4_605.0) == 5


def test_a_worker_with_all_hands_full_is_not_deaf(store: MemoryStore) -> None:
    # Given
    one = dog(store)
    one.stuck_seconds(1_000.0)
    # When
    with pulse.busy():
        # Then
        assert one.stuck_seconds(1_100.0) == 0
    assert one.stuck_seconds(1_105.0) == 0


def test_a_broker_that_answers_nobody_does_not_make_a_worker_deaf(store: MemoryStore) -> None:
    # Given
    one = dog(store, can_reach_broker=False)
    one.stuck_seconds(1_000.0)
    # When / Then
    assert one.stuck_seconds(1_100.0) == 0


def test_a_store_that_is_silent_does_not_make_a_worker_deaf(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    one = dog(store)
    one.stuck_seconds(1_000.0)

    def silent(*, limit: int = 100) -> Swept:
        raise StoreUnavailable("Redis did not answer")

    monkeypatch.setattr(store, "sweep", silent)
    # When / Then
    assert one.stuck_seconds(1_100.0) == 0


def test_a_child_that_was_killed_at_work_leaves_its_slot_idle_to_its_successor() -> None:
    # Given: no block of it was left in order
    pulse._busy[0] = 1
    assert pulse.count_idle(SLOTS) == 0
    # When
    pulse.reset_slot()
    # Then
    assert pulse.count_idle(SLOTS) == SLOTS


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_beside_the_worker_ends_it_too(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(watchdog, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr("workers.draining._flag.value", 0)
    dead = threading.Thread(target=lambda: None, name="sweeper")
    dead.start()
    dead.join()
    one = Watchdog(store, SLOTS, [dead], can_reach_broker=lambda: True)
    # When
    one.start()
    one.join(10)
    # Then
    assert codes == [watchdog.EXIT_CODE]

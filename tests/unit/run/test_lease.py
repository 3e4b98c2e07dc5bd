"""Tests of the lease: when a worker may still write."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from exporter.clock import FakeClock
from exporter.errors import LeaseLost, StoreUnavailable
from exporter.run.lease import TRUSTED_SHARE, Lease, renewing
from exporter.store.base import Verdict

LONG = timedelta(seconds=30)
SHORT = timedelta(seconds=0.04)
"""Renewed every 10 ms of real time, while the lease itself runs in fake time."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_lease_holds_until_shortly_before_its_end_in_the_store(clock: FakeClock) -> None:
    # Given
    lease = Lease(LONG, clock, clock.monotonic())
    # When
    clock.advance(30 * TRUSTED_SHARE)
    # Then
    lease.check()
    assert lease.verdict is Verdict.CONTINUE


def test_a_lease_past_that_is_lost_without_asking_anyone(clock: FakeClock) -> None:
    # Given
    lease = Lease(LONG, clock, clock.monotonic())
    # When
    clock.advance(30 * TRUSTED_SHARE + 0.001)
    # Then
    assert lease.verdict is Verdict.LOST
    with pytest.raises(LeaseLost, match="another worker may own"):
        lease.check()


def test_a_lease_counts_from_before_it_was_asked_for(clock: FakeClock) -> None:
    # Given: the worker was stopped for a minute right after its claim
    asked_at = clock.monotonic()
    clock.advance(60)
    # When
    lease = Lease(LONG, clock, asked_at)
    # Then
    assert lease.verdict is Verdict.LOST


def test_a_renewal_counts_from_when_it_was_asked_not_answered(clock: FakeClock) -> None:
    # Given
    lease = Lease(LONG, clock, clock.monotonic())
    clock.advance(20)
    asked_at = clock.monotonic()
    clock.advance(23)
    # When: the answer took 23 s
    lease.record(Verdict.CONTINUE, asked_at)
    # Then
    lease.check()
    clock.advance(2)
    assert lease.verdict is Verdict.LOST


def test_a_lost_lease_never_comes_back(clock: FakeClock) -> None:
    # Given
    lease = Lease(LONG, clock, clock.monotonic())
    lease.record(Verdict.LOST, clock.monotonic())
    # When: an answer that was under way says otherwise
    lease.record(Verdict.CONTINUE, clock.monotonic())
    lease.record(Verdict.CANCEL, clock.monotonic())
    # Then
    assert lease.verdict is Verdict.LOST
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_canceled_export_stays_canceled_and_may_be_cleaned_up(clock: FakeClock) -> None:
    # Given
    lease = Lease(LONG, clock, clock.monotonic())
    clock.advance(20)
    # When
    heard = lease.record(Verdict.CANCEL, clock.monotonic())
    clock.advance(20)
    lease.record(Verdict.CONTINUE, clock.monotonic())
    # Then: what it says is cancel, and it still holds
    assert heard is Verdict.CANCEL
    assert lease.verdict is Verdict.CANCEL
    lease.check()


def test_a_cancel_does_not_hide_that_the_lease_is_over(clock: FakeClock) -> None:
    # Given
    lease = Lease(LONG, clock, clock.monotonic())
    lease.record(Verdict.CANCEL, clock.monotonic())
    # When
    clock.advance(30)
    # Then
    assert lease.verdict is Verdict.LOST


class Store:
    """Answers renewals from a list, repeats the last answer, and signals how many were given."""

    def __init__(self, clock: FakeClock, *answers: Verdict | Exception, seconds: float = 0) -> None:
        self.answers = list(answers)
        self.asked = 0
        self._clock = clock
        self._seconds = seconds
        self._enough = threading.Condition()

    def renew(self) -> Verdict:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self._clock.advance(self._seconds)
        with self._enough:
            self.asked += 1
            self._enough.notify_all()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, times: int) -> None:
        with self._enough:
            assert self._enough.wait_for(lambda: self.asked >= times, timeout=10)


def test_a_thread_keeps_the_lease_while_the_work_goes_on(clock: FakeClock) -> None:
    # Given: each renewal takes half of what the lease lasts
    lease = Lease(SHORT, clock, clock.monotonic())
    store = Store(clock, Verdict.CONTINUE, seconds=0.02)
    # When
    with renewing(lease, store.renew, clock):
        store.wait(5)
        # Then
        lease.check()
    # Then: nothing is asked after the work
    asked = store.asked
    threading.Event().wait(0.05)
    assert store.asked == asked


@pytest.mark.parametrize("verdict", [Verdict.CANCEL, Verdict.LOST])
def test_what_the_thread_hears_the_work_hears(clock: FakeClock, verdict: Verdict) -> None:
    # Given
    lease = Lease(SHORT, clock, clock.monotonic())
    store = Store(clock, Verdict.CONTINUE, verdict)
    # When
    with renewing(lease, store.renew, clock):
        store.wait(2)
    # Then
    assert lease.verdict is verdict


def test_a_silent_store_costs_nothing_if_it_speaks_again_in_time(clock: FakeClock) -> None:
    # Given
    lease = Lease(SHORT, clock, clock.monotonic())
    silent = StoreUnavailable("Redis did not answer")
    store = Store(clock, silent, silent, Verdict.CONTINUE, seconds=0.01)
    # When
    with renewing(lease, store.renew, clock):
        store.wait(6)
    # Then
    assert lease.verdict is Verdict.CONTINUE


def test_a_store_silent_for_too_long_costs_the_lease_and_is_asked_no_more(
    clock: FakeClock,
) -> None:
    # Given
    lease = Lease(SHORT, clock, clock.monotonic())
    store = Store(clock, StoreUnavailable("Redis did not answer"), seconds=0.02)
    # When
    with renewing(lease, store.renew, clock):
        store.wait(2)
        threading.Event().wait(0.05)
    # Then
    assert lease.verdict is Verdict.LOST
    assert store.asked == 2


def test_a_lost_lease_is_not_renewed(clock: FakeClock) -> None:
    # Given
    lease = Lease(SHORT, clock, clock.monotonic())
    store = Store(clock, Verdict.LOST)
    # When
    with renewing(lease, store.renew, clock):
        store.wait(1)
        threading.Event().wait(0.05)
    # Then
    assert store.asked == 1


def test_an_error_of_the_work_ends_the_thread_too(clock: FakeClock) -> None:
    # Given
    lease = Lease(SHORT, clock, clock.monotonic())
    store = Store(clock, Verdict.CONTINUE)
    before = threading.active_count()
    # When
    with pytest.raises(ZeroDivisionError), renewing(lease, store.renew, clock):
        _ = 1 / 0
    # Then
    assert threading.active_count() == before

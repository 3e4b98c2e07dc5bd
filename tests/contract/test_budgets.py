"""The contract of Budget, in memory on a fake clock and in a real Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporter.clock import Clock, FakeClock, SystemClock
from exporter.core.rates import MAX_SLEEP_SECONDS, UNLIMITED, MemoryBudgets, OpenBudget, Rate
from exporter.errors import StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.redis import rate_budgets
from exporter.store.redis.rate_budgets import RedisBudgets

DATABASE = 12
SLACK = {"memory": 1e-6, "redis": 0.5}
"""Seconds by which a request on the real clock may seem early or late.

Redis has its own clock, and this machine may be busy between a request and its answer.
"""


class Subject(NamedTuple):
    """A kind of budget, and its clock."""

    open: OpenBudget
    again: OpenBudget
    """Opens the same budget as another worker."""
    open_for_api: OpenBudget
    """Opens the same budget for the API."""
    clock: Clock
    slack: float


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.removesuffix("/0"), db=DATABASE) as client:
        client.flushdb()
        yield client


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.external)])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "memory":
        clock = FakeClock()
        budgets = MemoryBudgets(clock)
        return Subject(
            budgets.open, budgets.open, budgets.open_for_api, clock, SLACK[request.param]
        )
    client = request.getfixturevalue("client")
    one, other = RedisBudgets(client), RedisBudgets(client)
    return Subject(one.open, other.open, other.open_for_api, SystemClock(), SLACK[request.param])


def starts(clock: Clock, *takers: Callable[[], float], count: int) -> list[float]:
    """Returns the start times of `count` requests of takers that obey the budget, in turn."""
    found: list[float] = []
    while len(found) < count:
        for take in takers:
            wait = take()
            if wait <= MAX_SLEEP_SECONDS:
                found.append(clock.monotonic() + wait)
            else:
                clock.sleep(wait - MAX_SLEEP_SECONDS)
    return sorted(found)[:count]


def most_within(times: list[float], window: float) -> int:
    return max(sum(start <= other < start + window for other in times) for start in times)


def test_the_first_request_may_start_at_once_and_the_next_when_it_is_due(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(10, 10))
    # When
    waits = [budget.reserve() for _ in range(3)]
    # Then
    assert waits[0] == 0
    assert waits[1:] == pytest.approx([1, 2], abs=subject.slack)


@pytest.mark.parametrize("rate", [Rate(10, 5), Rate(3, 2), Rate(1, 0.8)], ids=str)
def test_no_window_holds_more_requests_than_the_rate(subject: Subject, rate: Rate) -> None:
    # Given
    one, other = subject.open("board", rate), subject.again("board", rate)
    # When
    found = starts(subject.clock, one.reserve, other.reserve, other.reserve, count=8)
    # Then
    assert most_within(found, rate.seconds - subject.slack) <= rate.requests
    # And the whole rate is used, without gaps
    assert found[-1] - found[0] == pytest.approx(7 * rate.interval, abs=2 * subject.slack)


def test_no_burst_follows_a_pause(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(10, 1))
    budget.reserve()
    subject.clock.sleep(0.5)
    # When
    waits = [budget.reserve() for _ in range(3)]
    # Then
    assert waits == pytest.approx([0, 0.1, 0.2], abs=subject.slack)


def test_a_wait_that_is_too_long_reserves_nothing(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(1, 60))
    assert budget.reserve() == 0
    # When
    waits = [budget.reserve() for _ in range(5)]
    # Then
    assert waits == pytest.approx([60] * 5, abs=subject.slack)
    assert all(wait > MAX_SLEEP_SECONDS for wait in waits)


def test_sources_do_not_share_a_budget(subject: Subject) -> None:
    # Given
    one, other = subject.open("one", Rate(1, 60)), subject.open("other", Rate(1, 60))
    one.reserve()
    one.pause_for(100)
    # When
    wait = other.reserve()
    # Then
    assert wait == 0


def test_a_pause_stops_all_workers_of_the_source(subject: Subject) -> None:
    # Given
    one, other = subject.open("board", Rate(100, 1)), subject.again("board", Rate(100, 1))
    # When
    one.pause_for(42)
    # Then
    assert other.reserve() == pytest.approx(42, abs=subject.slack)


def test_after_a_pause_requests_continue_at_the_rate(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(10, 1))
    budget.pause_for(0.2)
    # When
    waits = [budget.reserve() for _ in range(3)]
    # Then
    assert waits == pytest.approx([0.2, 0.3, 0.4], abs=subject.slack)


def test_a_shorter_pause_does_not_shorten_a_longer_one(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(100, 1))
    budget.pause_for(60)
    # When
    budget.pause_for(1)
    budget.pause_for(0)
    # Then
    assert budget.reserve() == pytest.approx(60, abs=subject.slack)


def test_many_threads_get_distinct_start_times(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(40, 1))
    waits: list[float] = []

    def work() -> None:
        for _ in range(10):
            wait = budget.reserve()
            waits.append(subject.clock.monotonic() + wait)

    threads = [threading.Thread(target=work) for _ in range(6)]
    # When
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then: the last of 60 starts 1.475 s after the first
    assert max(waits) - min(waits) >= 1.475 - subject.slack


def test_without_a_rate_every_request_starts_at_once() -> None:
    # When
    UNLIMITED.pause_for(60)
    # Then
    assert [UNLIMITED.reserve() for _ in range(100)] == [0.0] * 100


def test_a_budget_leaves_nothing_behind_in_redis(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(rate_budgets, "WORKER_MEMORY_SECONDS", 0.1)
    budget = RedisBudgets(client).open("board", Rate(100, 1))
    # When
    budget.reserve()
    budget.pause_for(0.1)
    time.sleep(0.2)
    # Then
    assert client.keys() == []


def test_a_full_redis_still_lets_requests_start(redis_server: RedisServer) -> None:
    # Given: running exports must be able to end, because only that frees memory
    with redis.Redis.from_url(redis_server.url.removesuffix("/0"), db=DATABASE) as client:
        client.flushdb()
        budget = RedisBudgets(client).open("board", Rate(1_000, 1))
        budget.reserve()
        try:
            client.config_set("maxmemory", 1)
            # When
            waits = [budget.reserve() for _ in range(3)]
            budget.pause_for(1)
        finally:
            client.config_set("maxmemory", 0)
    # Then
    assert all(wait < 1 for wait in waits)


@pytest.mark.external
def test_a_redis_that_does_not_answer_is_an_error() -> None:
    # Given
    with redis.Redis(port=ports.find_free(1)[0], retry=Retry(NoBackoff(), 0)) as client:
        budget = RedisBudgets(client).open("board", Rate(100, 1))
        # When
        for ask in (budget.reserve, lambda: budget.pause_for(1)):
            with pytest.raises(StoreUnavailable, match="Redis did not answer"):
                ask()


def test_the_api_leaves_the_workers_their_share(subject: Subject) -> None:
    """Given a worker that uses the whole rate, when 16 callers of the API ask without a pause, then
    the worker still gets most of the requests.
    """
    rate = Rate(20, 1)
    worker, api = subject.open("board", rate), subject.open_for_api("board", rate)
    worker.reserve()
    ends_at = subject.clock.monotonic() + 3
    worker_due, callers_due = 0.0, [0.0] * 16
    counts = {"worker": 0, "api": 0}
    # Each of them sleeps until its request may start, sends it, and asks again.
    while (now := subject.clock.monotonic()) < ends_at:
        if worker_due <= now:
            wait = worker.reserve()
            assert wait <= MAX_SLEEP_SECONDS, "a worker gives up its export for a while"
            counts["worker"] += 1
            worker_due = now + wait
        for caller, due in enumerate(callers_due):
            if due <= now:
                wait = api.reserve()
                counts["api"] += wait <= MAX_SLEEP_SECONDS
                callers_due[caller] = now + min(wait, 0.01)
        subject.clock.sleep(0.005)
    # Compared with each other, because a busy machine lets neither use the whole rate.
    assert counts["worker"] >= 1.4 * counts["api"] > 0, counts
    assert counts["api"] <= 0.25 * 60 + 3, counts


def test_without_workers_the_api_uses_the_whole_rate(subject: Subject) -> None:
    api = subject.open_for_api("board", Rate(10, 10))
    assert [api.reserve() for _ in range(3)] == pytest.approx([0, 1, 2], abs=subject.slack)


def test_a_request_beyond_the_share_is_not_reserved(subject: Subject) -> None:
    """Given a worker and an API whose burst is spent, when the API asks again, then its wait is too
    long for a sleep, and the worker's next request is not delayed.
    """
    rate = Rate(2, 1)  # a share of one request in 2 s, and one more that was saved
    worker, api = subject.open("board", rate), subject.open_for_api("board", rate)
    waits = [worker.reserve(), api.reserve(), api.reserve()]
    assert waits == pytest.approx([0, 0.5, 1], abs=subject.slack)
    assert min(api.reserve() for _ in range(5)) > MAX_SLEEP_SECONDS
    assert worker.reserve() == pytest.approx(1.5, abs=subject.slack)

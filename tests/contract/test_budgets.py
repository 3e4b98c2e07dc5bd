"""What every Budget promises: in memory on a clock that is told, and in a real Redis."""

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
from exporter.store.redis.rate_budgets import RedisBudgets

DATABASE = 12
SLACK = {"memory": 1e-6, "redis": 0.5}
"""Seconds: Redis has its own clock, and this machine may be busy between asking and hearing."""
"""Seconds that a request on the real clock may seem early, because another was late."""


class Subject(NamedTuple):
    """A kind of budget, and the time that it lives in."""

    open: OpenBudget
    again: OpenBudget
    """As another worker would open it."""
    clock: Clock
    slack: float


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.removesuffix("/0"), db=DATABASE) as client:
        client.flushdb()
        yield client


@pytest.fixture(params=["memory", "redis"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "memory":
        clock = FakeClock()
        budgets = MemoryBudgets(clock)
        return Subject(budgets.open, budgets.open, clock, SLACK[request.param])
    client = request.getfixturevalue("client")
    one, other = RedisBudgets(client), RedisBudgets(client)
    return Subject(one.open, other.open, SystemClock(), SLACK[request.param])


def starts(clock: Clock, *takers: Callable[[], float], count: int) -> list[float]:
    """When that many requests start, asked for in turn, if everybody keeps to what was said."""
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
def test_no_window_holds_more_than_the_rate_whoever_asks(subject: Subject, rate: Rate) -> None:
    # Given
    one, other = subject.open("board", rate), subject.again("board", rate)
    # When
    found = starts(subject.clock, one.reserve, other.reserve, other.reserve, count=8)
    # Then
    assert most_within(found, rate.seconds - subject.slack) <= rate.requests
    # And the rate is used: nothing is left out in between
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


def test_a_hold_pauses_all_workers_of_the_source(subject: Subject) -> None:
    # Given
    one, other = subject.open("board", Rate(100, 1)), subject.again("board", Rate(100, 1))
    # When
    one.pause_for(42)
    # Then
    assert other.reserve() == pytest.approx(42, abs=subject.slack)


def test_after_a_hold_requests_go_on_at_the_rate(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(10, 1))
    budget.pause_for(0.2)
    # When
    waits = [budget.reserve() for _ in range(3)]
    # Then
    assert waits == pytest.approx([0.2, 0.3, 0.4], abs=subject.slack)


def test_a_shorter_hold_takes_nothing_from_a_longer_one(subject: Subject) -> None:
    # Given
    budget = subject.open("board", Rate(100, 1))
    budget.pause_for(60)
    # When
    budget.pause_for(1)
    budget.pause_for(0)
    # Then
    assert budget.reserve() == pytest.approx(60, abs=subject.slack)


def test_many_threads_take_each_turn_once(subject: Subject) -> None:
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


def test_without_a_rate_nobody_waits_and_nobody_is_asked() -> None:
    # When
    UNLIMITED.pause_for(60)
    # Then
    assert [UNLIMITED.reserve() for _ in range(100)] == [0.0] * 100


def test_a_budget_leaves_nothing_behind_in_redis(client: redis.Redis) -> None:
    # Given
    budget = RedisBudgets(client).open("board", Rate(100, 1))
    # When
    budget.reserve()
    budget.pause_for(0.1)
    time.sleep(0.2)
    # Then
    assert client.keys() == []


def test_a_full_redis_still_lets_requests_start(redis_server: RedisServer) -> None:
    # Given: exports under way must end, for only that makes room
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


def test_a_silent_redis_is_told_as_such() -> None:
    # Given
    with redis.Redis(port=ports.find_free(1)[0], retry=Retry(NoBackoff(), 0)) as client:
        budget = RedisBudgets(client).open("board", Rate(100, 1))
        # When
        for ask in (budget.reserve, lambda: budget.pause_for(1)):
            with pytest.raises(StoreUnavailable, match="Redis did not answer"):
                ask()

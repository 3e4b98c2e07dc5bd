"""The statistics of a source are those of all its processes, and never delay a request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporter.clock import FakeClock
from exporter.core.rates import MemoryBudgets, Metered, Rate
from exporter.errors import StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.redis import source_statistics
from exporter.store.redis.rate_budgets import RedisBudgets
from exporter.store.redis.source_statistics import SourceStatistics, SourceUse

DATABASE = 11


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.removesuffix("/0"), db=DATABASE) as client:
        client.flushdb()
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_two_processes_count_together(client: redis.Redis, clock: FakeClock) -> None:
    """Given two processes, when they send 100 requests of which one is refused and one is not
    answered, then both read all of them, with the 95th percentile of the answers.
    """
    one, other = (SourceStatistics(client, clock=clock) for _ in range(2))
    for process in (one, other):
        for _ in range(46):
            process.meter("board")(0.1, 200)
    for _ in range(6):
        one.meter("board")(2.0, 200)
    one.meter("board")(0.1, 429)
    clock.advance(5)
    other.meter("board")(9.0, None)
    one.flush()
    other.flush()
    use = one.read(["board"])["board"]
    assert use == other.read(["board"])["board"]
    assert (use.requests, use.limited, use.failed, use.failure) == (100, 1, 1, 0)
    assert use.p95_seconds is not None
    assert 2.0 <= use.p95_seconds <= 2.5
    assert use.succeeded_at is not None
    assert use.failed_at == use.succeeded_at + timedelta(seconds=5)
    assert use.is_reachable is False


def test_a_success_after_a_failure_makes_the_source_reachable(
    client: redis.Redis, clock: FakeClock
) -> None:
    found = SourceStatistics(client, clock=clock)
    found.meter("board")(0.1, 503)
    clock.advance(1)
    found.meter("board")(0.1, 200)
    found.flush()
    assert found.read(["board"])["board"].is_reachable is True


def test_a_source_without_requests_is_neither_reachable_nor_not(client: redis.Redis) -> None:
    use = SourceStatistics(client).read(["board"])["board"]
    assert use == SourceUse()
    assert use.is_reachable is None


def test_requests_of_two_hours_ago_are_not_counted(client: redis.Redis, clock: FakeClock) -> None:
    found = SourceStatistics(client, clock=clock)
    found.meter("board")(0.1, 200)
    found.flush()
    clock.advance(3600)
    assert found.read(["board"])["board"].requests == 1
    clock.advance(3600)
    use = found.read(["board"])["board"]
    assert (use.requests, use.p95_seconds) == (0, None)
    assert use.succeeded_at is not None


def test_a_pause_is_shown_until_the_next_request_may_start(client: redis.Redis) -> None:
    budget = RedisBudgets(client).open("board", Rate(10, 1))
    budget.pause_for(30)
    assert 28 < SourceStatistics(client).read(["board"])["board"].next_in_seconds <= 30


def test_what_was_collected_is_written_without_a_call(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a process that sends two requests at once, when it does nothing more, then both are
    in Redis soon.
    """
    monkeypatch.setattr(source_statistics, "FLUSH_SECONDS", 0.01)
    found = SourceStatistics(client)
    metered = Metered(MemoryBudgets(FakeClock()).open("board", Rate(1, 1)), found.meter("board"))
    metered.record(0.1, 200)
    metered.record(0.1, 200)
    for _ in range(200):
        if found.read(["board"])["board"].requests == 2:
            return
    pytest.fail("nothing was written")


def test_a_request_does_not_fail_or_wait_because_redis_does_not_answer() -> None:
    port = ports.find_free(1)[0]
    client = redis.Redis(port=port, retry=Retry(NoBackoff(), 0))
    found = SourceStatistics(client)
    found.meter("board")(0.1, 200)
    found.flush()
    with pytest.raises(StoreUnavailable):
        found.read(["board"])

"""What a sliding window promises, in a real Redis: exact, shared, and nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from exporter.core.rates import Rate
from exporter.errors import StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.redis.rate_limits import RateLimits, Window

DATABASE = 13


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.removesuffix("/0"), db=DATABASE) as client:
        client.flushdb()
        yield client


def now(client: redis.Redis) -> datetime:
    """The time by the clock of Redis."""
    seconds, micros = client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


def test_a_burst_that_fits_is_allowed_and_says_what_remains(client: redis.Redis) -> None:
    # Given
    limits, rate = RateLimits(client), Rate(3, 60)
    before = now(client)

    # When
    windows = [limits.acquire("ann", rate) for _ in range(3)]

    # Then
    after = now(client)
    assert [(one.allowed, one.limit, one.remaining) for one in windows] == [
        (True, 3, 2),
        (True, 3, 1),
        (True, 3, 0),
    ]
    assert {one.retry_after for one in windows} == {0.0}
    minute = timedelta(seconds=60)
    assert len({one.resets_at for one in windows}) == 1
    assert before + minute <= windows[0].resets_at <= after + minute


def test_a_refused_hit_says_when_to_come_back_and_is_not_counted(client: redis.Redis) -> None:
    # Given
    limits, rate = RateLimits(client), Rate(2, 0.4)
    first, _ = limits.acquire("ann", rate), limits.acquire("ann", rate)

    # When: many are refused, which must not put off the moment
    refused = [limits.acquire("ann", rate) for _ in range(20)]

    # Then
    assert {(one.allowed, one.limit, one.remaining) for one in refused} == {(False, 2, 0)}
    assert {one.resets_at for one in refused} == {first.resets_at}
    assert all(0 < one.retry_after <= 0.4 for one in refused)
    time.sleep(refused[-1].retry_after)
    assert limits.acquire("ann", rate).allowed


def test_a_hit_is_allowed_from_the_very_moment_that_was_said_and_not_before(
    client: redis.Redis,
) -> None:
    # Given
    limits, rate = RateLimits(client), Rate(2, 0.3)
    limits.acquire("ann", rate)
    time.sleep(0.1)
    limits.acquire("ann", rate)
    said = limits.acquire("ann", rate).resets_at
    asked = [(now(client), Window(False, 2, 0, said, 1.0))]

    # When: somebody asks without a pause until it is allowed
    while not asked[-1][1].allowed:
        asked.append((now(client), limits.acquire("ann", rate)))

    # Then: the last refusal was asked for before that moment, the first success answered after it
    answered = now(client)
    assert asked[-2][0] < said <= answered
    assert min(window.retry_after for _, window in asked[:-1]) > 0
    # And one place was free, for the second hit is younger
    assert asked[-1][1].remaining == 0
    assert asked[-1][1].resets_at > answered


def test_no_window_holds_more_than_its_rate_whoever_hits(client: redis.Redis) -> None:
    # Given
    rate, until = Rate(5, 0.2), time.monotonic() + 1.5
    one, other = RateLimits(client), RateLimits(client)
    hits: list[int] = []

    # When: two ask in turn without a pause; the head of the list says when a hit was counted
    while time.monotonic() < until:
        for limits in (one, other):
            if limits.acquire("ann", rate).allowed:
                hits.append(int(cast("bytes", client.lindex("{exporter}:rate:ann", 0))))

    # Then: six of them never fit into a window, and the rate is used
    gaps = [later - first for first, later in zip(hits, hits[5:], strict=False)]
    assert min(gaps) >= 200_000
    assert len(hits) >= 20


def test_of_those_that_race_for_the_last_hit_one_gets_it(client: redis.Redis) -> None:
    # Given
    rate, start = Rate(10, 60), threading.Barrier(8)
    windows: list[Window] = []

    def ask() -> None:
        limits = RateLimits(client)
        start.wait()
        windows.extend(limits.acquire("ann", rate) for _ in range(4))

    threads = [threading.Thread(target=ask) for _ in range(8)]

    # When
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # Then
    assert sorted(one.remaining for one in windows if one.allowed) == list(range(10))
    assert len(windows) == 32


def test_names_do_not_share_a_window(client: redis.Redis) -> None:
    # Given
    limits, rate = RateLimits(client), Rate(1, 60)
    limits.acquire("ann", rate)

    # When / Then
    assert not limits.acquire("ann", rate).allowed
    assert limits.acquire("bob", rate).allowed


def test_a_rate_made_smaller_holds_at_once(client: redis.Redis) -> None:
    # Given
    limits = RateLimits(client)
    for _ in range(10):
        limits.acquire("ann", Rate(100, 60))

    # When
    window = limits.acquire("ann", Rate(5, 60))

    # Then
    assert (window.allowed, window.remaining) == (False, 0)


@pytest.mark.parametrize("ahead", [0.05, 3_600.0], ids=["a little", "an hour"])
def test_a_clock_set_back_shuts_nobody_out(client: redis.Redis, ahead: float) -> None:
    # Given a full window by a clock that was ahead
    limits, rate = RateLimits(client), Rate(2, 0.2)
    then = round((time.time() + ahead) * 1e6)
    client.rpush("{exporter}:rate:ann", then, then - 1)

    # When
    first = limits.acquire("ann", rate)
    time.sleep(0.3)

    # Then
    assert first.retry_after <= 0.25
    assert limits.acquire("ann", rate).allowed


def test_a_window_leaves_nothing_behind_in_redis(client: redis.Redis) -> None:
    # When
    RateLimits(client).acquire("ann", Rate(100, 0.1))
    time.sleep(0.2)

    # Then
    assert client.keys() == []


def test_a_full_redis_still_answers_those_who_poll(client: redis.Redis) -> None:
    # Given
    limits, rate = RateLimits(client), Rate(2, 60)
    client.config_set("maxmemory", 1)
    try:
        # When
        windows = [limits.acquire("ann", rate) for _ in range(3)]
    finally:
        client.config_set("maxmemory", 0)

    # Then
    assert [window.allowed for window in windows] == [True, True, False]


@pytest.mark.external
def test_a_silent_redis_is_told_as_such() -> None:
    # Given
    with redis.Redis(port=ports.find_free(1)[0], retry=Retry(NoBackoff(), 0)) as client:
        limits = RateLimits(client)
        # When / Then
        with pytest.raises(StoreUnavailable, match="Redis did not answer"):
            limits.acquire("ann", Rate(1, 1))

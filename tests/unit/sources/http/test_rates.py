"""Requests to an upstream under a rate that all workers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import FakeClock
from exporter.config import load_config
from exporter.core.rates import UNLIMITED, Budget, MemoryBudgets, Rate
from exporter.errors import ConfigurationError, SourceRefused, SourceUnavailable, StoreUnavailable
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.config import HttpConfig
from exporter.sources.http import client as http
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from tests.upstreams import Upstream, reply, serving

GOOD = reply(200, b"{}")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@contextmanager
def asking(upstream: Upstream, clock: FakeClock, budget: Budget) -> Iterator[http.Upstream]:
    client = http.Upstream(upstream.url, {}, clock, budget=budget)
    try:
        yield client
    finally:
        client.close()


def ask(upstream: Upstream, clock: FakeClock, budget: Budget) -> bytes:
    with asking(upstream, clock, budget) as client:
        return client.request("GET", "/search", bytes)


class Broken:
    """A budget whose Redis does not answer."""

    def __init__(self, *, takes: bool) -> None:
        self._takes = takes

    def reserve(self) -> float:
        if self._takes:
            return 0.0
        raise StoreUnavailable("Redis did not answer: timed out")

    def pause_for(self, seconds: float) -> None:
        raise StoreUnavailable("Redis did not answer: timed out")

    def record(self, seconds: float, status: int | None) -> None:
        pass


@pytest.mark.external
def test_requests_are_spaced_by_sleeping_while_the_wait_is_short(clock: FakeClock) -> None:
    # Given
    budget = MemoryBudgets(clock).open("board", Rate(2, 1))
    with serving(GOOD) as upstream, asking(upstream, clock, budget) as client:
        # When
        for _ in range(5):
            client.request("GET", "/search", bytes)
    # Then
    assert clock.monotonic() == 2


@pytest.mark.external
def test_a_long_wait_is_left_to_the_export_and_nothing_is_sent(clock: FakeClock) -> None:
    # Given
    budget = MemoryBudgets(clock).open("board", Rate(1, 60))
    with serving(GOOD) as upstream:
        ask(upstream, clock, budget)
        # When
        with pytest.raises(SourceUnavailable, match=r"may start in 60\.0 s") as waits:
            ask(upstream, clock, budget)
        # Then
        assert waits.value.retry_after == 60
        assert len(upstream.asked) == 1
        assert clock.monotonic() == 0
        # When: the export continues after exactly that time
        clock.advance(waits.value.retry_after)
        found = ask(upstream, clock, budget)
    # Then
    assert found == b"{}"


@pytest.mark.external
def test_tries_are_requests_too(clock: FakeClock) -> None:
    # Given
    budget = MemoryBudgets(clock).open("board", Rate(1, 1.5))
    with serving(reply(502), reply(502), GOOD) as upstream:
        # When
        ask(upstream, clock, budget)
    # Then
    assert len(upstream.asked) == 3
    assert clock.monotonic() == 3


@pytest.mark.external
def test_a_long_wait_after_a_failure_tells_the_failure(clock: FakeClock) -> None:
    # Given
    budget = MemoryBudgets(clock).open("board", Rate(1, 60))
    with (
        serving(reply(502, "deploying"), GOOD) as upstream,
        pytest.raises(SourceUnavailable, match=r"before that: .*502: deploying") as waits,
    ):
        # When
        ask(upstream, clock, budget)
    # Then
    assert waits.value.retry_after is not None
    assert 59 < waits.value.retry_after <= 60
    assert len(upstream.asked) == 1


@pytest.mark.external
def test_a_429_that_names_a_time_pauses_all_workers_of_the_source(clock: FakeClock) -> None:
    # Given
    budgets = MemoryBudgets(clock)
    own, others = (budgets.open("board", Rate(100, 1)) for _ in range(2))
    with serving(reply(429, retry_after="42"), GOOD) as upstream:
        with pytest.raises(SourceUnavailable):
            ask(upstream, clock, own)
        # When
        with pytest.raises(SourceUnavailable, match="asked for a pause") as waits:
            ask(upstream, clock, others)
    # Then
    assert waits.value.retry_after == 42
    assert len(upstream.asked) == 1


@pytest.mark.external
def test_a_short_pause_is_slept_by_all_workers(clock: FakeClock) -> None:
    # Given
    budgets = MemoryBudgets(clock)
    own, others = (budgets.open("board", Rate(100, 1)) for _ in range(2))
    with serving(reply(429, retry_after="2"), GOOD) as upstream:
        # When
        ask(upstream, clock, own)
        assert clock.monotonic() == 2
        ask(upstream, clock, others)
    # Then
    assert clock.monotonic() == pytest.approx(2.01)


@pytest.mark.external
@pytest.mark.parametrize(
    "answer",
    [
        reply(503, retry_after="1"),
        reply(429),
        reply(429, retry_after="soon"),
        reply(429, retry_after="0"),
    ],
    ids=["a 503", "no time", "nonsense", "none left"],
)
def test_other_failures_pause_only_the_worker_that_met_them(
    clock: FakeClock, answer: bytes
) -> None:
    # Given
    budgets = MemoryBudgets(clock)
    with serving(answer, GOOD) as upstream:
        # When
        ask(upstream, clock, budgets.open("board", Rate(1_000, 1)))
    # Then
    assert budgets.starts["board"] == pytest.approx(clock.monotonic() + 0.001)


@pytest.mark.external
def test_a_spent_plan_pauses_nobody_and_ends_the_export(clock: FakeClock) -> None:
    # Given
    budgets = MemoryBudgets(clock)
    spent = reply(429, "500 used", x_billing_code="limit_exceeded", retry_after="60")
    with serving(spent) as upstream, pytest.raises(SourceRefused, match=r"500 used \(its plan"):
        # When
        ask(upstream, clock, budgets.open("board", Rate(1_000, 1)))
    # Then
    assert budgets.starts["board"] < 1


@pytest.mark.external
def test_without_an_answer_of_the_budget_no_request_is_sent(clock: FakeClock) -> None:
    # Given
    with (
        serving(GOOD) as upstream,
        pytest.raises(SourceUnavailable, match=r"rate budget could not be read: Redis did not"),
    ):
        # When
        ask(upstream, clock, Broken(takes=False))
    # Then
    assert upstream.asked == []


@pytest.mark.external
def test_a_pause_that_nobody_else_hears_of_is_kept_all_the_same(clock: FakeClock) -> None:
    # Given
    with serving(reply(429, retry_after="2"), GOOD) as upstream:
        # When
        found = ask(upstream, clock, Broken(takes=True))
    # Then
    assert found == b"{}"
    assert clock.monotonic() == 2


SOURCE = """
[sources.board]
type = "hirebase"
base_url = "http://127.0.0.1:1"
"""


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/60s", Rate(100, 60)),
        ("5/s", Rate(5, 1)),
        (" 1000 / h ", Rate(1_000, 3_600)),
        ("1/0.5m", Rate(1, 30)),
        ("7/10", Rate(7, 10)),
    ],
)
def test_a_rate_is_written_as_requests_and_a_time(tmp_path: Path, text: str, rate: Rate) -> None:
    # Given
    file = tmp_path / "own.toml"
    file.write_text(f'{SOURCE}rate = "{text}"\npage_timeout = "30s"\n')
    # When
    config = load_config(file).sources["board"]
    # Then
    assert isinstance(config, HttpConfig)
    assert config.rate == rate
    assert config.page_timeout == timedelta(seconds=30)


@pytest.mark.parametrize(
    "line",
    [
        *('rate = "100"', 'rate = "0/s"', 'rate = "5/0s"', 'rate = "5/w"', 'rate = "-5/s"'),
        *('rate = "/s"', 'rate = "5/8d"', 'rate = "5/s/s"', 'rate = ""', "rate = 5"),
        *('rate = "٥/s"', 'page_timeout = "0s"', 'page_timeout = "6m"', 'page_timeout = "soon"'),
    ],
)
def test_what_is_no_rate_and_no_timeout_is_named(tmp_path: Path, line: str) -> None:
    # Given
    file = tmp_path / "own.toml"
    file.write_text(f"{SOURCE}{line}\n")
    # When
    with pytest.raises(ConfigurationError) as refused:
        load_config(file)
    # Then
    assert f"sources.board.{line.split(' ')[0]}" in str(refused.value)


@given(st.integers(1, 10**9 - 1), st.floats(0.001, 1000))
def test_a_rate_says_itself_as_it_is_written(requests: int, seconds: float) -> None:
    # Given
    rate = Rate(requests, round(seconds, 3))
    # When / Then
    assert str(rate).startswith(f"{requests}/")
    assert rate.interval * requests == pytest.approx(rate.seconds)


def test_the_engine_opens_a_budget_for_a_source_with_a_rate_and_only_then(
    tmp_path: Path, clock: FakeClock
) -> None:
    # Given
    file = tmp_path / "own.toml"
    other = SOURCE.replace("board", "other")
    file.write_text(f'{SOURCE}rate = "5/s"\n{other}')
    opened: list[tuple[str, Rate]] = []

    def open_budget(source: str, rate: Rate) -> Budget:
        opened.append((source, rate))
        return UNLIMITED

    engine = ExportService(
        settings=Settings(),
        config=load_config(file),
        store=MemoryStore(clock),
        storage=MemoryStorage(clock),
        clock=clock,
        budgets=open_budget,
    )
    # When
    for name in ("board", "other", "board"):
        engine.source(name)
    # Then
    assert opened == [("board", Rate(5, 1))]

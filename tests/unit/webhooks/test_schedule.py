"""When a webhook is tried again, and what an answer means."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.webhooks.schedule import RETRY_DELAY_SECONDS, Reaction, classify, next_delay
from exporter.webhooks.sender import Outcome
from tests import fast


def answered(status: int | None, retry_after: float | None = None) -> Outcome:
    return Outcome(status, 0.1, retry_after=retry_after)


def middle() -> float:
    return 0.5


def test_ten_tries_over_three_days_then_the_webhook_is_dead() -> None:
    # Given
    broken = answered(500)
    # When
    delays = [next_delay(tries, broken, middle) for tries in range(1, 12)]
    # Then
    assert delays == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400, None, None]
    assert sum(delay or 0 for delay in delays) == 75 * 3600 + 35 * 60 + 5


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, Reaction.DELIVERED) for status in (200, 201, 202, 204, 299)),
        *((status, Reaction.RETRY) for status in (101, 300, 301, 302, 303, 304, 307, 308, 399)),
        *((status, Reaction.RETRY) for status in (400, 401, 403, 404, 408, 409, 422, 500, 503)),
        *((status, Reaction.THROTTLE) for status in (429, 502, 504)),
        (410, Reaction.DISABLE),
        (None, Reaction.RETRY),
    ],
)
def test_only_2xx_is_a_delivery_and_only_410_is_for_good(
    status: int | None, expected: Reaction
) -> None:
    # Given / When / Then
    assert classify(answered(status)) is expected


@pytest.mark.parametrize("status", [200, 204, 410])
def test_what_was_delivered_or_is_gone_is_not_tried_again(status: int) -> None:
    # Given / When / Then
    assert next_delay(1, answered(status, retry_after=30), middle) is None


@given(tries=st.integers(1, 9), number=st.floats(0, 1), status=st.sampled_from([None, 302, 500]))
@settings(max_examples=fast.examples(60), deadline=None)
def test_a_delay_varies_by_a_fifth_at_most(tries: int, number: float, status: int | None) -> None:
    # Given
    base = RETRY_DELAY_SECONDS[tries - 1]
    # When
    delay = next_delay(tries, answered(status), lambda: number)
    # Then
    assert delay == pytest.approx(base * (0.8 + 0.4 * number))


@given(
    tries=st.integers(1, 9),
    number=st.floats(0, 1),
    asked=st.floats(0, 1e9),
    status=st.sampled_from([400, 429, 500, 503, 504]),
)
@settings(max_examples=fast.examples(60), deadline=None)
def test_a_retry_after_counts_between_the_delay_and_twice_the_delay(
    tries: int, number: float, asked: float, status: int
) -> None:
    # Given
    base = (
        RETRY_DELAY_SECONDS[tries - 1]
        if status not in (429, 504)
        else max(RETRY_DELAY_SECONDS[tries - 1], 60)
    )
    # When
    delay = next_delay(tries, answered(status, asked), lambda: number)
    # Then: never before it asked, as far as it may ask
    assert delay is not None
    assert min(max(asked, base), 2 * base) <= delay <= 2 * base
    assert delay <= 1.2 * max(asked, base)


@pytest.mark.parametrize("status", [429, 502, 504])
@pytest.mark.parametrize("number", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("asked", [None, 0.0, 1.0])
def test_a_receiver_with_too_much_to_do_has_a_minute_at_least(
    status: int, number: float, asked: float | None
) -> None:
    # Given / When
    first = next_delay(1, answered(status, asked), lambda: number)
    second = next_delay(2, answered(status, asked), lambda: number)
    # Then
    assert first == pytest.approx(60 * (1 + 0.2 * number))
    assert second == pytest.approx(300 * (1 + 0.2 * number))


def test_a_delay_before_the_first_try_is_a_mistake() -> None:
    # Given / When / Then
    with pytest.raises(ValueError, match="tries is 0"):
        next_delay(0, answered(500), middle)

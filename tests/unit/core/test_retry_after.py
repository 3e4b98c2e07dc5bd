"""Tests of the reader of Retry-After, and of the headers of rate limits."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.clock import FakeClock
from exporter.core import retry_after
from tests import fast

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST = 300.0

READABLE = {
    "42": 42,
    " 7 ": 7,
    "0": 0,
    "119.997": 120,
    "2.5": 3,
    ".5": 1,
    "5.": 5,
    "+3": 3,
    "0.0": 0,
    "30s": 30,
    "2, 5": 5,
    "1.2,0.4": 2,
    "999999999": LONGEST,
    "9" * 5_000: LONGEST,
    "300.0001": LONGEST,
    "Thu, 01 Jan 2026 00:00:07 GMT": 7,
    "Thursday, 01-Jan-26 00:00:07 GMT": 7,
    "Thu Jan  1 00:00:07 2026": 7,
    "Thu, 01 Jan 2026 00:00:07 +0000": 7,
    "Thu, 01 Jan 2026 01:00:07 +0100": 7,
    "2026-01-01T00:00:07Z": 7,
    "2026-01-01T00:00:07.5+00:00": 7.5,
    "Wed, 31 Dec 2025 23:59:00 GMT": 0,
    "Wed, 01 Jan 2036 00:00:00 GMT": LONGEST,
}


@pytest.mark.parametrize(("value", "seconds"), READABLE.items())
def test_seconds_are_rounded_up_and_dates_are_read_in_every_form_of_the_standard(
    value: str, seconds: float
) -> None:
    # When / Then
    assert retry_after.read(value, NOW, longest=LONGEST) == seconds


UNREADABLE = (
    *("soon", "-5", "-0.5", "nan", "inf", "1e9", "0x10", "5 minutes", "1_000", "٥", "5;", "1 2"),
    *("Thu, 01 Jan 2026 00:00:07 +99999999999999", "Thu, 32 Jan 2026 00:00:07 GMT", "{}", "null"),
)


@pytest.mark.parametrize("value", [*UNREADABLE, None, "", "  "])
def test_an_absent_or_another_value_says_nothing(value: str | None) -> None:
    # When / Then
    assert retry_after.read(value, NOW, longest=LONGEST) is None


@given(
    st.text(max_size=60)
    | st.from_regex(r"[A-Z][a-z]{2}, \d+ Jan \d+ \d+:\d+:\d+ [+-]\d+")
    | st.from_regex(r"[+-]?[\d.,eE]{0,400}s?")
    | st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:?\d\d)?")
)
@settings(max_examples=fast.examples(40), deadline=None)
def test_no_value_breaks_the_reader_and_no_wait_is_out_of_bounds(value: str) -> None:
    # When
    seconds = retry_after.read(value, NOW, longest=LONGEST)
    # Then
    assert seconds is None or 0 <= seconds <= LONGEST


@given(st.decimals(0, 299, places=3))
def test_a_wait_is_never_shorter_than_asked_for_and_less_than_a_second_longer(
    seconds: object,
) -> None:
    # When
    waits = retry_after.read(str(seconds), NOW, longest=LONGEST)
    # Then
    assert waits is not None
    assert 0 <= waits - float(str(seconds)) < 1


def test_what_a_server_sends_and_nobody_can_read_is_logged_once_for_each_server() -> None:
    # Given
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    reader = retry_after.Reader(FakeClock(), longest=LONGEST)
    with structlog.testing.capture_logs() as logs:
        # When
        found = [
            reader.read({"retry-after": value}, server)
            for server in ("http://a", "http://b", "http://a")
            for value in ("soon\x1b[31m" + "x" * 500, "later", "", "5")
        ]
    # Then
    assert found == [None, None, None, 5.0] * 3
    assert [log["server"] for log in logs] == ["http://a", "http://b"]
    assert all(log["value"].startswith("soon") for log in logs)
    assert all(len(log["value"]) < 150 and log["value"].isprintable() for log in logs)


EPOCH = int(NOW.timestamp())
RESETS = {
    "seconds": ({"x-ratelimit-reset": "30"}, 30),
    "decimals": ({"x-ratelimit-reset-after": "1.3"}, 2),
    "the standard's draft": ({"ratelimit-reset": "17"}, 17),
    "a time in seconds": ({"x-ratelimit-reset": str(EPOCH + 40)}, 40),
    "a time in milliseconds": ({"x-ratelimit-reset": str(EPOCH * 1000 + 2_500)}, 2.5),
    "a time with decimals": ({"x-rate-limit-reset": f"{EPOCH + 4}.0"}, 4),
    "a date": ({"x-ratelimit-reset": "2026-01-01T00:01:00Z"}, 60),
    "a time in the past": ({"x-ratelimit-reset": str(EPOCH - 40)}, 0),
    "a time far away": ({"x-ratelimit-reset": str(EPOCH + 86_400)}, LONGEST),
    "nonsense": ({"x-ratelimit-reset": "later"}, None),
    "nothing": ({}, None),
    "the first that can be read": ({"x-ratelimit-reset": "?", "ratelimit-reset": "8"}, 8),
}


@pytest.mark.parametrize(("headers", "seconds"), RESETS.values(), ids=RESETS)
def test_the_reset_of_a_rate_limit_is_a_time_or_a_number_of_seconds(
    headers: dict[str, str], seconds: float | None
) -> None:
    # When / Then
    assert retry_after.Reader(FakeClock(), longest=LONGEST).until_reset(headers) == seconds

"""Tests of the parser of days and times."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.contracts import timestamps


@pytest.mark.parametrize(
    ("text", "canonical", "moment"),
    [
        ("2026-03-01", "2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T09:30:00Z", "2026-03-01T09:30:00Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01T09:30:00", "2026-03-01T09:30:00Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01T01:00+02:00", "2026-02-28T23:00:00Z", datetime(2026, 2, 28, 23, tzinfo=UTC)),
    ],
)
def test_a_day_and_a_moment_in_any_zone_are_understood(
    text: str, canonical: str, moment: datetime
) -> None:
    # When / Then
    assert timestamps.canonical(text) == canonical
    assert timestamps.parse(text) == moment


@given(st.datetimes(timezones=st.timezones() | st.none()))
def test_the_canonical_spelling_means_the_same_moment_and_is_its_own(moment: datetime) -> None:
    # Given
    try:
        canonical = timestamps.canonical(moment.isoformat())
    except ValueError:
        # In UTC the time would be before year 1 or after year 9999.
        assert moment.year in (1, 9999)
        return

    # When / Then
    assert timestamps.parse(canonical) == timestamps.parse(moment.isoformat())
    assert timestamps.canonical(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "soon", "2026-13-01", "2026-02-30", "1767225600", "0001-01-01T00:00:00+14:00"]
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    # When / Then
    with pytest.raises(ValueError, match="write 2026-03-01 or 2026-03-01T12:00:00Z"):
        timestamps.parse(text)

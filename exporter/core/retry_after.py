"""Parses the HTTP header Retry-After of upstreams and webhook receivers."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def read(value: str | None, now: datetime, *, longest: float) -> float | None:
    """Returns the seconds to wait, at most `longest`; None if the header is absent or invalid.

    The value is a number of seconds or an HTTP date; a date in the past gives 0.

    >>> read("120", datetime(2026, 1, 1, tzinfo=UTC), longest=300)
    120.0
    >>> read("Thu, 01 Jan 2026 00:00:07 GMT", datetime(2026, 1, 1, tzinfo=UTC), longest=300)
    7.0
    >>> read("soon", datetime(2026, 1, 1, tzinfo=UTC), longest=300)
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - now).total_seconds()
    return min(max(seconds, 0.0), longest)

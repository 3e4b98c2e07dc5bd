"""Parses the headers by which upstreams and webhook receivers ask for a pause."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog

from exporter.clock import Clock

log = structlog.get_logger()

RESET_HEADERS = (
    "x-ratelimit-reset-after",
    "x-ratelimit-reset",
    "x-rate-limit-reset",
    "ratelimit-reset",
)
"""Headers with the time at which a rate limit allows requests again."""
MAX_WARNINGS = 1_000
"""Maximum number of servers whose first unreadable value is logged."""
_MAX_SHOWN_CHARS = 100
_NUMBER = r"\+?(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBERS = re.compile(rf"{_NUMBER}\s*s?(?:\s*,\s*{_NUMBER}\s*s?)*", re.ASCII)
_EPOCH_SECONDS, _EPOCH_MILLISECONDS = 1e9, 1e11
"""Numbers from which on a reset is a time since 1970 and not a number of seconds to wait."""


def read(value: str | None, now: datetime, *, longest: float) -> float | None:
    """Returns the seconds to wait, at most `longest`; None if the value is absent or invalid.

    The value is a number of seconds, which is rounded up, or an HTTP date in one of the three forms
    of RFC 9110, or an ISO 8601 time. A date in the past gives 0. Of several numbers, which are a
    header that was sent more than once, the largest counts.

    >>> read("119.997", datetime(2026, 1, 1, tzinfo=UTC), longest=300)
    120.0
    >>> read("Thu, 01 Jan 2026 00:00:07 GMT", datetime(2026, 1, 1, tzinfo=UTC), longest=300)
    7.0
    >>> read("soon", datetime(2026, 1, 1, tzinfo=UTC), longest=300)
    """
    text = (value or "").strip()
    if _NUMBERS.fullmatch(text):
        return float(math.ceil(min(_largest(text), longest)))
    date = _date(text)
    return None if date is None else min(max((date - now).total_seconds(), 0.0), longest)


class Reader:
    """Reads the headers of answers; logs each server's first invalid Retry-After. Thread-safe."""

    def __init__(self, clock: Clock, *, longest: float, redact: Callable[[str], str] = str) -> None:
        """Stores `redact`, which removes secrets from a value before it is logged."""
        self._clock = clock
        self._longest = longest
        self._redact = redact
        self._warned: set[str] = set()
        """Servers whose invalid value was logged."""

    def read(self, headers: Mapping[str, str], server: str) -> float | None:
        """Returns the seconds that the Retry-After of an answer asks for, as `read` does.

        `headers` has names in lower case. `server` names the server in the log.
        """
        value = headers.get("retry-after", "")
        seconds = read(value, self._clock.now(), longest=self._longest)
        if seconds is None and value.strip():
            self._warn(server, value)
        return seconds

    def until_reset(self, headers: Mapping[str, str]) -> float | None:
        """Returns the seconds until a rate limit allows requests again, at most `longest`.

        Reads the first of RESET_HEADERS that has a valid value; None if none has. The value is that
        of a Retry-After, or a time in seconds or milliseconds since 1970. `headers` has names in
        lower case.
        """
        now = self._clock.now()
        for value in (headers.get(name, "").strip() for name in RESET_HEADERS):
            number = _largest(value) if _NUMBERS.fullmatch(value) else 0.0
            if number >= _EPOCH_SECONDS:
                seconds = number / (1000 if number >= _EPOCH_MILLISECONDS else 1)
                return min(max(seconds - now.timestamp(), 0.0), self._longest)
            found = read(value, now, longest=self._longest)
            if found is not None:
                return found
        return None

    def _warn(self, server: str, value: str) -> None:
        if server in self._warned or len(self._warned) >= MAX_WARNINGS:
            return
        self._warned.add(server)
        shown = "".join(c for c in self._redact(value) if c.isprintable())[:_MAX_SHOWN_CHARS]
        log.warning("retry_after.unreadable", server=server, value=shown)


def _largest(numbers: str) -> float:
    return max(float(one.strip().rstrip("s")) for one in numbers.split(","))


def _date(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text)
            return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            continue
    return None

"""Conditions on which Redis records an export: the caller's API key, and rate limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from exporter.store.redis import rate_limits
from exporter.store.redis.api_keys import KeyChanged, KnownKey
from exporter.store.redis.calls import Word
from exporter.store.redis.rate_limits import Count


class Admission(NamedTuple):
    """An API key and rate limits, checked in the same atomic step that records an export."""

    key: KnownKey | None = None
    """The caller's key, which must not have changed; None: the key was checked before."""
    counts: Sequence[Count] = ()
    """The rate limits in which the request is counted, and which must allow it."""

    def arguments(self) -> list[Word]:
        """Returns the last arguments of the script `create`."""
        words: list[Word] = ["", "", 0]
        if self.key is not None:
            words = [self.key.digest, self.key.value, int(self.key.metered)]
        for one in self.counts:
            words += [one.name, one.rate.requests, rate_limits.window_micros(one.rate)]
        return words

    def check(self, windows: Sequence[Any], outcome: bytes) -> None:
        """Raises KeyChanged for such an outcome, and what a count raises for its window."""
        if outcome == b"changed":
            raise KeyChanged
        for one, window in zip(self.counts, windows, strict=False):
            one.check(rate_limits.read(one.rate, window))


UNCONDITIONAL = Admission()
"""The admission of a request that was admitted before."""

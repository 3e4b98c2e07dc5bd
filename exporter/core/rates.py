"""What may start now: the budget of requests that all workers of a source share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

LONGEST_DELAY = 2.0
"""Seconds that a worker sleeps for an upstream; a longer wait is a state of the export."""


@dataclass(frozen=True)
class Rate:
    """At most `requests` within any `seconds`.

    They are spaced evenly and never saved up: after a pause there is no burst, because an upstream
    that counts by another window than ours would refuse it.
    """

    requests: int
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds between the starts of two requests."""
        return self.seconds / self.requests

    def __str__(self) -> str:
        return f"{self.requests}/{self.seconds:g}s"


class Budget(Protocol):
    """Says when the next request to a source may start, to all its workers in turn."""

    def take(self) -> float:
        """Seconds until the next request may start.

        It is reserved if that is at most LONGEST_DELAY: sleep that long, then send it. If it is
        longer nothing is reserved: send nothing and ask again after that time. Raises
        StoreUnavailable if nobody can tell; then, too, nothing may be sent.
        """

    def hold(self, seconds: float) -> None:
        """No request starts within these seconds, except those already reserved.

        Raises StoreUnavailable if the other workers could not be told.
        """


class Unlimited:
    """The budget of a source without a rate: every request may start at once."""

    def take(self) -> float:
        return 0.0

    def hold(self, seconds: float) -> None:
        """Nobody else is told: each worker learns from the upstream itself."""


UNLIMITED = Unlimited()

Open = Callable[[str, Rate], Budget]
"""Gives a source's budget by the source's name; all that are given for one name are one."""

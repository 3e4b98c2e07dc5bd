"""Retry schedule of webhooks: backoff delays, and the reaction to each response status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto

from exporter.webhooks.sender import Outcome

MINUTE, HOUR = 60.0, 3600.0
RETRY_DELAY_SECONDS = (
    5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR,
)  # fmt: skip
"""Seconds between two attempts: entry 0 follows the first failed attempt.

Ten attempts spread over three days, so that a receiver that fails on a Friday evening can be
repaired on Monday without losing events.
"""
MAX_ATTEMPTS = len(RETRY_DELAY_SECONDS) + 1
JITTER = 0.2
"""Share of a delay by which it is varied at random.

Deliveries that failed together are therefore not sent again at the same time.
"""
MIN_REST_SECONDS = 60.0
"""Shortest pause, in seconds, before the next attempt at an overloaded receiver."""


class Reaction(Enum):
    """Action that follows an attempt, depending on its outcome."""

    DELIVERED = auto()
    RETRY = auto()
    THROTTLE = auto()
    """Retry later, and pause the whole endpoint: the receiver is overloaded."""
    DISABLE = auto()
    """Disable the endpoint: the receiver is gone permanently."""


REACTIONS: Mapping[int, Reaction] = {
    410: Reaction.DISABLE,
    429: Reaction.THROTTLE,
    502: Reaction.THROTTLE,
    504: Reaction.THROTTLE,
}
"""Maps an HTTP status to the reaction to it.

Other statuses are not listed: any 2xx is DELIVERED; redirects, all other statuses, and a missing
response are RETRY.
"""


def classify(outcome: Outcome) -> Reaction:
    """Returns the reaction to the outcome of an attempt."""
    if outcome.delivered:
        return Reaction.DELIVERED
    return REACTIONS.get(outcome.status or 0, Reaction.RETRY)


def next_delay(tries: int, outcome: Outcome, random: Callable[[], float]) -> float | None:
    """Returns the seconds until the next attempt; None if there is no further attempt.

    `tries` is the number of attempts made so far, counted from 1; the delay starts at the end of
    the latest attempt. There is no further attempt after a delivery, for an endpoint that is gone,
    and after the last attempt: the webhook is then dead.

    The delay comes from RETRY_DELAY_SECONDS, with JITTER in both directions; for an overloaded
    receiver it is at least MIN_REST_SECONDS. A Retry-After header can at most double the delay, and
    never shortens it. With a Retry-After header or an overloaded receiver, jitter only lengthens
    the delay. `random` returns numbers from 0 (inclusive) to 1 (exclusive). Raises ValueError if
    `tries` is below 1.
    """
    if tries < 1:
        raise ValueError(f"tries is {tries}: give the number of attempts made so far, at least 1")
    reaction = classify(outcome)
    if reaction in (Reaction.DELIVERED, Reaction.DISABLE) or tries >= MAX_ATTEMPTS:
        return None
    base = RETRY_DELAY_SECONDS[tries - 1]
    if reaction is Reaction.THROTTLE:
        base = max(base, MIN_REST_SECONDS)
    requested = outcome.retry_after
    if requested is None and reaction is Reaction.RETRY:
        return base * (1 - JITTER + 2 * JITTER * random())
    return min(max(requested or 0.0, base) * (1 + JITTER * random()), 2 * base)

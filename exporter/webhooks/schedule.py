"""When a webhook is tried again, and what an answer means for its endpoint: tables, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto

from exporter.webhooks.sender import Outcome

MINUTE, HOUR = 60.0, 3600.0
DELAYS = (
    5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR,
)  # fmt: skip
"""Seconds after each failed try; ten tries over three days, so that a receiver that broke on a
Friday evening still hears of it."""
TRIES = len(DELAYS) + 1
JITTER = 0.2
"""Share of a delay by which it varies, so that what failed together is not tried together."""
SHORTEST_REST = 60.0
"""Seconds for a receiver that has too much to do."""


class Reaction(Enum):
    """What the outcome of a try means."""

    DELIVERED = auto()
    RETRY = auto()
    THROTTLE = auto()
    """Try again, and send this endpoint less: it has too much to do."""
    DISABLE = auto()
    """The receiver is gone for good: send this endpoint nothing more."""


REACTIONS: Mapping[int, Reaction] = {
    410: Reaction.DISABLE,
    429: Reaction.THROTTLE,
    502: Reaction.THROTTLE,
    504: Reaction.THROTTLE,
}
"""By status. Any 2xx is DELIVERED; all else, redirects and no answer included, is RETRY."""


def reaction(outcome: Outcome) -> Reaction:
    """What to do about this outcome."""
    if outcome.delivered:
        return Reaction.DELIVERED
    return REACTIONS.get(outcome.status or 0, Reaction.RETRY)


def next_delay(tries: int, outcome: Outcome, random: Callable[[], float]) -> float | None:
    """Seconds from the end of try number `tries`, counted from 1, to the next; None: no next.

    There is none after a delivery, from an endpoint that is gone, or after the last try: then the
    webhook is dead. The delay is that of the table, JITTER more or less. A Retry-After is obeyed
    as far as twice the table's delay and never shortens it; after it, and for a receiver with too
    much to do, jitter only lengthens. `random` gives numbers from 0 up to 1.
    """
    if tries < 1:
        raise ValueError(f"{tries} tries were made: a delay follows the first at the earliest")
    todo = reaction(outcome)
    if todo in (Reaction.DELIVERED, Reaction.DISABLE) or tries >= TRIES:
        return None
    base = DELAYS[tries - 1]
    if todo is Reaction.THROTTLE:
        base = max(base, SHORTEST_REST)
    asked = outcome.retry_after
    if asked is None and todo is Reaction.RETRY:
        return base * (1 - JITTER + 2 * JITTER * random())
    return min(max(asked or 0.0, base) * (1 + JITTER * random()), 2 * base)

"""Where doorbells go, and how our priorities read on the broker."""

from __future__ import annotations

QUEUE = "exporter"
WEBHOOKS = "webhooks"
"""The queue of the workers that send webhooks. They hear no other, and no other worker hears it: a
slow receiver must not hold an export up."""
MOST_URGENT = 9


def broker_priority(priority: int) -> int:
    """The broker's number for one of ours: with Redis, kombu serves 0 first and 9 last.

    >>> broker_priority(9), broker_priority(0)
    (0, 9)
    """
    return MOST_URGENT - min(max(priority, 0), MOST_URGENT)

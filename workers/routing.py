"""Names of the Celery queues, and the mapping of export priorities to broker priorities."""

from __future__ import annotations

QUEUE = "exporter"
"""Queue of the workers that run slices of exports."""
WEBHOOK_QUEUE = "webhooks"
"""Queue of the webhook workers, which consume only this queue.

Other workers do not consume it, so that a slow receiver does not delay exports.
"""
MAX_PRIORITY = 9
"""Highest priority of an export, and lowest priority of a message on the broker."""


def broker_priority(priority: int) -> int:
    """Converts the priority of an export to the priority of a message on the broker.

    The scales are opposite: 9 is the most urgent export, but kombu's Redis transport serves 0
    first.

    >>> broker_priority(9), broker_priority(0)
    (0, 9)
    """
    return MAX_PRIORITY - min(max(priority, 0), MAX_PRIORITY)

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
    """Returns the broker priority of an export priority: on Redis, kombu serves 0 first, 9 last.

    >>> broker_priority(9), broker_priority(0)
    (0, 9)
    """
    return MAX_PRIORITY - min(max(priority, 0), MAX_PRIORITY)

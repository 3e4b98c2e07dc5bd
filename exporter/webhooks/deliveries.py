"""Webhook deliveries: one message to one endpoint, with its state and its attempts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class DeliveryState(StrEnum):
    """State of a delivery."""

    PENDING = "pending"
    """Waits for its next attempt or, at an ordered endpoint, for earlier events of its export.

    Webhook workers make the attempts; without a running worker the delivery stays pending.
    """
    DELIVERING = "delivering"
    """An attempt is running. If its worker dies, the lease expires and the attempt is repeated."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    DEAD = "dead"
    """Given up; `gave_up` contains the reason. A redelivery or recovery makes it pending again."""


class Attempt(msgspec.Struct, frozen=True):
    """An attempt to deliver a webhook, with its result."""

    at: datetime
    """Start of the attempt."""
    duration: float
    """Seconds."""
    status: int | None = None
    """HTTP status of the response; None if there was no response."""
    error: str | None = None
    """Reason for the failure; None if the webhook was delivered."""
    excerpt: str = ""
    """Beginning of the response body, at most `attempts.MAX_EXCERPT_CHARS` characters."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery as it was stored when it was read; later changes are not included."""

    id: str
    """`{message_id}.{endpoint_id}`"""
    message_id: str
    """Value of the `webhook-id` header: the same at each attempt and for each endpoint."""
    endpoint_id: str
    user_id: str
    export_id: str | None
    """Export that the event is about; None for an event about an endpoint, and for a test."""
    type: str
    sequence: int
    """Number of the event among the events of its export or endpoint; 1 for a test."""
    body: bytes
    """JSON body as sent, but without `download_url`, which is added at each attempt."""
    state: DeliveryState
    tries: int
    """Attempts since the delivery was created, or since its last redelivery or recovery."""
    attempts: tuple[Attempt, ...]
    """The latest 20 attempts, oldest first."""
    created_at: datetime
    next_at: datetime | None
    """Time of the next attempt; None unless the delivery is pending."""
    finished_at: datetime | None = None
    """Time at which the delivery became delivered or dead."""
    gave_up: str | None = None
    """Reason for which the delivery is dead; None in other states."""


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of deliveries, newest first, with the cursor of the next page."""

    deliveries: tuple[Delivery, ...]
    next_cursor: str | None

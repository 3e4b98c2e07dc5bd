"""A delivery: one message on its way to one endpoint, with every try that was made."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class DeliveryState(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    """Waits for its next try, or in an ordered endpoint for those before it. A delivering worker
    moves it on; if none lives it stays, and is made when one comes back."""
    DELIVERING = "delivering"
    """A try is under way. If its worker dies, the lease runs out and the try is made again."""
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    DEAD = "dead"
    """Given up: after the last try, or because the endpoint is disabled or deleted. Whoever
    redelivers or recovers it makes it pending again."""


class Attempt(msgspec.Struct, frozen=True):
    """One try and what came of it."""

    at: datetime
    """When it began."""
    duration: float
    """Seconds."""
    status: int | None = None
    """None: no answer came."""
    error: str | None = None
    """Why it is no delivery; None: it is one."""
    excerpt: str = ""
    """How the answer's body began."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One delivery as the store knows it."""

    id: str
    """`{message_id}.{endpoint_id}`"""
    message_id: str
    """What `webhook-id` says: the same at each try, and for each endpoint that is told."""
    endpoint_id: str
    user_id: str
    export_id: str | None
    """None: it tells of an endpoint, or is a test."""
    type: str
    sequence: int
    """Place among the events of its export."""
    body: bytes
    """The JSON that is sent, apart from a download URL."""
    state: DeliveryState
    tries: int
    """Tries since it was created, or last asked for by hand."""
    attempts: tuple[Attempt, ...]
    """The latest tries, oldest first."""
    created_at: datetime
    next_at: datetime | None
    """When it is tried next; None unless pending."""
    finished_at: datetime | None = None
    """When it was delivered or given up."""
    gave_up: str | None = None
    """Why it is dead."""


class DeliveryPage(msgspec.Struct, frozen=True):
    """Some deliveries, newest first."""

    deliveries: tuple[Delivery, ...]
    next_cursor: str | None

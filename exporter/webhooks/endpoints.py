"""Webhook endpoints: a URL, the events it subscribes to, and the secrets that sign its webhooks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from exporter.errors import ExporterError


class EndpointDisabled(ExporterError):
    """The endpoint is disabled or deleted, so nothing is sent to it."""


class TooManyEndpoints(ExporterError):
    """The user has reached the limit of registered endpoints."""


class DisableReason(StrEnum):
    """Reason for which an endpoint is disabled."""

    OWNER = "owner"
    """The owner disabled the endpoint."""
    GONE = "gone"
    """The receiver answered 410 Gone."""
    FAILING = "failing"
    """No delivery succeeded for five days."""


class Secret(msgspec.Struct, frozen=True):
    """A signing secret of an endpoint. Must never be logged; its repr hides the value."""

    value: str
    until: datetime | None = None
    """Time at which a replaced secret stops signing; None for the current secret."""

    def __repr__(self) -> str:
        return f"Secret(value=(hidden), until={self.until!r})"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it was stored when it was read; later changes are not included."""

    id: str
    user_id: str
    url: str
    """Must not be logged: the path or query may contain a secret."""
    events: tuple[str, ...]
    """Event types that a registered endpoint receives for all exports of its user.

    Empty for a `webhook_url` endpoint: there, each export lists the events that are sent.
    """
    secrets: tuple[Secret, ...]
    """All secrets that sign now: the current secret, then those in their grace period."""
    registered: bool
    """True if the user registered the endpoint; it then receives events of all the user's exports.

    False for an endpoint that was created for the `webhook_url` of exports; it receives events of
    those exports only.
    """
    ordered: bool = False
    """True if the events of one export are delivered strictly in order.

    An event that cannot be delivered blocks the later events of its export until it is dead.
    """
    include_download_url: bool = False
    """True if `export.finished` includes a download URL, which is presigned at each attempt."""
    description: str = ""
    listener_ttl: int | None = None
    """Seconds without a take after which a listener is deleted; None: not a listener.

    A listener has no URL: nothing is sent to it, its owner takes the deliveries instead.
    """
    created_at: datetime
    failing_since: datetime | None = None
    """Start of the current run of consecutive failures; None after a success."""
    disabled_at: datetime | None = None
    disabled_reason: DisableReason | None = None

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None

    @property
    def is_listener(self) -> bool:
        return self.listener_ttl is not None

"""An endpoint: a URL that is told of exports, what it wants to hear, and what it verifies with."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from exporter.errors import ExporterError


class EndpointDisabled(ExporterError):
    """The endpoint is disabled, so nothing is sent to it: enable it first."""


class TooManyEndpoints(ExporterError):
    """The user has as many endpoints as one may have: delete one that is not needed."""


class DisableReason(StrEnum):
    """Why an endpoint is disabled."""

    OWNER = "owner"
    """Its owner wanted so."""
    GONE = "gone"
    """It answered 410: there is nobody any more."""
    FAILING = "failing"
    """No delivery succeeded for days."""


class Secret(msgspec.Struct, frozen=True):
    """What webhooks are signed with. Never to be logged."""

    value: str
    until: datetime | None = None
    """When it stops signing; None for the one that is in force."""

    def __repr__(self) -> str:
        return f"Secret(value=(hidden), until={self.until!r})"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as the store knows it."""

    id: str
    user_id: str
    url: str
    """May hold a secret in its path or query: not for logs."""
    events: tuple[str, ...]
    """What it wants to hear of all exports of its user. One that is not `own` hears what each
    export that names it says instead."""
    secrets: tuple[Secret, ...]
    """All that sign now: the one in force first, then those that it replaced a short while ago."""
    own: bool
    """Registered by its user, and hears of all of their exports. Otherwise it was made for the
    `webhook_url` of exports and hears of those alone."""
    ordered: bool = False
    """The events of one export come one after the other. One that cannot be delivered holds back
    those after it until it is given up."""
    include_download_url: bool = False
    """`export.finished` brings a download URL, signed when it is sent."""
    description: str = ""
    created_at: datetime
    failing_since: datetime | None = None
    """When the first of the deliveries failed that all failed since."""
    disabled_at: datetime | None = None
    disabled_reason: DisableReason | None = None

    @property
    def enabled(self) -> bool:
        return self.disabled_at is None

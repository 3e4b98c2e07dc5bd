"""The search for postings that expired since a given time."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from exporter.contracts.timestamps import Moment


class ExpiredSearch(BaseModel):
    """All postings that expired at `expired_since` or later, at most `limit`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    expired_since: Moment
    limit: int | None = Field(None, ge=1)

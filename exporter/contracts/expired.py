"""The search for postings that expired since a given time."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from exporter.contracts.timestamps import Moment


class ExpiredSearch(BaseModel):
    """The search for postings that expired at `expired_since` or later.

    With `limit`, at most that many postings are returned.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    expired_since: Moment
    limit: int | None = Field(None, ge=1)

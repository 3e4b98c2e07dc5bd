"""Moments and days as callers write them, and the one spelling that is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from exporter.contracts import filters


def parse(text: str) -> datetime:
    """The moment that a text means: a day (`2026-03-01`) is its first moment in UTC, and a moment
    of ISO 8601 without a zone is in UTC. Raises ValueError for anything else.
    """
    try:
        parsed = datetime.fromisoformat(text)
        aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:100]!r} is no day and no moment: write 2026-03-01 or 2026-03-01T09:30:00Z"
        ) from None


def canonical(text: str) -> str:
    """What `parse` takes in the one spelling that leaves: a day as it is, a moment with a Z.

    >>> canonical("2026-03-01"), canonical("2026-03-01T02:00:00+02:00")
    ('2026-03-01', '2026-03-01T00:00:00Z')
    """
    moment = parse(text)
    return text if filters.is_day(text) else f"{moment.replace(tzinfo=None).isoformat()}Z"


Moment = Annotated[str, Field(max_length=64), AfterValidator(canonical)]

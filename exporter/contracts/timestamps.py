"""Parses days and times of callers, and gives the one spelling that is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from exporter.contracts import filters


def parse(text: str) -> datetime:
    """Returns the time that a text means, in UTC.

    A day (`2026-03-01`) means its first moment in UTC; a time in ISO 8601 without a zone is in UTC.
    Raises ValueError for any other text.
    """
    try:
        parsed = datetime.fromisoformat(text)
        aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
        return aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:100]!r} is neither a day nor a time: write 2026-03-01 or 2026-03-01T09:30:00Z"
        ) from None


def canonical(text: str) -> str:
    """Returns the stored spelling of a day or time: a day unchanged, a time in UTC with a Z.

    >>> canonical("2026-03-01"), canonical("2026-03-01T02:00:00+02:00")
    ('2026-03-01', '2026-03-01T00:00:00Z')
    """
    moment = parse(text)
    return text if filters.is_day(text) else f"{moment.replace(tzinfo=None).isoformat()}Z"


Moment = Annotated[str, Field(max_length=64), AfterValidator(canonical)]

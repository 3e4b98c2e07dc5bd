"""Parses days and times of callers on all contracts, and gives the spelling that is stored."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from pydantic import AfterValidator, Field

from exporter.contracts import filters

Rfc3339 = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
"""A time in an answer or a webhook, as `sortable` writes it."""
_SPACED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")

_WHOLE_SECONDS = len("2026-03-01T00:00:00Z")


def parse(text: str) -> datetime:
    """Returns the time that a text means, in UTC.

    A day (`2026-03-01`) means its first moment in UTC; a time in ISO 8601 without a zone is in UTC.
    Raises ValueError for any other text.
    """
    try:
        return in_utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text[:100]!r} is not a date or time: write 2026-03-01 or 2026-03-01T12:00:00Z"
        ) from None


def in_utc(moment: datetime) -> datetime:
    """Returns the same moment in UTC; a time without a zone is in UTC already."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def canonical(text: str) -> str:
    """Returns the stored spelling of a day or time: a day unchanged, a time in UTC with a Z.

    >>> canonical("2026-03-01"), canonical("2026-03-01T02:00:00+02:00")
    ('2026-03-01', '2026-03-01T00:00:00Z')
    """
    moment = parse(text)
    return text if filters.is_day(text) else f"{moment.replace(tzinfo=None).isoformat()}Z"


def sortable(moment: datetime) -> str:
    """Returns a time with six decimals and a Z: such texts sort in the order of their times.

    >>> sortable(parse("2026-03-01T02:00:00+02:00"))
    '2026-03-01T00:00:00.000000Z'
    """
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # msgspec takes a tenth of the time of `isoformat`, and leaves out decimals that are all 0.
    text = msgspec.json.encode(moment)[1:-1].decode()
    return text if len(text) > _WHOLE_SECONDS else f"{text[:-1]}.000000Z"


def is_spaced(text: str) -> bool:
    """True for a time written exactly as YYYY-MM-DD hh:mm:ss, which Coresignal asks for."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return _SPACED.fullmatch(text) is not None


Moment = Annotated[str, Field(max_length=64), AfterValidator(canonical)]

"""What happened to an export, and who did it: its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from exporter.core import public_text
from exporter.core.exports import Export

MAX_ENTRIES = 50
"""Entries kept of an export: the first FIRST_ENTRIES and the latest."""
FIRST_ENTRIES = 10
_ROUTINE = frozenset({"slice", "waiting", "linked", "downloaded", "previewed"})
"""Entries that make room for others first, because an export may have any number of them."""
_OF_ERRORS = frozenset({"waiting", "failed", "canceled"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Activity(msgspec.Struct, frozen=True):
    """Something that happened to an export."""

    at: datetime
    what: str
    """queued, started, slice, takeover, waiting, published, failed, canceled, linked, downloaded,
    previewed.

    A slice is the next turn of a worker, a takeover that of another worker after one was lost.
    """
    by: str = ""
    """Id of the API key or of the worker that did it; empty if none did."""
    detail: str = ""
    """Reason of a wait or failure; `requested` if a running export was asked to stop."""
    until: datetime | None = None
    """Time at which a wait is to end; None for all others."""


def begin(export: Export) -> Activity:
    """Returns the first entry of each export, which its record need not store."""
    return Activity(export.created_at, "queued", export.spec.created_by or "")


def append(entries: Sequence[Activity], entry: Activity) -> tuple[Activity, ...]:
    """Returns the stored entries with one more, which replaces a latest one of the same kind.

    >>> first, second = (Activity(_EPOCH, "slice", "w1", text) for text in ("a", "b"))
    >>> [one.detail for one in append([first], second)]
    ['b']
    """
    kept = list(entries)
    if kept and (kept[-1].what, kept[-1].by) == (entry.what, entry.by):
        kept.pop()
    elif len(kept) >= MAX_ENTRIES - 1:
        after = range(FIRST_ENTRIES - 1, len(kept))
        del kept[next((at for at in after if kept[at].what in _ROUTINE), after[0])]
    return (*kept, entry)


def decode(lines: bytes) -> tuple[Activity, ...]:
    """Returns the entries of lines of JSON `[what, by, microseconds, detail, until]`.

    A damaged line is left out, so that the others can be read. Texts of errors have no addresses of
    the deployment.

    >>> decode(b'["slice","w1",1500000,""]' + bytes([10]) + b"?")[0].at.isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    found: list[Activity] = []
    for line in lines.splitlines():
        try:
            one = _decoder.decode(line)
            detail = one.detail
            if one.what in _OF_ERRORS:
                detail = public_text.without_addresses(detail)
            until = _moment(one.until) if one.until is not None else None
            found.append(Activity(_moment(one.at), one.what, one.by, detail, until))
        except (msgspec.DecodeError, OverflowError):
            continue
    return tuple(found)


class _Line(msgspec.Struct, array_like=True):
    what: str
    by: str
    at: int
    detail: str
    until: int | None = None


def _moment(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


_decoder = msgspec.json.Decoder(_Line)

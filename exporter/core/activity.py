"""What happened to an export, and who did it: its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from exporter.core.exports import Export

MAX_ENTRIES = 50
"""Entries kept of an export. In between, entries after the first FIRST_ENTRIES are dropped."""
FIRST_ENTRIES = 10
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
        del kept[FIRST_ENTRIES - 1]
    return (*kept, entry)


def decode(lines: bytes) -> tuple[Activity, ...]:
    """Returns the entries of lines of JSON `[what, by, microseconds, detail]`.

    A damaged line is left out, so that the others can be read.

    >>> decode(b'["slice","w1",1500000,""]' + bytes([10]) + b"?")[0].at.isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    found: list[Activity] = []
    for line in lines.splitlines():
        try:
            what, by, micros, detail = _decoder.decode(line)
            found.append(Activity(_EPOCH + timedelta(microseconds=micros), what, by, detail))
        except (msgspec.DecodeError, OverflowError):
            continue
    return tuple(found)


_decoder = msgspec.json.Decoder(tuple[str, str, int, str])

"""Times, amounts, queries and states as texts for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))


def ago(moment: str | None, now: datetime) -> str:
    """Returns the time since or until a moment, in its largest unit.

    >>> from datetime import UTC
    >>> ago("2026-03-02T09:15:04Z", datetime(2026, 3, 2, 9, 18, tzinfo=UTC))
    '2 min ago'
    """
    if not moment:
        return "never"
    seconds = (now - datetime.fromisoformat(moment)).total_seconds()
    if 0 <= seconds < 5:
        return "now"
    text = whole(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def duration(seconds: float | None) -> str:
    """Returns a measured duration in its largest unit.

    >>> duration(0.042), duration(7.25), duration(7300)
    ('42 ms', '7.2 s', '2 h')
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else whole(seconds)


def whole(seconds: float) -> str:
    """Returns a number of seconds in its largest unit, without a fraction.

    >>> whole(6.1), whole(119)
    ('6 s', '1 min')
    """
    for unit_seconds, unit in _UNITS:
        if seconds >= unit_seconds:
            return f"{int(seconds // unit_seconds)} {unit}"
    return f"{int(seconds)} s"


def size(count: float | None) -> str:
    """Returns a number of bytes in a readable unit.

    >>> size(36_356_469), size(512)
    ('36.4 MB', '512 B')
    """
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1000
    return f"{count:.1f} TB"


def number(value: float | None) -> str:
    """Returns a number with separators; a fraction is shown of small ones only.

    >>> number(20000), number(3.14), number(14302.6)
    ('20,000', '3.1', '14,303')
    """
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def plural(count: int, noun: str, many: str = "") -> str:
    """Returns a number with its noun, in the singular or the plural.

    >>> plural(1, "row"), plural(1200, "row"), plural(2, "try", "tries")
    ('1 row', '1,200 rows', '2 tries')
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def words(name: str) -> str:
    """Returns the name of a field as words.

    >>> words("include_no_salary")
    'Include no salary'
    """
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def pretty(value: Any) -> str:
    """Returns a value as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def summary(query: Mapping[str, Any] | None) -> str:
    """Returns a query as a text of one line.

    >>> summary({"job_titles": ["cook", "baker"], "salary": {"min": 50000}, "visa": True})
    'Job titles: cook, baker · Salary: from 50000 · Visa: yes'
    >>> summary({}), summary(None)
    ('All rows', 'A long query')
    """
    if query is None:
        return "A long query"
    return " · ".join(f"{words(name)}: {_value(one)}" for name, one in query.items()) or "All rows"


def _value(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case {"min": low, "max": high, **rest} if not rest:
            return f"{low} to {high}"
        case {"min": low, **rest} if not rest:
            return f"from {low}"
        case {"max": high, **rest} if not rest:
            return f"up to {high}"
        case Mapping():
            return ", ".join(_value(one) for one in value.values())
        case list():
            return ", ".join(map(_value, value))
        case _:
            return str(value)


def now_doing(export: Mapping[str, Any]) -> str:
    """Returns what an export does now, or how it ended, in one sentence."""
    match export["state"], export["phase"]:
        case "queued" | "processing", "ready":
            return f"Waits for a worker{_place(export)}."
        case "processing", "waiting":
            return f"Waits: {export['waiting_for'] or 'the source is not ready'}."
        case "processing", _ if export["cancel_requested"]:
            return "Stops before its next page."
        case "processing", "completing":
            return "All rows are read. The file is being published."
        case "processing", _:
            return f"Reads from {export['source']} and writes the file{_left(export)}."
        case "failed", _:
            return export["error"] or "Failed."
        case "canceled", _:
            return f"Canceled after {plural(export['record_count'], 'row')}."
    return f"Finished with {plural(export['record_count'], 'row')}{_pace(export)}."


def _place(export: Mapping[str, Any]) -> str:
    ahead = export["queue_position"]
    if ahead is None:
        return ""
    return f", behind {plural(ahead, 'export')}" if ahead else ", first in line"


def _left(export: Mapping[str, Any]) -> str:
    eta = export["eta_seconds"]
    return f", about {whole(eta)} left" if eta else ""


def _pace(export: Mapping[str, Any]) -> str:
    started, ended = export["started_at"], export["completed_at"]
    if not started or not ended:
        return ""
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    return f" in {duration(seconds)}"

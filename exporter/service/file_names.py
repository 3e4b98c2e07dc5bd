"""Names of exported files: the default of an export, and those that callers may give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from exporter.core import limits

MAX_BYTES = limits.FILE_NAME_BYTES.default
_REFUSED = frozenset('/\\:*?"<>|')
"""Characters that no file name has on some system."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_ID_CHARS = 8


def default(stem: str, created_at: datetime, export_id: str) -> str:
    """Returns the name, without its extension, of an export whose caller gave none.

    The first characters of the export's id make names of the same source and day different.

    >>> from datetime import UTC
    >>> default("board", datetime(2026, 3, 2, tzinfo=UTC), "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11")
    'board-jobs-2026-03-02-0b8c2c4e'
    """
    safe = _UNSAFE.sub("-", stem)
    return f"{safe}-jobs-{created_at.date().isoformat()}-{export_id[:_ID_CHARS]}"


def extended(name: str, extension: str) -> str:
    """Returns the name with the extension of its format, or with that part of it that is missing.

    >>> [extended(name, "csv.gz") for name in ("jobs", "jobs.csv", "jobs.CSV.gz")]
    ['jobs.csv.gz', 'jobs.csv.gz', 'jobs.CSV.gz']
    """
    parts = extension.split(".")
    for count in range(len(parts), 0, -1):
        if name.lower().endswith("." + ".".join(parts[:count])):
            return ".".join([name, *parts[count:]])
    return f"{name}.{extension}"


def renewed(name: str, before: str, export_id: str) -> str:
    """Returns the name for a retry of the export with the id `before`.

    A default name gets the id of the new export; a name that a caller gave stays the same.
    """
    return re.sub(
        rf"(-jobs-\d{{4}}-\d\d-\d\d-){re.escape(before[:_ID_CHARS])}\.",
        rf"\g<1>{export_id[:_ID_CHARS]}.",
        name,
    )


def problems(name: str | None) -> Iterator[str]:
    """Yields what is wrong with a name that a caller gave; nothing for a name that can be used.

    The name must be one that each system can store as it is, so that no download changes it.
    """
    if name is None:
        return
    if not name:
        yield "the name is empty: leave it out, and the file is named after its source and day"
        return
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        yield f"the name has {size} bytes in UTF-8, and at most {MAX_BYTES} are allowed"
    for place, char in enumerate(name, 1):
        if char in _REFUSED or not char.isprintable():
            what = char if char in _REFUSED else f"U+{ord(char):04X}"
            yield (
                f"character {place} is {what}: give a name without a folder, without any of"
                f" {' '.join(sorted(_REFUSED))} and without control characters"
            )
            break
    if name[0] in " .-~" or name[-1] in " .":
        yield "the name begins with a blank, '.', '-' or '~', or ends with a blank or '.'"

"""Cursors for keyset pagination of a list of exports or deliveries; opaque to callers."""

from __future__ import annotations

import base64
import re


def encode(place: int, tag: str = "") -> str:
    """Returns the cursor of the entries after `place`, in a list with the newest entry first.

    `place` is the position of the last entry on a page: a number that is higher for newer entries.
    `tag` names the filters and the order of the list, if it has others than usual.

    >>> decode(encode(1767225600000000))
    1767225600000000
    """
    text = f"before {place} {tag}".rstrip()
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode(cursor: str, tag: str = "") -> int:
    """Returns the `place` in a cursor.

    Raises ValueError for a cursor that was not made by `encode` with the same tag.
    """
    try:
        text = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except ValueError:
        text = b""
    match = re.fullmatch(rb"before (\d{1,18})(?: (\w+))?", text)
    if match is not None and (match[2] or b"").decode() != tag:
        raise ValueError(
            f"cursor {cursor!r} belongs to a list with other filters or another order: repeat "
            "those of the first page, or give no cursor"
        )
    if match is None:
        raise ValueError(
            f"cursor {cursor!r} was not made here: give the next_cursor of the previous page, "
            "or no cursor to start with the newest entry"
        )
    return int(match[1])

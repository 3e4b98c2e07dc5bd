"""Cursors for keyset pagination of a list of exports or deliveries; opaque to callers."""

from __future__ import annotations

import base64
import re


def encode(place: int) -> str:
    """Returns the cursor of the entries after `place`, in a list with the newest entry first.

    `place` is the position of the last entry on a page: a number that is higher for newer entries.

    >>> decode(encode(1767225600000000))
    1767225600000000
    """
    return base64.urlsafe_b64encode(b"before %d" % place).decode()


def decode(cursor: str) -> int:
    """Returns the `place` in a cursor. Raises ValueError for a cursor not made by `encode`."""
    try:
        text = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except ValueError:
        text = b""
    match = re.fullmatch(rb"before (\d{1,18})", text)
    if match is None:
        raise ValueError(
            f"cursor {cursor!r} was not made here: give the next_cursor of the previous page, "
            "or no cursor to start with the newest entry"
        )
    return int(match[1])

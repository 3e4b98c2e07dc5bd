"""Where a page of a user's list ended, as a text that only this module can read."""

from __future__ import annotations

import base64
import re


def encode(place: int) -> str:
    """An opaque cursor behind the export at that place in its user's list.

    >>> decode(encode(1767225600000000))
    1767225600000000
    """
    return base64.urlsafe_b64encode(b"before %d" % place).decode()


def decode(cursor: str) -> int:
    """The place in a cursor; raises ValueError for one that was not made here."""
    try:
        text = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
    except ValueError:
        text = b""
    match = re.fullmatch(rb"before (\d{1,18})", text)
    if match is None:
        raise ValueError(
            f"cursor {cursor!r} was not made here: give the next_cursor of the page before, "
            "or none to start at the newest"
        )
    return int(match[1])

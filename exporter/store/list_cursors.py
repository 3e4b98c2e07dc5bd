"""Opaque cursors for keyset pagination of a user's list."""

from __future__ import annotations

import base64
import re


def encode(place: int) -> str:
    """Returns an opaque cursor for the entries after `place` in a user's list, newest first.

    >>> decode(encode(1767225600000000))
    1767225600000000
    """
    return base64.urlsafe_b64encode(b"before %d" % place).decode()


def decode(cursor: str) -> int:
    """Returns the place in a cursor. Raises ValueError for a cursor that `encode` did not make."""
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

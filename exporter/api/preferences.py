"""Reads the Prefer header of RFC 7240, with which a client lets the creation of an export wait."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request

_ASYNC, _WAIT = "respond-async", "wait"
_MAX_DIGITS = 9

PARAMETER: Mapping[str, Any] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": (
        "`respond-async, wait=10` (RFC 7240): wait up to 10 seconds for the end of the export. If"
        " it ends in that time, the answer is 200 with the file, else 202 as without the header."
        " Preference-Applied names what was done."
    ),
}
"""OpenAPI parameter of the operations that may wait."""


def wait_seconds(request: Request, most: int) -> tuple[int, Mapping[str, str]]:
    """Returns the seconds, at most `most`, that the client prefers to wait, and headers.

    Preferences that are unknown or malformed are ignored, as RFC 7240 says: the header
    Preference-Applied does not name them.
    """
    given = _preferences(request.headers.getlist("prefer"))
    applied: list[str] = [_ASYNC] if _ASYNC in given else []
    text, seconds = given.get(_WAIT, ""), 0
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        seconds = min(int(text), most)
        applied.append(f"{_WAIT}={seconds}")
    return seconds, {"Preference-Applied": ", ".join(applied)} if applied else {}


def _preferences(headers: Iterable[str]) -> Mapping[str, str]:
    """Returns the values of preferences by name; the first one of a name counts.

    >>> _preferences(["respond-async, wait=10; x=1", 'WAIT="5"'])
    {'respond-async': '', 'wait': '10'}
    """
    found: dict[str, str] = {}
    for one in ",".join(headers).split(","):
        name, _, value = one.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found

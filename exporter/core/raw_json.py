"""Cuts JSON text into the texts of its values, which are never parsed, so no value can change.

Accepts what Python's own reader accepts, which is more than msgspec: NaN and infinities, raw
control characters in strings, lone surrogates, and nesting of any depth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeVar

STRING = r'"(?:[^"\\]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
"""Pattern of a JSON string; raw control characters are accepted."""
_MARK = re.compile(r"[ \t\n\r]*+([][{}:,])[ \t\n\r]*+")
_NESTING = re.compile(rf"{STRING}|[][{{}}]")

T = TypeVar("T")

# Numbers stay text, because Python refuses to read integers of more than 4,300 digits.
read_at = json.JSONDecoder(
    strict=False, parse_int=str, parse_float=str, parse_constant=str
).raw_decode
"""Returns the value that begins at a position, by default 0, and the position after it.

Raises ValueError if no value begins there, RecursionError for nesting of some thousand levels.
"""


def text_at(source: str, start: int) -> tuple[str, int]:
    """Returns the text of the value that begins at `start`, and the position after it.

    Raises ValueError if no value begins there.
    """
    try:
        end: int = read_at(source, start)[1]
    except RecursionError:
        end = _end_of_brackets(source, start)
    return source[start:end], end


def members(source: str, take: Callable[[str, int, str], tuple[T, int]]) -> dict[str, T]:
    """Returns what `take` makes of each value of a JSON object, by the name of its field.

    `take` gets the source, the position of a value and the name of its field; it returns its result
    and the position after the value. If a name comes twice, the last value counts. Raises
    ValueError if the source is not exactly one object.
    """
    found: dict[str, T] = {}
    mark, position = _past(source, 0, "{")
    if source.startswith("}", position):
        mark, position = _past(source, position, "}")
    while mark != "}":
        if not source.startswith('"', position):
            raise ValueError(f"expected a field name at character {position}")
        name, position = read_at(source, position)
        found[name], end = take(source, _past(source, position, ":")[1], name)
        mark, position = _past(source, end, ",}")
    if position != len(source):
        raise ValueError(f"expected nothing more at character {position}")
    return found


def elements(source: str, start: int = 0) -> tuple[list[str], int]:
    """Returns the text of each value of the list at `start`, and a position after the list.

    Whitespace after the list is skipped. Raises ValueError if no list begins at `start`.
    """
    found: list[str] = []
    mark, position = _past(source, start, "[")
    if source.startswith("]", position):
        mark, position = _past(source, position, "]")
    while mark != "]":
        text, end = text_at(source, position)
        found.append(text)
        mark, position = _past(source, end, ",]")
    return found, position


def _past(source: str, position: int, marks: str) -> tuple[str, int]:
    """Skips whitespace and one of the characters `marks`; returns it and the position after it.

    Whitespace after the character is skipped too. Raises ValueError if another character comes
    first.
    """
    found = _MARK.match(source, position)
    if found is None or found[1] not in marks:
        raise ValueError(f"expected {' or '.join(marks)} at character {position}")
    return found[1], found.end()


def _end_of_brackets(source: str, start: int) -> int:
    """Returns the position after a value that is nested too deeply to be read.

    Only its brackets are counted.
    """
    depth = 0
    for found in _NESTING.finditer(source, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    raise ValueError(f"no end of the value at character {start}")

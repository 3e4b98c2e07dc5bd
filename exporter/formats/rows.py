"""What the formats share: reading raw JSON that a strict parser may refuse.

The formats read rows with msgspec, which is strict and quick. A row that it refuses comes here:
NaN and infinities, lone surrogates, raw control characters, bytes that are not UTF-8, any depth
of nesting. Values are sliced, never parsed, so none can change on the way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import msgspec

from exporter.checkpoints import Tally
from exporter.errors import SourceUntrue
from exporter.formats.base import Row

MAX_UNMAPPED = 1000
"""Distinct names kept in `Tally.unmapped_fields`; a source whose field names are data (a map
keyed by id) must not grow the checkpoint without end."""
OTHER_FIELDS = "…"
"""The name under which fields beyond `MAX_UNMAPPED` are counted together."""

REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a row that it does not take."""

_STRING = r'"(?:[^"\\]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
_NONFINITE = r"NaN|-?Infinity"
_TOKEN = re.compile(
    r"[ \t\n\r]*+(?:"
    rf"(?P<string>{_STRING})"
    rf"|(?P<scalar>(?:-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
    rf"|true|false|null|{_NONFINITE})(?![\w.+-]))"
    r"|(?P<mark>[][{},:]))"
)
_BLANK = re.compile(r"[ \t\n\r]*+")
_REPAIR = re.compile(rf"{_STRING}|{_NONFINITE}|[ \t]*+[\r\n][ \t\r\n]*+")
_LINE_BREAKS = re.compile("[\x00-\x1f\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")

# Text is read leniently here: a raw tab inside a string is no reason to lose a posting.
_parse_string = json.JSONDecoder(strict=False).decode


def read(row: Row, index: int) -> tuple[str, dict[str, str]]:
    """A row's text, and its fields as the texts of their values.

    A byte that is not UTF-8 reads as a lone surrogate, so that `utf8` counts it if it is
    written. Raises SourceUntrue if the row, number `index` of its page, is not a JSON object.
    """
    raw = bytes(row)
    source = raw.decode(errors="surrogateescape")
    try:
        return source, members(source)
    except ValueError as error:
        shown = raw[:80].decode(errors="replace") + ("…" if len(raw) > 80 else "")
        raise SourceUntrue(
            f"row {index} of the page (counted from 0) is not a JSON object ({error}): {shown!r}; "
            "the source must give one object for each posting"
        ) from error


def members(source: str) -> dict[str, str]:
    """The fields of a JSON object as the text of their values, the last of equal names winning.

    Reads JSON as Python's own reader does (NaN, infinities and raw control characters in
    strings included), to any depth. Raises ValueError if the text is anything but one object.
    """
    found: dict[str, str] = {}
    closers: list[str] = []
    name, start = "", 0
    # What may come next: a value, a key, ":", or "," and the closing mark ("end").
    # Right after an opening mark the closing one is also allowed (`opened`).
    expected, opened = "value", False
    position = 0
    while True:
        token = _TOKEN.match(source, position)
        if token is None:
            raise ValueError(f"no JSON at character {position}")
        position = token.end()
        kind = token.lastgroup
        lexeme = token[kind] if kind else ""
        if kind == "mark" and closers and lexeme == closers[-1] and (expected == "end" or opened):
            closers.pop()
            expected, opened = "end", False
        elif expected == "value" and lexeme in ("{", "["):
            if not closers and lexeme == "[":
                raise ValueError("an array")
            if len(closers) == 1:
                start = token.start(kind or 0)
            closers.append("}" if lexeme == "{" else "]")
            expected, opened = ("key" if lexeme == "{" else "value"), True
            continue
        elif expected == "value" and kind != "mark" and closers:
            if len(closers) == 1:
                start = token.start(kind or 0)
            expected, opened = "end", False
        elif expected == "key" and kind == "string":
            if len(closers) == 1:
                name = _SURROGATES.sub("\ufffd", string(lexeme))
            expected, opened = "colon", False
            continue
        elif expected == "colon" and lexeme == ":":
            expected = "value"
            continue
        elif expected == "end" and lexeme == ",":
            expected = "key" if closers[-1] == "}" else "value"
            continue
        else:
            raise ValueError(f"unexpected {lexeme[:20]!r} at character {position - len(lexeme)}")
        if len(closers) == 1:
            found[name] = source[start:position]
        elif not closers:
            break
    if _BLANK.fullmatch(source, position) is None:
        raise ValueError(f"more text after the object, at character {position}")
    return found


def string(token: str) -> str:
    """The value of a JSON string; a lone surrogate stays one."""
    value: str = _parse_string(token)
    return value


def utf8(value: str, tally: Tally) -> bytes:
    """The text in UTF-8; lone surrogates become U+FFFD and are counted."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        whole, replaced = _SURROGATES.subn("\ufffd", value)
        tally.replaced_characters += replaced
        return whole.encode()


def compact(source: str) -> str:
    """The same JSON text without the blanks around line breaks outside of strings."""
    if "\n" not in source and "\r" not in source:
        return source
    return _REPAIR.sub(lambda found: "" if found[0][0] in " \t\r\n" else found[0], source)


def one_line(source: str, tally: Tally) -> str:
    """The same JSON on one line, by any reader's idea of a line.

    Only what would break the line changes: blanks around a line break go, control characters
    and U+0085, U+2028, U+2029 inside strings are escaped. NaN and infinities, which are not
    JSON, become null and are counted.
    """

    def repair(found: re.Match[str]) -> str:
        piece = found[0]
        if piece[0] == '"':
            return _LINE_BREAKS.sub(lambda char: f"\\u{ord(char[0]):04x}", piece)
        if piece[-1] in "Ny":
            tally.nulled_numbers += 1
            return "null"
        return ""

    return _REPAIR.sub(repair, source)


def count_unmapped(extras: Mapping[str, int], tally: Tally) -> None:
    """Add a page's fields beside the columns, by name, to the tally."""
    counts = tally.unmapped_fields
    for name, rows in extras.items():
        key = name if name in counts or len(counts) < MAX_UNMAPPED else OTHER_FIELDS
        counts[key] = counts.get(key, 0) + rows

"""Lenient reading of JSON rows that msgspec refuses; shared by the formats.

The formats read rows with msgspec, which is strict and fast. This module reads the rows that
msgspec refuses: rows with NaN and infinities, lone surrogates, raw control characters, bytes that
are not UTF-8, or very deep nesting. Values are sliced out of the text and never parsed, so no
value can change.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import msgspec

from exporter.core import raw_json
from exporter.core.checkpoints import Row, RowCounts
from exporter.errors import SourceUntrue

MAX_UNMAPPED = 1000
"""Maximum number of names in `RowCounts.unmapped_fields`.

Without the limit, a source whose field names are data (a map with ids as keys) would grow the
checkpoint without bound.
"""
OTHER_FIELDS = "…"
"""Name under which all fields beyond `MAX_UNMAPPED` are counted together."""

REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Types of the exceptions that msgspec raises for a row that it does not accept."""

_BROKEN = re.compile(rf"{raw_json.STRING}|[ \t]*+[\r\n][ \t\r\n]*+")
_REPAIR = re.compile(rf"{raw_json.STRING}|NaN|-?Infinity|[ \t\r\n]++")
_LINE_BREAKS = re.compile("[\x00-\x1f\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def read(row: Row, index: int) -> tuple[str, dict[str, str]]:
    """Returns the text of a row, and the JSON text of each value by the name of its field.

    A byte that is not UTF-8 becomes a lone surrogate in the text; `utf8` replaces and counts it
    when it is written. Raises SourceUntrue if the row is not a JSON object; the error text contains
    `index`, the number of the row on its page.
    """
    raw = bytes(row)
    source = raw.decode(errors="surrogateescape")
    try:
        found = raw_json.members(source, _field)
    except ValueError as error:
        shown = raw[:80].decode(errors="replace") + ("…" if len(raw) > 80 else "")
        raise SourceUntrue(
            f"row {index} of the page (counted from 0) is not a JSON object ({error}): {shown!r}; "
            "the source must give one object for each posting"
        ) from error
    return source, {_SURROGATES.sub("\ufffd", name): text for name, text in found.items()}


def _field(source: str, start: int, _name: str) -> tuple[str, int]:
    return raw_json.text_at(source, start)


def string(token: str) -> str:
    """Returns the value of a string given as JSON text; a lone surrogate is kept."""
    value: str = raw_json.read_at(token)[0]
    return value


def clean(value: str, row_counts: RowCounts) -> str:
    """Returns the text with lone surrogates replaced by U+FFFD; replacements are counted."""
    try:
        value.encode()
    except UnicodeEncodeError:
        value, replaced = _SURROGATES.subn("\ufffd", value)
        row_counts.replaced_characters += replaced
    return value


def utf8(value: str, row_counts: RowCounts) -> bytes:
    """Returns the text in UTF-8; lone surrogates are replaced by U+FFFD and counted."""
    return clean(value, row_counts).encode()


def compact(source: str) -> str:
    """Returns the JSON text without line breaks between its values.

    Whitespace around these line breaks is removed too; strings are not changed.
    """
    if "\n" not in source and "\r" not in source:
        return source
    return _BROKEN.sub(lambda found: "" if found[0][0] in " \t\r\n" else found[0], source)


def one_line(source: str, row_counts: RowCounts) -> str:
    """Returns the JSON text in a form that every reader takes for one line of valid JSON.

    A text with a line break between its values loses all whitespace outside of strings, as by
    `msgspec.json.format`. In strings, control characters, U+0085, U+2028 and U+2029 are escaped.
    NaN and infinities, which are not JSON, become null and are counted. Nothing else is changed.
    """
    if not ("NaN" in source or "Infinity" in source or _LINE_BREAKS.search(source)):
        return source
    on_lines = any(piece[0] in " \t\r\n" for piece in _BROKEN.findall(source))

    def repair(found: re.Match[str]) -> str:
        piece = found[0]
        if piece[0] == '"':
            return _LINE_BREAKS.sub(lambda char: f"\\u{ord(char[0]):04x}", piece)
        if piece[-1] in "Ny":
            row_counts.nulled_numbers += 1
            return "null"
        return "" if on_lines else piece

    return _REPAIR.sub(repair, source)


def note_present(names: Container[str], row_counts: RowCounts) -> None:
    """Removes these fields of a row from the columns that no row has had so far."""
    if row_counts.absent_columns:
        row_counts.absent_columns = [one for one in row_counts.absent_columns if one not in names]


def count_unmapped(extras: Mapping[str, int], row_counts: RowCounts) -> None:
    """Adds the numbers of rows with unmapped fields to the counts, by field name.

    An unmapped field is not among the columns. `extras` has the number of rows of one page with
    each such field. Its order does not matter: beyond `MAX_UNMAPPED`, the first names of the page
    in alphabetical order are counted.
    """
    counts = row_counts.unmapped_fields
    is_full = len(counts) + len(extras) > MAX_UNMAPPED
    for name, rows in sorted(extras.items()) if is_full else extras.items():
        key = name if name in counts or len(counts) < MAX_UNMAPPED else OTHER_FIELDS
        counts[key] = counts.get(key, 0) + rows

"""CSV: one header, one posting a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from exporter.checkpoints import Tally
from exporter.errors import ConfigurationError
from exporter.formats import csv_plan
from exporter.formats import rows as rawjson
from exporter.formats.base import Row

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# The full-width marks are formulas to East Asian editions; blanks before a mark are dropped by
# programs that trim what they import.
_FORMULA = re.compile(r"[\t\r]|[ \t\n\r\v\f]*[=+\-@＝＋－＠]")
_texts = msgspec.json.Decoder(list[str]).decode


class Csv:
    """The columns of each row as RFC 4180 lines ended by CRLF, in UTF-8 without a byte order mark.

    Cells: null or absent is nothing, an empty string is `""`; strings are their text; numbers
    have the source's digits, NaN and infinities its spelling; lists and objects are the source's
    JSON text, blanks around line breaks dropped. Only cells that need quotes have them. In a file
    of one column a null is `""` too, because readers skip a line with nothing on it. Fields
    beside the columns are counted by name; of two fields with one name the last counts.

    With joined, the cell of a list is the cells of its values with "; " between them, before any
    quoting; a null in it is nothing, and an empty list is an empty string. A value that itself
    holds "; " cannot be told apart from two.

    With guard, a string that a spreadsheet would run as a formula gets a leading apostrophe:
    one that begins with TAB or CR, or, after any blanks, with = + - @ or their full-width
    forms. Plain numbers ("-5", "+1.5e3") keep their sign, and JSON numbers are never touched.

    Raises ConfigurationError without columns.
    """

    content_type = "text/csv; charset=utf-8"
    extension = "csv"

    def __init__(
        self, columns: Sequence[str], *, guard: bool = False, joined: bool = False
    ) -> None:
        if not columns:
            raise ConfigurationError(
                "a CSV file needs columns: name them in the request or in the source's settings"
            )
        self._columns = tuple(columns)
        self._guard = guard
        self._joined = joined
        self._nothing = b'""' if len(columns) == 1 else b""
        # What rows looked like so far: it decides how quickly rows are read, never the bytes.
        self._learned: csv_plan.Learned = {}
        self._plan = csv_plan.make(self._columns, (), guard)

    def open(self) -> bytes:
        scratch = Tally()
        names = [self._text(rawjson.utf8(name, scratch), scratch) for name in self._columns]
        return b",".join(names) + b"\r\n"

    def close(self, written: int = 0) -> bytes:  # noqa: ARG002
        return b""

    def encode(self, rows: Sequence[Row], tally: Tally, written: int = 0) -> bytes:  # noqa: ARG002
        lines: list[bytes] = []
        extras: Counter[str] = Counter()
        text, cell, nothing = self._text, self._cell, self._nothing
        for index, row in enumerate(rows):
            guarded = tally.guarded_cells
            try:
                fields = self._plan.decode(row)
                line = self._plan.line(fields, text, cell, nothing, extras, tally)
            except rawjson.REFUSALS:
                tally.guarded_cells = guarded
                line = self._slow(row, index, extras, tally)
            lines.append(line)
        lines.append(b"")
        rawjson.count_unmapped(extras, tally)
        return b"\r\n".join(lines)

    def _slow(self, row: Row, index: int, extras: Counter[str], tally: Tally) -> bytes:
        """The line of a row that the plan does not fit: a new kind of field, or odd JSON."""
        _, fields = rawjson.read(row, index)
        extras.update(fields.keys() - set(self._columns))
        if csv_plan.learn(self._learned, fields):
            self._plan = csv_plan.make(self._columns, tuple(self._learned.items()), self._guard)
        return b",".join([self._cell(fields.get(name, "null"), tally) for name in self._columns])

    def _cell(self, source: str, tally: Tally) -> bytes:
        """The cell of any JSON value, given as its text."""
        if source == "null":
            return self._nothing
        if source[0] == '"':
            return self._text(rawjson.utf8(rawjson.string(source), tally), tally)
        if self._joined and source[0] == "[":
            return self._text(rawjson.utf8(_join(source), tally), tally)
        return _quoted(rawjson.utf8(rawjson.compact(source), tally))

    def _text(self, value: bytes, tally: Tally) -> bytes:
        """The cell of a string, given as its UTF-8."""
        if not value:
            return b'""'
        if self._guard and value[0] in csv_plan.SUSPECT:
            shown = value.decode()
            if _FORMULA.match(shown) and not _NUMBER.fullmatch(shown):
                tally.guarded_cells += 1
                value = b"'" + value
        return _quoted(value)


def _join(source: str) -> str:
    """A list's values as one text."""
    try:
        return "; ".join(_texts(source))
    except (ValueError, RecursionError):
        return "; ".join(map(_shown, rawjson.elements(source)))


def _shown(source: str) -> str:
    if source == "null":
        return ""
    return rawjson.string(source) if source[0] == '"' else rawjson.compact(source)


def _quoted(value: bytes) -> bytes:
    # Integers, because `b"," in value` first raises and clears a TypeError: 0.7 us a test.
    if 0x2C in value or 0x22 in value or 0x0A in value or 0x0D in value:
        return b'"%b"' % value.replace(b'"', b'""')
    return value

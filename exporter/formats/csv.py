"""CSV: one header, one posting a line."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from exporter.core.checkpoints import Row, RowCounts
from exporter.errors import ConfigurationError
from exporter.formats import csv_plan
from exporter.formats import rows as rawjson

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# The full-width marks are formulas to East Asian editions; blanks before a mark are dropped by
# programs that trim what they import.
_FORMULA = re.compile(r"[\t\r]|[ \t\n\r\v\f]*[=+\-@＝＋－＠]")
_texts = msgspec.json.Decoder(list[str]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
# A field with no fewer surprises than a few, and more than one in so many rows, is tested alone:
# a row that has to be written again costs as much as some thirty such tests.
_FEW, _RARE = 3, 32
_AHEAD = 32
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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
        self._nothing = '""' if len(columns) == 1 else ""
        # What rows looked like so far: it decides how quickly rows are read, never the bytes.
        self._learned: csv_plan.Learned = {}
        self._plan = self._planned()
        self._rows = 0
        self._surprises: Counter[str] = Counter()
        self._promoted: csv_plan.Learned = {}

    def open(self) -> bytes:
        scratch = RowCounts()
        names = [self._text(name, scratch) for name in self._columns]
        return ",".join(names).encode() + b"\r\n"

    def close(self, written: int = 0) -> bytes:  # noqa: ARG002
        return b""

    def encode(self, rows: Sequence[Row], row_counts: RowCounts, written: int = 0) -> bytes:  # noqa: ARG002
        lines: list[bytes] = []
        extras: Counter[str] = Counter()
        self._rows += len(rows)
        rest = iter(rows)
        while len(lines) < len(rows):
            try:
                self._plan.lines(
                    rest, lines, self._careful, self._text, self._cell, extras, row_counts
                )
            except rawjson.REFUSALS:
                # The row that was refused is the last one taken.
                lines.append(self._slow(rows, len(lines), extras, row_counts))
        if self._promoted:
            # Not sooner, because a plan costs as much as many rows.
            for name, kind in self._promoted.items():
                if self._learned[name] == "text":
                    self._learned[name] = kind
            self._promoted.clear()
            self._plan = self._planned()
        lines.append(b"")
        rawjson.count_unmapped(extras, row_counts)
        return b"\r\n".join(lines)

    def _slow(
        self, rows: Sequence[Row], index: int, extras: Counter[str], row_counts: RowCounts
    ) -> bytes:
        """The line of a row that the plan does not fit: a new kind of field, or odd JSON."""
        _, fields = rawjson.read(rows[index], index)
        extras.update(fields.keys() - set(self._columns))
        if csv_plan.learn(self._learned, fields, joined=self._joined):
            # A look ahead, because a plan costs as much as many rows.
            for row in rows[index + 1 : index + 1 + _AHEAD]:
                with contextlib.suppress(*rawjson.REFUSALS):
                    seen = {name: str(value, "utf-8") for name, value in _fields(row).items()}
                    csv_plan.learn(self._learned, seen, joined=self._joined)
            self._plan = self._planned()
        cells = [self._cell(fields.get(name, "null"), row_counts) for name in self._columns]
        return ",".join(cells).encode()

    def _careful(self, row: Any, row_counts: RowCounts) -> bytes:
        """The line of a row whose plain fields are not all plain."""
        write = csv_plan.alone(
            self._columns, tuple(self._learned.items()), guard=self._guard, joined=self._joined
        )
        line = write(row, self._text, self._cell, row_counts)
        for field, name in self._plan.plain.items():
            value = getattr(row, field)
            if value is not None and csv_plan.is_wild(value, guard=self._guard):
                self._surprises[name] += 1
                count = self._surprises[name]
                if csv_plan.is_long(value):
                    self._promoted[name] = "long"
                elif count >= _FEW and count * _RARE > self._rows:
                    self._promoted.setdefault(name, "wild")
        return line

    def _planned(self) -> csv_plan.Plan:
        return csv_plan.make(
            self._columns, tuple(self._learned.items()), guard=self._guard, joined=self._joined
        )

    def _cell(self, source: str, row_counts: RowCounts) -> str:
        """The cell of any JSON value, given as its text."""
        if source == "null":
            return self._nothing
        if source[0] == '"':
            return self._text(rawjson.string(source), row_counts)
        if self._joined and source[0] == "[":
            return self._text(_join(source), row_counts)
        return _quoted(rawjson.clean(rawjson.compact(source), row_counts))

    def _text(self, value: str, row_counts: RowCounts) -> str:
        """The cell of a string."""
        if not value:
            return '""'
        if (
            self._guard
            and value[0] in csv_plan.SUSPECT
            and _FORMULA.match(value)
            and not _NUMBER.fullmatch(value)
        ):
            row_counts.guarded_cells += 1
            value = f"'{value}"
        return _quoted(rawjson.clean(value, row_counts))


def _join(source: str) -> str:
    """A list's values as one text."""
    try:
        if source.startswith('["'):
            return "; ".join(_texts(source))
        return "; ".join([_shown(str(value, "utf-8")) for value in _values(source)])
    except (ValueError, RecursionError):
        return "; ".join(map(_shown, rawjson.elements(source)))


def _shown(source: str) -> str:
    if source == "null":
        return ""
    return rawjson.string(source) if source[0] == '"' else rawjson.compact(source)


def _quoted(value: str) -> str:
    if '"' in value:
        value = value.replace('"', '""')
    elif not ("," in value or "\n" in value or "\r" in value):
        return value
    return f'"{value}"'

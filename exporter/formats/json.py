"""The format `json` (JSON Lines): one posting per line."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Dialect
from exporter.formats import rows as rawjson
from exporter.formats.base import PLAIN, Format, State
from exporter.native import pages, writers


class _Object(msgspec.Struct):
    """A struct for any JSON object: decoding checks the whole text and keeps no value."""


_OBJECT = ord("{")
_check = msgspec.json.Decoder(_Object).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_SEPARATORS = "\u2028\u2029\x85"


class JsonLines(Format):
    """Writes each row on one line that ends with LF, in UTF-8, with the source's values unchanged.

    Without columns a row is copied byte for byte, unless it would not stay on one line: a row on
    several lines loses its whitespace outside of strings, and U+0085, U+2028 and U+2029 are
    escaped, because the official asynchronous client would split the line there.

    With columns, each line is an object of only these fields, in that order; an absent field is
    left out, a null is written as null, and fields that are not among the columns are counted by
    name. NaN and infinities are written as null and counted.
    """

    extension = "json"
    media_type = "application/x-ndjson"
    summary = "JSON Lines"
    joinable = True

    def __init__(self, columns: Sequence[str] = (), dialect: Dialect = PLAIN) -> None:  # noqa: ARG002
        self._columns = frozenset(columns)
        self._keys = [(name, f"{json.dumps(name)}:".encode()) for name in dict.fromkeys(columns)]
        self._writer = writers.Writer(columns, heads=[head for _, head in self._keys])

    def encode(
        self,
        rows: Sequence[Row],
        row_counts: RowCounts,
        state: State,  # noqa: ARG002
        out: Buffer,
    ) -> None:
        self.append(rows, row_counts, out, b"\n")

    @staticmethod
    def count(file: Path) -> int:
        with file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())

    def append(self, rows: Sequence[Row], row_counts: RowCounts, out: Buffer, after: bytes) -> None:
        """Appends the line of each row, followed by `after`; otherwise like `encode`."""
        if not isinstance(rows, pages.Rows):
            out += after.join([*self.lines(rows, row_counts), b""])
            return
        odd_extras: Counter[str] = Counter()

        def odd(index: int) -> None:
            nonlocal out
            out += self._slow(rows[index], index, odd_extras, row_counts) + after

        fields = self._writer.write_json(rows, out, row_counts, odd, after)
        rawjson.note_present(fields.present(), row_counts)
        odd_extras.update(fields.extras())
        rawjson.count_unmapped(odd_extras, row_counts)

    def lines(self, rows: Sequence[Row], row_counts: RowCounts) -> list[bytes]:
        """Returns the line of each row, without the line feed; otherwise like `encode`."""
        lines: list[bytes] = []
        shapes: dict[tuple[str, ...], _Shape] = {}
        extras: Counter[str] = Counter()
        for index, row in enumerate(rows):
            try:
                if self._keys:
                    fields = _fields(row)
                    names = tuple(fields)
                    shape = shapes.get(names)
                    if shape is None:
                        shape = shapes[names] = _Shape(self._keys, fields)
                    line = shape.template % shape.values(fields)
                    shape.rows += 1
                else:
                    line = bytes(row)
                    if type(row) is not msgspec.Raw or line[0] != _OBJECT:
                        _check(row)
            except rawjson.REFUSALS:
                line = self._slow(row, index, extras, row_counts)
            else:
                if not line.isascii() or 0x0A in line or 0x0D in line:
                    line = _normalized(line, row_counts)
            lines.append(line)
        for names, shape in shapes.items():
            rawjson.note_present(names, row_counts)
            for name in set(names) - self._columns:
                extras[name] += shape.rows
        rawjson.count_unmapped(extras, row_counts)
        return lines

    def _slow(self, row: Row, index: int, extras: Counter[str], row_counts: RowCounts) -> bytes:
        source, fields = rawjson.read(row, index)
        if self._keys:
            rawjson.note_present(fields, row_counts)
            extras.update(fields.keys() - self._columns)
            picked = [key.decode() + fields[name] for name, key in self._keys if name in fields]
            source = f"{{{','.join(picked)}}}"
        return rawjson.utf8(rawjson.one_line(source, row_counts), row_counts)


class _Shape:
    """The columns of rows that have the same fields in the same order, and where they are found."""

    def __init__(self, keys: Sequence[tuple[str, bytes]], fields: Mapping[str, object]) -> None:
        found = [(name, key.replace(b"%", b"%%")) for name, key in keys if name in fields]
        self.template = b"{%b}" % b",".join([key + b"%b" for _, key in found])
        self.values: Callable[[Mapping[str, msgspec.Raw]], Any] = (
            operator.itemgetter(*[name for name, _ in found]) if found else _nothing
        )
        self.rows = 0
        """Number of rows of the page that have these fields in this order."""


def _nothing(fields: Mapping[str, msgspec.Raw]) -> tuple[()]:  # noqa: ARG001
    return ()


def _normalized(line: bytes, row_counts: RowCounts) -> bytes:
    """Returns a valid JSON row as one line of UTF-8; a row that is already so is not changed."""
    try:
        if 0x0A in line or 0x0D in line:
            line = msgspec.json.format(line, indent=-1)
        # Searched in text, because Python finds one character much faster than three bytes, and
        # most lines have none of them.
        text = line.decode()
        for separator in _SEPARATORS:
            if separator in text:
                # The line is valid JSON: a separator is inside a string, never after a backslash.
                line = line.replace(separator.encode(), b"\\u%04x" % ord(separator))
    except (UnicodeDecodeError, RecursionError):
        source = line.decode(errors="surrogateescape")
        line = rawjson.utf8(rawjson.one_line(source, row_counts), row_counts)
    return line

"""JSON Lines: one posting a line."""

from __future__ import annotations

import json
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from exporter.core.checkpoints import Row, RowCounts
from exporter.formats import rows as rawjson


class _Object(msgspec.Struct):
    """Any JSON object: decoding into it checks the whole text and keeps nothing."""


_OBJECT = ord("{")
_check = msgspec.json.Decoder(_Object).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_SEPARATORS = "\u2028\u2029\x85"


class JsonLines:
    """Each row on one line ended by LF, in UTF-8, with every value as the source wrote it.

    Without columns a row is passed on byte for byte, unless it would not stay on one line: a
    row printed over several loses its blanks outside of strings, and U+0085, U+2028 and U+2029,
    at which the official asynchronous client would cut the line, are escaped. With columns, each
    line is an object of just those fields, in that order; a field that the row lacks is left
    out, one that is null is written as null, and fields left out are counted by name. NaN and
    infinities are written as null and counted.
    """

    content_type = "application/x-ndjson"
    extension = "json"

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._columns = frozenset(columns)
        self._keys = [(name, f"{json.dumps(name)}:".encode()) for name in dict.fromkeys(columns)]

    def open(self) -> bytes:
        return b""

    def close(self, written: int = 0) -> bytes:  # noqa: ARG002
        return b""

    def encode(self, rows: Sequence[Row], row_counts: RowCounts, written: int = 0) -> bytes:  # noqa: ARG002
        return b"\n".join([*self.lines(rows, row_counts), b""])

    def lines(self, rows: Sequence[Row], row_counts: RowCounts) -> list[bytes]:
        """Each row as its line, without the line feed; otherwise as `encode`."""
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
                    line = _mended(line, row_counts)
            lines.append(line)
        for names, shape in shapes.items():
            for name in set(names) - self._columns:
                extras[name] += shape.rows
        rawjson.count_unmapped(extras, row_counts)
        return lines

    def _slow(self, row: Row, index: int, extras: Counter[str], row_counts: RowCounts) -> bytes:
        source, fields = rawjson.read(row, index)
        if self._keys:
            extras.update(fields.keys() - self._columns)
            picked = [key.decode() + fields[name] for name, key in self._keys if name in fields]
            source = f"{{{','.join(picked)}}}"
        return rawjson.utf8(rawjson.one_line(source, row_counts), row_counts)


class _Shape:
    """How to pick the columns out of rows that have the same fields in the same order."""

    def __init__(self, keys: Sequence[tuple[str, bytes]], fields: Mapping[str, object]) -> None:
        found = [(name, key.replace(b"%", b"%%")) for name, key in keys if name in fields]
        self.template = b"{%b}" % b",".join([key + b"%b" for _, key in found])
        self.values: Callable[[Mapping[str, msgspec.Raw]], Any] = (
            operator.itemgetter(*[name for name, _ in found]) if found else _nothing
        )
        self.rows = 0
        """How many such rows the page has."""


def _nothing(fields: Mapping[str, msgspec.Raw]) -> tuple[()]:  # noqa: ARG001
    return ()


def _mended(line: bytes, row_counts: RowCounts) -> bytes:
    """A checked line as it is, if it is UTF-8 and one line to every reader; else made so."""
    try:
        if 0x0A in line or 0x0D in line:
            line = msgspec.json.format(line, indent=-1)
        # Sought in text, because Python finds a character at the speed of memory, but not three
        # bytes, and most lines have none.
        text = line.decode()
        for separator in _SEPARATORS:
            if separator in text:
                # The line was checked: only strings hold it, and never behind a backslash.
                line = line.replace(separator.encode(), b"\\u%04x" % ord(separator))
    except (UnicodeDecodeError, RecursionError):
        source = line.decode(errors="surrogateescape")
        line = rawjson.utf8(rawjson.one_line(source, row_counts), row_counts)
    return line

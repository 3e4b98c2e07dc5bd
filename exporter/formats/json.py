"""JSON Lines: one posting a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import msgspec

from exporter.checkpoints import Tally
from exporter.formats import rows as rawjson
from exporter.formats.base import Row


class _Object(msgspec.Struct):
    """Any JSON object: decoding into it checks the whole text and keeps nothing."""


_check = msgspec.json.Decoder(_Object).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


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

    def encode(self, rows: Sequence[Row], tally: Tally, written: int = 0) -> bytes:  # noqa: ARG002
        lines: list[Row] = []
        extras: Counter[str] = Counter()
        for index, row in enumerate(rows):
            try:
                if self._keys:
                    fields = _fields(row)
                    line: Row = self._pick(fields)
                    extras.update(fields.keys() - self._columns)
                else:
                    _check(row)
                    line = row
            except rawjson.REFUSALS:
                line = self._slow(row, index, extras, tally)
            lines.append(line)
        lines.append(b"")
        page = b"\n".join(lines)
        if page.count(b"\n") != len(rows) or 0x0D in page or not page.isascii():
            page = b"\n".join([_mended(bytes(line), tally) for line in lines])
        rawjson.count_unmapped(extras, tally)
        return page

    def _pick(self, fields: dict[str, msgspec.Raw]) -> bytes:
        picked = [key + fields[name] for name, key in self._keys if name in fields]
        return b"{%b}" % b",".join(picked)

    def _slow(self, row: Row, index: int, extras: Counter[str], tally: Tally) -> bytes:
        source, fields = rawjson.read(row, index)
        if self._keys:
            extras.update(fields.keys() - self._columns)
            picked = [key.decode() + fields[name] for name, key in self._keys if name in fields]
            source = f"{{{','.join(picked)}}}"
        return rawjson.utf8(rawjson.one_line(source, tally), tally)


def _mended(line: bytes, tally: Tally) -> bytes:
    """A checked line as it is, if it is UTF-8 and one line to every reader; else made so."""
    try:
        if 0x0A in line or 0x0D in line:
            line = msgspec.json.format(line, indent=-1)
        if line.isascii() or (line.decode() and not _has_separators(line)):
            return line
    except (UnicodeDecodeError, RecursionError):
        pass  # mended below, which counts what it replaces
    source = line.decode(errors="surrogateescape")
    return rawjson.utf8(rawjson.one_line(source, tally), tally)


def _has_separators(line: bytes) -> bool:
    # Single bytes first: they are found at the speed of memory, a sequence is not, and most
    # lines lack them.
    return (
        (0xA8 in line and line.find(b"\xe2\x80\xa8") >= 0)
        or (0xA9 in line and line.find(b"\xe2\x80\xa9") >= 0)
        or (0x85 in line and line.find(b"\xc2\x85") >= 0)
    )

"""The CSV format: one header line, then one line for each posting."""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from exporter.core import raw_json
from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Dialect
from exporter.errors import SourceUntrue
from exporter.formats import rows as rawjson
from exporter.formats.base import PLAIN, Format, State
from exporter.native import pages, writers

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
# Spreadsheets in East Asian languages read the full-width signs as formulas, too. Programs that
# trim imported text drop the whitespace before a sign.
_FORMULA = re.compile(r"[\t\r]|[ \t\n\r\v\f]*[=+\-@＝＋－＠]")
# A spreadsheet that takes ; or TAB for the separator splits a quoted cell there and at line breaks.
# Each run of separators is matched once and as a whole, so that the search stays linear.
_SEPARATED = re.compile(
    r"([;\t\n\r][; \t\n\r\v\f\"]*+)"
    rf"(?:(?!{_NUMBER.pattern}(?:[;\t\n\r]|\Z))([=+\-@＝＋－＠])([ \xa0]?))?"
)
_texts = msgspec.json.Decoder(list[str]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_SPLITTING = re.compile(r"[;\t\n\r]")


class Csv(Format):
    """Writes the columns of each row as RFC 4180 lines: CRLF, UTF-8, no byte order mark.

    Cells: null or an absent field is an empty cell; an empty string is `""`; a string is its text;
    a number has the source's digits; NaN and infinities have the source's spelling; a list or
    object is the source's JSON text, in which line breaks between values are removed together with
    the whitespace around them. Only cells that need quotes are quoted. In a file with one column
    null is `""`, because readers skip an empty line. Fields that are not among the columns are
    counted by name. If a row has two fields with the same name, the last one is written.

    With `joined`, the cell of a list is its values joined by "; ", before any quoting; a null in
    the list is an empty text, and an empty list is an empty string. A value that contains "; "
    cannot be distinguished from two values.

    With `guard`, a string that a spreadsheet would run as a formula gets a leading apostrophe: a
    string that begins with TAB or CR, or, after any whitespace, with = + - @ or their full-width
    forms. Plain numbers in strings ("-5", "+1.5e3") and JSON numbers are not changed. Text after a
    `;`, a TAB or a line break within a cell is guarded alike, also in lists and objects, because a
    spreadsheet with another separator begins a cell there; only "- " and "+ " at the start of a
    line are kept, as list marks. A guarded cell is always quoted, and counted once.

    With `bom`, the file begins with a byte order mark, without which Excel reads UTF-8 as Latin-1.
    A first column whose name begins with "ID" is quoted, because Excel takes a file that begins
    with these letters for a SYLK file.
    """

    extension = "csv"
    media_type = "text/csv; charset=utf-8"
    preview_type = media_type
    options = frozenset({"guard", "joined", "bom"})
    needs_columns = True
    joinable = True

    def __init__(self, columns: Sequence[str] = (), dialect: Dialect = PLAIN) -> None:
        self._columns = tuple(columns)
        self._guard = dialect.guard
        self._joined = dialect.joined
        self._bom = codecs.BOM_UTF8 if dialect.bom else b""
        self._nothing = '""' if len(columns) == 1 else ""
        self._names = frozenset(columns)
        self._writer = writers.Writer(columns, guard=dialect.guard, joined=dialect.joined)

    def open(self, state: State, out: Buffer) -> None:  # noqa: ARG002
        scratch = RowCounts()
        names = [self._text(name, scratch) for name in self._columns]
        if names[0].startswith("ID"):
            names[0] = f'"{names[0]}"'
        out += self._bom + ",".join(names).encode() + b"\r\n"

    def encode(
        self,
        rows: Sequence[Row],
        row_counts: RowCounts,
        state: State,  # noqa: ARG002
        out: Buffer,
    ) -> None:
        extras: Counter[str] = Counter()

        def write(index: int) -> None:
            nonlocal out
            out += self._line(rows[index], index, extras, row_counts)

        if isinstance(rows, pages.Rows):
            fields = self._writer.write_csv(rows, out, row_counts, write)
            rawjson.note_present(fields.present(), row_counts)
            extras.update(fields.extras())
        else:
            begin = len(out)
            try:
                for index in range(len(rows)):
                    write(index)
            except SourceUntrue:
                out.truncate(begin)
                raise
        rawjson.count_unmapped(extras, row_counts)

    @classmethod
    def first_rows(cls, data: bytes, rows: int) -> bytes:
        """Returns the header and the first rows; a line break between quotes ends no row."""
        end = at = quotes = 0
        missing = rows + 1
        while missing and (found := data.find(b"\n", at)) >= 0:
            quotes += data.count(b'"', at, found)
            at = found + 1
            if quotes % 2 == 0:
                end, missing = at, missing - 1
        return data[:end]

    @staticmethod
    def count(file: Path) -> int:
        csv.field_size_limit(2**31 - 1)
        with file.open(newline="", encoding="utf-8") as lines:
            return max(sum(1 for _ in csv.reader(lines)) - 1, 0)

    def _line(self, row: Row, index: int, extras: Counter[str], row_counts: RowCounts) -> bytes:
        """Returns the line of a row; counts the row in `extras` for each field without a column."""
        try:
            fields = {name: str(value, "utf-8") for name, value in _fields(row).items()}
        except rawjson.REFUSALS:
            _, fields = rawjson.read(row, index)
        rawjson.note_present(fields, row_counts)
        extras.update(fields.keys() - self._names)
        cells = [self._cell(fields.get(name, "null"), row_counts) for name in self._columns]
        return ",".join(cells).encode() + b"\r\n"

    def _cell(self, source: str, row_counts: RowCounts) -> str:
        """Returns the cell of any JSON value, given as JSON text."""
        if source == "null":
            return self._nothing
        if source[0] == '"':
            return self._text(rawjson.string(source), row_counts)
        if self._joined and source[0] == "[":
            return self._text(_join(source), row_counts)
        text = rawjson.compact(source)
        if self._guard and source[0] in "[{":
            # A tab between values is whitespace; in a text of JSON it is escaped.
            return self._guarded(text.replace("\t", " "), row_counts)
        return _quoted(rawjson.clean(text, row_counts))

    def _text(self, value: str, row_counts: RowCounts) -> str:
        """Returns the cell of a string: guarded, quoted and in valid UTF-8 as needed."""
        if not value:
            return '""'
        if self._guard:
            return self._guarded(value, row_counts)
        return _quoted(rawjson.clean(value, row_counts))

    def _guarded(self, value: str, row_counts: RowCounts) -> str:
        guarded = value
        if _SPLITTING.search(value):
            guarded = _SEPARATED.sub(_guard_part, value)
        if _FORMULA.match(guarded) and not _NUMBER.fullmatch(value):
            guarded = f"'{guarded}"
        cell = _quoted(rawjson.clean(guarded, row_counts))
        if guarded == value:
            return cell
        row_counts.guarded_cells += 1
        return cell if cell[0] == '"' else f'"{cell}"'


def _guard_part(found: re.Match[str]) -> str:
    """Returns the separators with an apostrophe after them, if a formula may begin there."""
    separators, sign, blank = found.groups()
    is_list_mark = blank and sign in "+-" and ";" not in separators and "\t" not in separators
    return found[0] if sign is None or is_list_mark else f"{separators}'{sign}{blank}"


def _join(source: str) -> str:
    """Returns the values of a JSON list as one text, separated by "; "."""
    try:
        if source.startswith('["'):
            return "; ".join(_texts(source))
        return "; ".join([_value_text(str(value, "utf-8")) for value in _values(source)])
    except (ValueError, RecursionError):
        return "; ".join(map(_value_text, raw_json.elements(source)[0]))


def _value_text(source: str) -> str:
    if source == "null":
        return ""
    return rawjson.string(source) if source[0] == '"' else rawjson.compact(source)


def _quoted(value: str) -> str:
    if '"' in value:
        value = value.replace('"', '""')
    elif not ("," in value or "\n" in value or "\r" in value):
        return value
    return f'"{value}"'

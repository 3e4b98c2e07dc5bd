"""Rows reduced to the columns of a file, if a column is a part of a field or has a new name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import msgspec

from exporter.core import raw_json
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.columns import Chosen, Path, Picked, field_of, name_of
from exporter.formats import rows as rawjson

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_values = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Projection:
    """Makes rows whose fields are the columns, in their order; the values are copied unread.

    A part that a row does not have, because a field on the way is missing or is no object or list,
    is absent from the row, as a missing field is. Fields that no column shows are counted.
    """

    def __init__(self, columns: Sequence[Chosen]) -> None:
        self._shown = frozenset(map(field_of, columns))
        self._columns = [(f"{json.dumps(name_of(one))}:".encode(), _path(one)) for one in columns]

    def __call__(self, rows: Sequence[Row], row_counts: RowCounts) -> Sequence[Row]:
        """Returns the new rows. Raises SourceUntrue if a row is no object; counts nothing then."""
        extras: Counter[str] = Counter()
        found: list[Row] = [self._row(row, index, extras) for index, row in enumerate(rows)]
        rawjson.count_unmapped(extras, row_counts)
        return found

    def _row(self, row: Row, index: int, extras: Counter[str]) -> bytes:
        try:
            fields = {name: bytes(value) for name, value in _fields(row).items()}
            is_odd = False
        except rawjson.REFUSALS:
            _, texts = rawjson.read(row, index)
            fields = {name: text.encode(errors="surrogateescape") for name, text in texts.items()}
            is_odd = True
        extras.update(fields.keys() - self._shown)
        parts = []
        for head, path in self._columns:
            value = fields.get(str(path[0]))
            for step in path[1:]:
                value = None if value is None else _step(value, step, is_odd=is_odd)
            if value is not None:
                parts.append(head + value)
        return b"{%b}" % b",".join(parts)


def projection(columns: Sequence[Chosen]) -> Projection | None:
    """Returns the projection onto these columns; None if all are fields by their own name."""
    return Projection(columns) if any(isinstance(one, Picked) for one in columns) else None


def _path(column: Chosen) -> Path:
    return (column,) if isinstance(column, str) else column.path


def _step(value: bytes, step: str | int, *, is_odd: bool) -> bytes | None:
    """Returns a part of a JSON value, as its bytes; None if the value has no such part."""
    wanted = b"[" if isinstance(step, int) else b"{"
    if value[:1] != wanted:
        return None
    try:
        if is_odd:
            raise msgspec.DecodeError
        if isinstance(step, int):
            values = _values(value)
            return bytes(values[step]) if step < len(values) else None
        found = _fields(value).get(step)
        return None if found is None else bytes(found)
    except rawjson.REFUSALS:
        return _odd_step(value.decode(errors="surrogateescape"), step)


def _odd_step(text: str, step: str | int) -> bytes | None:
    if isinstance(step, int):
        values = raw_json.elements(text)[0]
        found = values[step] if step < len(values) else None
    else:
        found = raw_json.members(text, _text_at).get(step)
    return None if found is None else found.encode(errors="surrogateescape")


def _text_at(source: str, start: int, _name: str) -> tuple[str, int]:
    return raw_json.text_at(source, start)

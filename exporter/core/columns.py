"""Columns of a file: the types of their values, and the parts of rows that they show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

TYPES: Final = ("text", "int", "float", "decimal", "flag", "date", "moment", "json")
"""Types of columns. text is what a column has without a type; json is a list or an object.

date is YYYY-MM-DD, moment a time with its offset, decimal an amount of money.
"""
_DECIMAL = re.compile(r"decimal\(([1-9][0-9]?),([0-9]{1,2})\)")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([0-9]{1,9})\]")
_RENAMED = re.compile(r"(.+?) as (.+)", re.DOTALL)
MAX_STEPS = 20
"""Steps of a path, the field included."""

Path = tuple[str | int, ...]
"""Field of a row, and then names of fields and places in lists, in the order of the nesting."""


class Picked(msgspec.Struct, frozen=True):
    """A column that is no field of the rows by its own name: a part of a field, or a new name.

    Stored in `Spec.columns` beside plain names. A version without parts cannot read such a record,
    so it leaves the export to others, instead of writing empty cells.
    """

    name: str
    """Name of the column in the file."""
    path: Path


Chosen = str | Picked
"""A column of an export: the name of a field, or a `Picked`."""


def name_of(column: Chosen) -> str:
    """Returns the name that a column has in the file."""
    return column if isinstance(column, str) else column.name


def field_of(column: Chosen) -> str:
    """Returns the field of the rows that a column shows, whole or in part."""
    return column if isinstance(column, str) else str(column.path[0])


def parse(text: str, known: Iterable[str] = ()) -> Chosen:
    """Returns the column that a caller describes: a field, `field.part[0]`, or `path as name`.

    The name of a `known` field is that field, whatever characters it has. Raises ValueError for a
    path that cannot be read.

    >>> parse("title"), parse("salary_range.min as salary_min")
    ('title', Picked(name='salary_min', path=('salary_range', 'min')))
    >>> parse("locations[0].city").path
    ('locations', 0, 'city')
    """
    known = frozenset(known)
    if text in known:
        return text
    renamed = _RENAMED.fullmatch(text)
    place, name = (renamed[1].strip(), renamed[2].strip()) if renamed else (text, text)
    path = (place,) if place in known else _path(place)
    return text if path == (text,) and not renamed else Picked(name, path)


def describe(column: Chosen) -> str:
    """Returns the text that `parse` reads as the column.

    >>> describe(Picked("city", ("locations", 0, "city"))), describe(parse("a.b"))
    ('locations[0].city as city', 'a.b')
    """
    if isinstance(column, str):
        return column
    first, *rest = column.path
    place = f"{first}" + "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in rest)
    return place if place == column.name else f"{place} as {column.name}"


def _path(text: str) -> Path:
    begin = re.match(r"[^.\[\]]+", text)
    if begin is None:
        raise ValueError(f"{text[:100]!r} does not begin with a field")
    path: list[str | int] = [begin[0]]
    at = begin.end()
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(
                f"{text[:100]!r} is no path: write field.part, or field[0] for a place in a list"
            )
        path.append(step[1] if step[1] is not None else int(step[2]))
        at = step.end()
    if len(path) > MAX_STEPS:
        raise ValueError(f"the path has {len(path)} steps: give at most {MAX_STEPS}")
    return tuple(path)


def split_type(text: str) -> tuple[str, str]:
    """Returns name and type of `name:type`, as the configuration has it; without one, text.

    >>> split_type("salary:decimal(18,2)"), split_type("urn:li")
    (('salary', 'decimal(18,2)'), ('urn:li', 'text'))
    """
    name, separator, kind = text.rpartition(":")
    return (name, kind) if separator and name and is_type(kind) else (text, "text")


def is_type(kind: str) -> bool:
    """True for the name of a type; `decimal` may have its digits, such as `decimal(18,2)`."""
    digits = _DECIMAL.fullmatch(kind)
    if digits is None:
        return kind in TYPES
    return int(digits[1]) <= 38 and int(digits[2]) <= int(digits[1])


def types_of(columns: Sequence[Chosen], types: Mapping[str, str]) -> dict[str, str]:
    """Returns the types of the columns of a file, by name, that are not text.

    `types` are those of the fields. A part of a field has no known type, so it is text.
    """
    found = {
        name_of(one): types.get(field_of(one), "text")
        for one in columns
        if isinstance(one, str) or len(one.path) == 1
    }
    return {name: kind for name, kind in found.items() if kind != "text"}

"""Conversion of a table's values into the JSON of a posting, without loss."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from exporter.contracts import timestamps
from exporter.errors import SourceRefused

Reader = Callable[[Any], Any]
"""A function that converts a value of a column; it returns an unsuitable value unchanged."""

_encode = msgspec.json.Encoder(decimal_format="number").encode


def to_bool(value: Any) -> Any:
    """Returns False for 0 and True for 1, for databases without booleans.

    Any other value is returned unchanged.

    >>> to_bool(1), to_bool(0), to_bool("yes")
    (True, False, 'yes')
    """
    return bool(value) if value in (0, 1) else value


def to_utc(value: Any) -> Any:
    """Returns the time in UTC of a datetime, or of a text in ISO 8601.

    A time without a zone is taken as UTC. Any other value is returned unchanged.

    >>> to_utc("2026-03-04 13:00:00+01:00")
    datetime.datetime(2026, 3, 4, 12, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        if isinstance(value, str):
            return timestamps.parse(value)
        return timestamps.in_utc(value) if isinstance(value, datetime) else value
    except (ValueError, OverflowError):
        return value


def to_finite(value: Any) -> Any:
    """Returns None for a decimal that is NaN or infinite; any other value is returned unchanged.

    JSON has no such numbers. The JSON encoder writes such floats as null by itself.
    """
    return None if isinstance(value, Decimal) and not value.is_finite() else value


def to_raw_json(value: Any) -> Any:
    """Returns the text of a JSON value as a msgspec.Raw, which is written into the row unchanged.

    Numbers in it thus keep all their digits. Text that is not JSON and values that are not text are
    returned unchanged.
    """
    if not isinstance(value, str) or not _is_json(value):
        return value
    return msgspec.Raw(value.encode(errors="surrogateescape"))


def to_raw_list(value: Any) -> Any:
    """Returns the text of a JSON list as a msgspec.Raw, for databases without lists.

    The list is then written into the row unchanged. Any other value is returned unchanged.
    """
    return to_raw_json(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError):
        try:
            # The formats accept some JSON for which msgspec is too strict.
            json.loads(text, parse_int=str)
        except (ValueError, RecursionError):
            return False
    return True


class RowWriter:
    """Writes rows as JSON: a call with a row's values, in the order of `names`, returns an object.

    Decimals keep their digits, times are ISO 8601 in UTC with a final Z, NaN is null. Raises
    SourceRefused, which names the column, for a value that JSON cannot express.
    """

    def __init__(self, names: Sequence[str], readers: Mapping[str, Reader]) -> None:
        self._names = tuple(names)
        self._readers = [
            (place, readers[name]) for place, name in enumerate(names) if name in readers
        ]

    def __call__(self, values: Sequence[Any]) -> bytes:
        read = list(values)
        for place, reader in self._readers:
            if read[place] is not None:
                read[place] = reader(read[place])
        # If the row cannot be encoded at once, each value is encoded alone, to find the cause.
        with contextlib.suppress(TypeError, ValueError):
            # The encoder would write bytes as base64, which is not the value in the table.
            if bytes not in map(type, read):
                return _encode(dict(zip(self._names, read, strict=True)))
        return _encode(
            {
                name: _encoded_alone(name, value)
                for name, value in zip(self._names, read, strict=True)
            }
        )


def _encoded_alone(name: str, value: Any) -> msgspec.Raw:
    try:
        if not isinstance(value, bytes):
            return msgspec.Raw(_encode(value))
    except UnicodeEncodeError:
        # Text that is not UTF-8 is kept, because the formats replace and count such bytes.
        return msgspec.Raw(json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape"))
    except (TypeError, ValueError):
        pass
    raise SourceRefused(
        f"column {name!r} has a value of type {type(value).__name__}, which JSON cannot express: "
        "remove it from the source's `columns`, or convert it to text in a view"
    )

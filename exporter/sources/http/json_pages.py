"""Reading of JSON pages into raw rows, whose bytes stay unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from exporter.core.checkpoints import ConvertedRow, Row
from exporter.errors import SourceUntrue
from exporter.sources.http.charsets import Converted

Envelope = TypeVar("Envelope", bound=msgspec.Struct)

_NONE = msgspec.Raw(b"null")
_SPACE = re.compile(r"[ \t\n\r]*")
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"|[][{}]', re.DOTALL)
_value = json.JSONDecoder(strict=False).raw_decode
# Skipped numbers stay text, because Python refuses integers of more than 4,300 digits.
_passed = json.JSONDecoder(
    strict=False, parse_int=str, parse_float=str, parse_constant=str
).raw_decode


def reader(envelope: type[Envelope], rows: str) -> Callable[[bytes], Envelope]:
    """Returns a function that decodes the body of a page into the struct type `envelope`.

    `rows` is the name of the field that holds the rows, or one row, of the page. Rows are not
    decoded: each row is a piece of the body, unchanged. For valid JSON, msgspec cuts out these
    pieces, as msgspec.Raw. Some upstreams send invalid JSON (NaN, control characters in strings, a
    thousand levels of nesting). The scanner of the standard library then cuts out the pieces, as
    `bytes`. The function raises SourceUntrue for a body that neither of the two can read.
    """
    fast = msgspec.json.Decoder(envelope)
    fields = frozenset(envelope.__struct_encode_fields__)
    alone = any(f.name == rows and f.type is msgspec.Raw for f in msgspec.structs.fields(envelope))

    def parsed(body: bytes) -> Envelope:
        try:
            return fast.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            try:
                found = _slice(body, rows, fields, alone=alone)
                odd = found.get(rows)
                if isinstance(odd, bytes | list):
                    # msgspec refuses bytes where a Raw is declared, so they are set afterwards.
                    found[rows] = _NONE if alone else []
                page = msgspec.convert(found, envelope)
            except (ValueError, RecursionError, msgspec.ValidationError) as second:
                wrong = second if isinstance(second, msgspec.ValidationError) else error
                raise SourceUntrue(f"a body that is not the requested page ({wrong})") from None
            if isinstance(odd, bytes | list):
                setattr(page, rows, odd)
            return page

    def read(body: bytes) -> Envelope:
        page = parsed(body)
        if isinstance(body, Converted) and rows in fields:
            found = getattr(page, rows)
            many = isinstance(found, list)
            setattr(page, rows, list(map(ConvertedRow, found)) if many else ConvertedRow(found))
        return page

    return read


def text_of(row: Row, name: str) -> str | None:
    """Returns the value of the field `name` of a row; None if it is absent or not a text.

    Reads all rows that `reader` accepts, including rows of invalid JSON.
    """
    text = bytes(row).decode("utf-8", "surrogateescape")
    try:
        found, _ = _passed(text)
    except (ValueError, RecursionError):
        return None
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def _slice(body: bytes, rows: str, fields: frozenset[str], *, alone: bool) -> dict[str, Any]:
    """Returns the fields `fields` of the JSON object in `body`, by name.

    The value of the field `rows` is not decoded, but returned as a list with the bytes of each
    element. With `alone`, a value of that field that is not a list is returned as the bytes of one
    row. Raises ValueError for a body that is not a JSON object.
    """
    # surrogateescape keeps bytes that are not UTF-8 unchanged in the row.
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    found: dict[str, Any] = {}
    at = start = _expect(text, 0, "{")
    while text[at : at + 1] != "}":
        if at > start:
            at = _expect(text, at, ",")
        if text[at : at + 1] != '"':
            raise ValueError(f"expected the name of a field at {at}")
        key, at = _value(text, at)
        at = _expect(text, at, ":")
        if key == rows and text[at : at + 1] == "[":
            found[key], at = _elements(text, at + 1)
        elif key == rows and alone:
            end = _end(text, at)
            found[key], at = _raw(text[at:end]), end
        elif key in fields:
            found[key], at = _value(text, at)
        else:
            at = _end(text, at)
        at = _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise ValueError("something follows the page")
    return found


def _elements(text: str, at: int) -> tuple[list[bytes], int]:
    elements: list[bytes] = []
    at = _skip(text, at)
    while text[at : at + 1] != "]":
        if elements:
            at = _expect(text, at, ",")
        end = _end(text, at)
        elements.append(_raw(text[at:end]))
        at = _skip(text, end)
    return elements, at + 1


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _end(text: str, at: int) -> int:
    """Returns the index after the value that begins at `at`; raises ValueError if it has no end."""
    try:
        end: int = _passed(text, at)[1]
    except RecursionError:
        # For very deep nesting only brackets are counted; the format reads the rest.
        depth = 0
        for token in _NESTING.finditer(text, at):
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            if depth == 0:
                return token.end()
        raise ValueError(f"no end of the value at {at}") from None
    return end


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _expect(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at {at}")
    return _skip(text, at + 1)

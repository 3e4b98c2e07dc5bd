"""Cutting a page's JSON into the raw texts of its rows, without changing a byte of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from exporter.core.checkpoints import Row
from exporter.errors import SourceUntrue

Envelope = TypeVar("Envelope", bound=msgspec.Struct)

_NONE = msgspec.Raw(b"null")
_SPACE = re.compile(r"[ \t\n\r]*")
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*+"|[][{}]', re.DOTALL)
_value = json.JSONDecoder(strict=False).raw_decode
# Numbers that are only passed over stay text: Python reads no integer of more than 4,300 digits.
_passed = json.JSONDecoder(
    strict=False, parse_int=str, parse_float=str, parse_constant=str
).raw_decode


def reader(envelope: type[Envelope], rows: str) -> Callable[[bytes], Envelope]:
    """A function that reads a page's body into its envelope, whose field `rows` holds raw rows,
    or one of them.

    The fast path only slices; each row is a Raw. JSON that it refuses but that upstreams send all
    the same (NaN, control characters in strings, a thousand levels of nesting) is sliced by the
    standard library's scanner instead, and each row is bytes; what neither reads raises
    SourceUntrue, saying what was there.
    """
    fast = msgspec.json.Decoder(envelope)
    fields = frozenset(envelope.__struct_encode_fields__)
    alone = any(f.name == rows and f.type is msgspec.Raw for f in msgspec.structs.fields(envelope))

    def read(body: bytes) -> Envelope:
        try:
            return fast.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            try:
                found = _slice(body, rows, fields, alone=alone)
                odd = found.get(rows)
                if isinstance(odd, bytes | list):
                    # msgspec lets no bytes pass for a Raw, and a Raw they must not become.
                    found[rows] = _NONE if alone else []
                page = msgspec.convert(found, envelope)
            except (ValueError, RecursionError, msgspec.ValidationError) as second:
                wrong = second if isinstance(second, msgspec.ValidationError) else error
                raise SourceUntrue(f"a body that is not the page asked for ({wrong})") from None
            if isinstance(odd, bytes | list):
                setattr(page, rows, odd)
            return page

    return read


def text_of(row: Row, name: str) -> str | None:
    """A row's field of that name, if it is a text; reads what `reader` cuts out, however odd."""
    text = bytes(row).decode("utf-8", "surrogateescape")
    try:
        found, _ = _passed(text)
    except (ValueError, RecursionError):
        return None
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, str) else None


def _slice(body: bytes, rows: str, fields: frozenset[str], *, alone: bool) -> dict[str, Any]:
    """Those fields of the top-level object, the elements of the array `rows` as raw bytes; or
    `rows` itself, if it is one row `alone`."""
    # surrogateescape carries bytes that are no UTF-8 through unchanged, back into the row.
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
    """Where the value that begins here ends."""
    try:
        end: int = _passed(text, at)[1]
    except RecursionError:
        # So deep, only brackets are counted; what is between them is for the format to read.
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

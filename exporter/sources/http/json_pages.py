"""Reading of JSON pages into raw rows, whose bytes stay unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from exporter.core import raw_json
from exporter.core.checkpoints import ConvertedRow, Row
from exporter.errors import SourceUntrue
from exporter.native import pages
from exporter.sources.http.charsets import Converted

Envelope = TypeVar("Envelope", bound=msgspec.Struct)

_NONE = msgspec.Raw(b"null")
_value = json.JSONDecoder(strict=False).raw_decode


def reader(
    envelope: type[Envelope], rows: str, identity: str | None
) -> Callable[[bytes], Envelope]:
    """Returns a function that decodes the body of a page like that of `python_reader`.

    The compiled library cuts a list of rows out of sound JSON: the rows are `native.pages.Rows`,
    with the digests of the ids in the field `identity`.
    """
    read_slowly, read_rest = python_reader(envelope, rows), msgspec.json.Decoder(envelope).decode

    def read(body: bytes) -> Envelope:
        cut = None if isinstance(body, Converted) else pages.cut(body, [rows], identity)
        if cut is None:
            return read_slowly(body)
        try:
            page = read_rest(cut.rest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return read_slowly(body)
        setattr(page, rows, cut.rows)
        return page

    return read


def python_reader(envelope: type[Envelope], rows: str) -> Callable[[bytes], Envelope]:
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
        found, _ = raw_json.read_at(text)
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

    def take(source: str, at: int, name: str) -> tuple[Any, int]:
        if name == rows and source.startswith("[", at):
            texts, end = raw_json.elements(source, at)
            return [_raw(one) for one in texts], end
        if name in fields and not (alone and name == rows):
            return _value(source, at)
        found, end = raw_json.text_at(source, at)
        return _raw(found) if name == rows else None, end

    found = raw_json.members(text, take)
    return {name: value for name, value in found.items() if name == rows or name in fields}


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")

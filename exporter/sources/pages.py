"""Cutting a page's JSON into the raw texts of its rows, without changing a byte of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from exporter.errors import SourceUntrue
from exporter.formats.base import Row

Envelope = TypeVar("Envelope", bound=msgspec.Struct)

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(strict=False)


def reader(envelope: type[Envelope], rows: str) -> Callable[[bytes], Envelope]:
    """A function that reads a page's body into its envelope, whose field `rows` holds raw rows.

    The fast path only slices. JSON that it refuses but that upstreams send all the same (NaN,
    control characters in strings) is sliced by the standard library's scanner instead; what
    neither reads raises SourceUntrue, saying what was there.
    """
    fast = msgspec.json.Decoder(envelope)

    def read(body: bytes) -> Envelope:
        try:
            return fast.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            try:
                return msgspec.convert(_slice(body, rows), envelope)
            except (ValueError, RecursionError, msgspec.ValidationError) as second:
                wrong = second if isinstance(second, msgspec.ValidationError) else error
                raise SourceUntrue(f"a body that is not the page asked for ({wrong})") from None

    return read


def _slice(body: bytes, rows: str) -> dict[str, Any]:
    """The top-level object, with the elements of the array `rows` as raw bytes."""
    # surrogateescape carries bytes that are no UTF-8 through unchanged, back into the row.
    text = body.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    found: dict[str, Any] = {}
    at = _expect(text, 0, "{")
    while text[at : at + 1] != "}":
        if found:
            at = _expect(text, at, ",")
        key, at = _DECODER.raw_decode(text, at)
        at = _expect(text, at, ":")
        if key == rows and text[at : at + 1] == "[":
            found[key], at = _elements(text, at + 1)
        else:
            found[key], at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise ValueError("something follows the page")
    return found


def _elements(text: str, at: int) -> tuple[list[Row], int]:
    elements: list[Row] = []
    at = _skip(text, at)
    while text[at : at + 1] != "]":
        if elements:
            at = _expect(text, at, ",")
        _, end = _DECODER.raw_decode(text, at)
        elements.append(msgspec.Raw(text[at:end].encode("utf-8", "surrogateescape")))
        at = _skip(text, end)
    return elements, at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _expect(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"expected {sign!r} at {at}")
    return _skip(text, at + 1)

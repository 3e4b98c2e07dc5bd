"""Reads uploads: multipart forms, piece by piece, and lists of ids within the forms."""

from __future__ import annotations

import codecs
from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import pairwise

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from exporter.api.errors import invalid
from exporter.api.refusal import Refusal
from exporter.errors import problem

Sink = Callable[[bytes], None]
"""Function that receives the content of one part of a form, piece by piece."""

MAX_LINE_BYTES = 200
"""Longest line of a list of ids, in bytes."""
MAX_HEADER_BYTES = 4_096
"""Longest header of a part of a form."""
MAX_INLINE_BYTES = 16 * 1024
"""Bytes parsed at once, which occupies the event loop for some milliseconds at most."""
MAX_ID_DIGITS = 18
"""Longest id: every number of this length fits into a signed 64-bit integer."""


async def read(
    content_type: str,
    chunks: AsyncIterator[bytes],
    sinks: Mapping[str, Sink],
    *,
    max_bytes: int,
    repeatable: str = "",
) -> None:
    """Reads a multipart/form-data body and passes the content of each part to a sink.

    `sinks` maps the names of parts to their sinks. Memory use does not grow with the body. The part
    named `repeatable` may occur several times; its sink then gets the contents separated by line
    feeds.

    Raises Refusal 400 for a malformed or incomplete body (half of a list of ids would still be a
    valid list), 413 for a body of more than `max_bytes`, and 422 for a part that has no sink or
    occurs again. Every Refusal of a sink is raised, too.
    """
    _, options = parse_options_header(content_type)
    form = _Form(sinks, repeatable)
    size = 0
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": form.begin,
                "on_header_field": form.header_name,
                "on_header_value": form.header_value,
                "on_header_end": form.header_end,
                "on_headers_finished": form.headers_end,
                "on_part_data": form.data,
                "on_end": form.end,
            },
        )
        async for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise Refusal(413, "body_too_large", f"the body is larger than {max_bytes} bytes")
            for begin in range(0, len(chunk), MAX_INLINE_BYTES):
                parser.write(chunk[begin : begin + MAX_INLINE_BYTES])
                # Other requests get their turn between two pieces.
                await anyio.sleep(0)
    except FormParserError as error:
        raise _malformed(str(error)) from None
    if not form.ended:
        raise _malformed("it stops before its last boundary")


class _Form:
    """Callbacks of the multipart parser, which pass each part to its sink."""

    def __init__(self, sinks: Mapping[str, Sink], repeatable: str) -> None:
        self.ended = False
        self._sinks = sinks
        self._repeatable = repeatable
        self._seen: set[str] = set()
        self._name = self._value = b""
        self._disposition = b""
        self._sink: Sink | None = None

    def begin(self) -> None:
        self._disposition = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_header()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._name) + len(self._value) > MAX_HEADER_BYTES:
            raise _malformed(f"a header of a part is longer than {MAX_HEADER_BYTES} bytes")

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self._sink = self._sinks.get(name)
        message = ""
        if self._sink is None:
            message = f"unknown field; known: {', '.join(self._sinks)}"
        elif name in self._seen and name == self._repeatable:
            self._sink(b"\n")
        elif name in self._seen:
            message = "the field occurs twice: send it once"
        self._seen.add(name)
        if message:
            raise invalid([problem(("body", name[:100]), message, "form_field")])

    def data(self, data: bytes, start: int, end: int) -> None:
        if self._sink is not None:
            self._sink(data[start:end])

    def end(self) -> None:
        self.ended = True


def _malformed(why: str) -> Refusal:
    return Refusal(400, "form_malformed", f"the body is not valid multipart/form-data: {why}")


class Text:
    """A sink for a short text; raises Refusal 422 if the text has more than `max_bytes`."""

    def __init__(self, name: str, max_bytes: int) -> None:
        self._name = name
        self._max_bytes = max_bytes
        self._data = bytearray()

    def __call__(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._max_bytes:
            raise Refusal(
                422, "invalid_request", f"{self._name} is larger than {self._max_bytes} bytes"
            )

    @property
    def value(self) -> str:
        """The text received so far. Raises Refusal 422 if the text is not UTF-8."""
        try:
            return self._data.decode()
        except UnicodeDecodeError:
            raise Refusal(422, "invalid_request", f"{self._name} is not UTF-8") from None


class IdLines:
    """A sink for a list of ids: one number per line, without a header line.

    Lines end with LF or CRLF. A BOM, whitespace around an id and blank lines at the end are
    ignored. Anything else raises Refusal 400 with the line's number and text: a list is accepted
    completely or not at all. Each id occupies 8 bytes of memory.
    """

    def __init__(self, max_ids: int) -> None:
        self._max_ids = max_ids
        self._ids = array("Q")
        self._rest = b""
        self._lines = 0
        self._blank = 0

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._parse_line(line)
        if len(self._rest) > MAX_LINE_BYTES:
            raise self._wrong(self._lines + 1, self._rest)

    def ids(self) -> Sequence[int]:
        """Returns all ids in the order of the list.

        Call this method after the whole list was passed to the sink. Raises Refusal if the last
        line is malformed, an id occurs twice, or the list is empty.
        """
        if self._rest:
            self._parse_line(self._rest)
            self._rest = b""
        return check_ids(self._ids, self._max_ids)

    def _parse_line(self, line: bytes) -> None:
        self._lines += 1
        if self._lines == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        text = line.strip()
        if not text:
            self._blank = self._blank or self._lines
            return
        if self._blank:
            raise self._wrong(self._blank, b"")
        # bytes.isdigit accepts only 0 to 9; int() would also accept signs and underscores.
        if not text.isdigit() or len(text) > MAX_ID_DIGITS:
            raise self._wrong(self._lines, text)
        if len(self._ids) == self._max_ids:
            raise too_many(self._max_ids)
        self._ids.append(int(text))

    def _wrong(self, line: int, text: bytes) -> Refusal:
        shown = text[:50].decode("utf-8", "replace")
        return Refusal(
            400,
            "id_list_malformed",
            f"line {line} of the list of ids is {shown!r}: write one id per line, as a number of up"
            f" to {MAX_ID_DIGITS} digits, without a header line",
        )


def check_ids(ids: Sequence[int], max_ids: int) -> Sequence[int]:
    """Returns the ids unchanged if all are different and their number is 1 to `max_ids`.

    Raises Refusal 422 if the list is empty or an id occurs twice, and Refusal 400 if the list is
    too long. The vendor documents these statuses for duplicate ids and for too many ids.
    """
    if not ids:
        raise Refusal(422, "no_ids", "the list of ids is empty: give at least one id")
    if len(ids) > max_ids:
        raise too_many(max_ids)
    for one, following in pairwise(sorted(ids)):
        if one == following:
            raise Refusal(422, "duplicate_ids", f"id {one} is listed twice: give each id once")
    return ids


def too_many(max_ids: int) -> Refusal:
    """Returns the 400 refusal of a list with more than `max_ids` ids, with the vendor's text."""
    return Refusal(400, "too_many_ids", f"File contains too many IDs. Maximum is {max_ids:,} IDs")

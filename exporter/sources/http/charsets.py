"""Conversion of answers to UTF-8, the only encoding that JSON readers accept."""

from __future__ import annotations

import codecs
import json
import re

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^"';,\s]+)""", re.IGNORECASE)
_BOMS = (
    # The BOM of UTF-16 is the beginning of that of UTF-32.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_WIDE = ("utf-16", "utf-32")
_MARKED = "exporter.marked"
"""Name of the error handler `_mark`."""
_ESCAPING = "iso2022"
"""Beginning of the names of encodings whose bytes are ASCII, with escape sequences."""
_CONVERTED = re.compile(
    r"iso8859|cp\d|koi8|mac-|shift_jis|euc_|gb|big5|johab|kz1048|ptcp154|tis-620|hp-roman8"
    rf"|{_ESCAPING}|{'|'.join(_WIDE)}"
)
"""Names of the encodings of texts; Python has others, such as one for its own escape sequences."""


class Converted(bytes):
    """A body in UTF-8 that the upstream sent in another encoding."""


class UnknownCharset(Exception):
    """A body is not UTF-8, and its charset is not that of a text."""


def to_utf8(body: bytes, content_type: str) -> bytes:
    """Returns the body in UTF-8 and without a BOM; a converted one as `Converted`.

    A BOM decides before the charset of the content type. Without a BOM, a body that is valid UTF-8
    stays as it is, because many servers declare a charset that they do not use. A body without a
    charset stays as it is, too. Bytes that the charset does not have stay in the body; the formats
    replace them by U+FFFD and count them. Raises UnknownCharset, with the name, for a charset that
    is not known.
    """
    for bom, name in _BOMS:
        if body.startswith(bom):
            rest = body[len(bom) :]
            return rest if name == "utf-8" else _converted(rest, name)
    found = _CHARSET.search(content_type)
    if found is None:
        return body
    name = _codec(found[1])
    if name in ("utf-8", "ascii"):
        return body
    if name.startswith(_WIDE):
        # Texts in ASCII have zero bytes in these encodings, whose places show the byte order.
        name = json.detect_encoding(body[:4])
        return body if name.startswith("utf-8") else _converted(body, name)
    if _is_utf8(body) and not (name.startswith(_ESCAPING) and b"\x1b" in body):
        return body
    if not name:
        raise UnknownCharset(found[1])
    return _converted(body, name)


def enclosed(before: bytes, body: bytes, after: bytes) -> bytes:
    """Returns the three texts as one, as `Converted` if the body is."""
    whole = before + body + after
    return Converted(whole) if isinstance(body, Converted) else whole


def _converted(body: bytes, name: str) -> Converted:
    return Converted(body.decode(name, _MARKED).encode("utf-8", "surrogateescape"))


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Replaces a byte that the charset does not have by a byte that UTF-8 does not have."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    # The byte after it may be a quotation mark of JSON.
    step = error.end if error.encoding.startswith(_WIDE) else error.start + 1
    return "\udcff", step


codecs.register_error(_MARKED, _mark)


def _codec(charset: str) -> str:
    """Returns Python's name of the charset; an empty text for an unknown one."""
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return ""
    return name if name in ("utf-8", "ascii") or _CONVERTED.match(name) else ""


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True

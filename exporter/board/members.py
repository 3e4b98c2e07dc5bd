"""Extracts members of a posting's JSON object as raw JSON, that is, without decoding values.

The values can then be written into another object under other names, byte for byte.
"""

from __future__ import annotations

import json
import re

import msgspec

_null = msgspec.Raw(b"null")


class Members(msgspec.Struct):
    """Values of the members that the Bindbee and Qwestly contracts use, as raw JSON.

    A member that the posting lacks is `null`.
    """

    job_title: msgspec.Raw = _null
    company_name: msgspec.Raw = _null
    job_slug: msgspec.Raw = _null
    description: msgspec.Raw = _null
    requirements_summary: msgspec.Raw = _null
    application_link: msgspec.Raw = _null
    job_board: msgspec.Raw = _null
    contact_email: msgspec.Raw = _null
    team: msgspec.Raw = _null
    locations: msgspec.Raw = _null
    salary_range: msgspec.Raw = _null
    yoe_range: msgspec.Raw = _null
    experience_level: msgspec.Raw = _null
    education_level: msgspec.Raw = _null
    technologies: msgspec.Raw = _null
    skills: msgspec.Raw = _null
    benefits: msgspec.Raw = _null
    offers_equity: msgspec.Raw = _null
    company_data: msgspec.Raw = _null


_fast = msgspec.json.Decoder(Members).decode
_NAMES = frozenset(Members.__struct_fields__)
_SPACE = re.compile(r"[ \t\n\r]*")
# Numbers stay texts: Python refuses to convert integers of more than 4,300 digits.
_value = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def decode(document: bytes) -> Members:
    """Returns the members of a posting, given the JSON text of the posting."""
    try:
        return _fast(document)
    except msgspec.DecodeError:
        # msgspec rejects halves of surrogate pairs, even in members that it skips.
        return Members(**_slice_members(document.decode()))


def _slice_members(document: str) -> dict[str, msgspec.Raw]:
    found: dict[str, msgspec.Raw] = {}
    at = _skip(document, _skip(document, 0) + 1)
    while document[at] != "}":
        name, at = _value(document, at)
        start = _skip(document, _skip(document, at) + 1)
        _, end = _value(document, start)
        if name in _NAMES:
            found[name] = msgspec.Raw(document[start:end].encode())
        at = _skip(document, end)
        if document[at] == ",":
            at = _skip(document, at + 1)
    return found


def _skip(document: str, at: int) -> int:
    match = _SPACE.match(document, at)
    assert match is not None
    return match.end()


def text_or_none(value: msgspec.Raw) -> msgspec.Raw | None:
    """Returns a raw JSON value unchanged if it is a string; None for any other value."""
    return value if bytes(value).startswith(b'"') else None


def list_or_none(value: msgspec.Raw) -> msgspec.Raw | None:
    """Returns a raw JSON value unchanged if it is an array; None for any other value."""
    return value if bytes(value).startswith(b"[") else None


def object_or_none(value: msgspec.Raw) -> msgspec.Raw | None:
    """Returns a raw JSON value unchanged if it is an object; None for any other value."""
    return value if bytes(value).startswith(b"{") else None


def bool_or_none(value: msgspec.Raw) -> bool | None:
    """Returns a raw JSON value as a bool if it is `true` or `false`; None for any other value."""
    return {b"true": True, b"false": False}.get(bytes(value))


def encode(value: str | list[str]) -> msgspec.Raw:
    """Returns a text, or a list of texts, as raw JSON in ASCII.

    All other characters are written as JSON escapes, because UTF-8 cannot encode halves of
    surrogate pairs.
    """
    return msgspec.Raw(json.dumps(value).encode())


def start_of_day(posted: str) -> str | None:
    """Returns midnight UTC of a day such as `2026-01-31`, as text; None for an empty text."""
    return f"{posted}T00:00:00Z" if posted else None

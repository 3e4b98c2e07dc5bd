"""Extracts a posting's members as raw JSON, to copy them under other names without decoding."""

from __future__ import annotations

import json
import re

import msgspec

_null = msgspec.Raw(b"null")


class Members(msgspec.Struct):
    """Members that the Bindbee and Qwestly contracts use; null if the posting lacks a member."""

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
    """Returns the members of a posting's JSON text."""
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
    """Returns the value if it is a JSON string, else None."""
    return value if bytes(value).startswith(b'"') else None


def list_or_none(value: msgspec.Raw) -> msgspec.Raw | None:
    """Returns the value if it is a JSON array, else None."""
    return value if bytes(value).startswith(b"[") else None


def object_or_none(value: msgspec.Raw) -> msgspec.Raw | None:
    """Returns the value if it is a JSON object, else None."""
    return value if bytes(value).startswith(b"{") else None


def bool_or_none(value: msgspec.Raw) -> bool | None:
    """Returns the value if it is true or false, else None."""
    return {b"true": True, b"false": False}.get(bytes(value))


def encode(value: str | list[str]) -> msgspec.Raw:
    """Encodes texts as ASCII JSON, so halves of surrogate pairs are kept as escapes."""
    return msgspec.Raw(json.dumps(value).encode())


def start_of_day(posted: str) -> str | None:
    """Returns midnight UTC of the day in a posting's `posted` column; None if it is empty."""
    return f"{posted}T00:00:00Z" if posted else None

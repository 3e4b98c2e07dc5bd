"""A posting's members as raw JSON, to be put under other names without being read."""

from __future__ import annotations

import json
import re

import msgspec

_null = msgspec.Raw(b"null")


class Members(msgspec.Struct):
    """The members that other contracts show; null if the posting has none of that name."""

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
# Numbers are only passed over: Python reads no integer of more than 4,300 digits.
_value = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode


def of(document: bytes) -> Members:
    """The members of a posting's JSON text."""
    try:
        return _fast(document)
    except msgspec.DecodeError:
        # Halves of surrogate pairs, which it does not take even where it only passes them over.
        return Members(**_cut(document.decode()))


def _cut(document: str) -> dict[str, msgspec.Raw]:
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


def text(value: msgspec.Raw) -> msgspec.Raw | None:
    """The value if it is a text."""
    return value if bytes(value).startswith(b'"') else None


def items(value: msgspec.Raw) -> msgspec.Raw | None:
    """The value if it is a list."""
    return value if bytes(value).startswith(b"[") else None


def members(value: msgspec.Raw) -> msgspec.Raw | None:
    """The value if it is an object."""
    return value if bytes(value).startswith(b"{") else None


def flag(value: msgspec.Raw) -> bool | None:
    """The value if it is true or false."""
    return {b"true": True, b"false": False}.get(bytes(value))


def encoded(value: str | list[str]) -> msgspec.Raw:
    """Texts made of a posting's own, as JSON: halves of surrogate pairs pass as escapes."""
    return msgspec.Raw(json.dumps(value).encode())


def day(posted: str) -> str | None:
    """The first moment of the day that a posting's column holds, if it holds one."""
    return f"{posted}T00:00:00Z" if posted else None

"""Converts the board's postings to records of the Coresignal contract."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import orjson

from exporter.board import postings
from exporter.board.postings import key
from exporter.contracts import filters, timestamps

PROFILE_URL_PREFIX = "https://www.professional-network.com/company/"
"""URL prefix of company profiles in the vendor's documentation; the company's slug follows."""


class Entry(NamedTuple):
    """A row of the table `coresignal`: values of a posting that only this contract searches."""

    record_id: int
    number: int
    location: str
    website: str


class _Members(msgspec.Struct):
    """Members of a posting from which its record is made; each may have any type."""

    job_title: Any = None
    description: Any = None
    requirements: Any = None
    technologies: Any = None
    skills: Any = None
    benefits: Any = None
    experience_level: Any = None
    job_type: Any = None
    location_raw: Any = None
    locations: Any = None
    date_posted: Any = None
    expired: Any = None
    company_name: Any = None
    company_slug: Any = None
    company_link: Any = None
    contact_email: Any = None
    company_data: Any = None
    application_link: Any = None
    job_board_link: Any = None
    job_categories: Any = None
    salary_range: Any = None


_decode = msgspec.json.Decoder(_Members).decode


def record_id(identity: str) -> int:
    """Returns the record id of the posting with this id, which is the same on every board.

    Record ids have at most 53 bits, so JSON parsers that use floats read them exactly.
    """
    return _number(identity, b"posting")


@functools.lru_cache(maxsize=10_000)
def company_id(company: str) -> int | None:
    """Returns the id of the company with this name; None for an empty name.

    The name is a comparison key: see postings.key.
    """
    return _number(company, b"company") if company else None


def entry(number: int, identity: str, json_text: bytes) -> Entry:
    """Returns the row of the `coresignal` table for the posting with this number and id."""
    found = _members(json_text)
    location, website = _storable(_location(found)), _storable(_website(found))
    return Entry(record_id(identity), number, location, website)


def keywords(json_text: bytes) -> str:
    """Returns the texts that a keyword filter searches in a posting."""
    return postings.keywords(msgspec.structs.asdict(_members(json_text)))


def record(number: int, json_text: bytes, *, v1: bool) -> bytes:
    """Returns the record of a posting as JSON; `number` is its record id.

    Values that the board does not have, such as the number of applicants or the redirect target of
    a link, are null. The board has one date per posting, `date_posted`, and uses it for both times
    at which the vendor first and last saw the posting. `url` is the posting's page on its job board
    or, if there is none, the application link, which is also `external_url`; `hash` is the MD5 of
    `url`. `deleted` is always 0, because the board keeps no removed postings. `v1` selects the
    older of the contract's two shapes.
    """
    found = _members(json_text)
    day = _text(found.date_posted)
    seen = f"{day} 00:00:00" if day and filters.is_day(day) else None
    slug, url = _text(found.company_slug), _text(found.job_board_link)
    url = url or _text(found.application_link)
    company = found.company_data if isinstance(found.company_data, dict) else {}
    fields = {
        "id": number,
        "created": seen,
        "last_updated": seen,
        "time_posted": day,
        "title": _text(found.job_title),
        "description": _text(found.description),
        "seniority": _text(found.experience_level),
        "employment_type": ", ".join(_texts(found.job_type)) or None,
        "location": _location(found) or None,
        "country": _text(_first_place(found).get("country")),
        "url": url,
        "hash": _md5(url),
        "company_id": company_id(key(_storable(_text(found.company_name) or ""))),
        "company_name": _text(found.company_name),
        "company_url": f"{PROFILE_URL_PREFIX}{slug}" if slug else None,
        "external_url": _text(found.application_link),
        "application_active": int(found.expired is not True),
        "deleted": 0,
        "salary": _salary(found.salary_range),
        "applicants_count": None,
        "linkedin_job_id" if v1 else "professional_network_job_id": number,
        "job_industry_collection": [
            {"job_industry_list": {"industry": name}} for name in _texts(company.get("industries"))
        ],
    }
    if not v1:
        fields |= {
            "job_functions_collection": [
                {"job_function_list": {"function": name}} for name in _texts(found.job_categories)
            ],
            "last_updated_ux": _seconds(seen),
            "redirected_url": None,
            "redirected_url_hash": None,
        }
    try:
        return orjson.dumps(fields)
    except TypeError:  # half of a surrogate pair, which has no UTF-8 encoding
        return json.dumps(fields).encode()


def normalize_site(address: str) -> str:
    """Returns a web address in lower case, without scheme, `www.` and trailing slashes.

    >>> normalize_site("https://www.Example.com/jobs/") == normalize_site("example.com/jobs")
    True
    """
    bare = address.strip().casefold().rpartition("://")[2]
    return bare.removeprefix("www.").rstrip("/")


def _members(json_text: bytes) -> _Members:
    try:
        return _decode(json_text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Very long integers and halves of surrogate pairs: the board accepts and keeps both.
        found: Mapping[str, Any] = json.loads(json_text, parse_int=str, parse_float=str)
        known = {name: found[name] for name in _Members.__struct_fields__ if name in found}
        return _Members(**known)


def _number(text: str, kind: bytes) -> int:
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8, person=kind).digest()
    return int.from_bytes(digest) >> 11 or 1


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _storable(text: str) -> str:
    """Returns the text with `?` for each half of a surrogate pair, which SQLite cannot store."""
    return text.encode(errors="replace").decode()


def _texts(value: Any) -> list[str]:
    entries: Iterable[Any] = value if isinstance(value, list) else [value]
    return [one for one in entries if isinstance(one, str) and one]


def _first_place(found: _Members) -> Mapping[str, Any]:
    listed = found.locations if isinstance(found.locations, list) else []
    return listed[0] if listed and isinstance(listed[0], dict) else {}


def _location(found: _Members) -> str:
    if raw := _text(found.location_raw):
        return raw
    place = _first_place(found)
    return ", ".join(filter(None, (_text(place.get(n)) for n in ("city", "region", "country"))))


def _website(found: _Members) -> str:
    """Returns the normalized address of the company's site.

    If the posting has no company link, returns the domain of its contact email address; if that is
    missing, too, an empty text.
    """
    return normalize_site(
        _text(found.company_link) or (_text(found.contact_email) or "").rpartition("@")[2]
    )


def _salary(value: Any) -> str | None:
    pay = value if isinstance(value, dict) else {}
    bounds = [str(pay[n]) for n in ("min", "max") if type(pay.get(n)) in (int, float, str)]
    if not bounds:
        return None
    words = [" - ".join(bounds), _text(pay.get("currency"))]
    if period := _text(pay.get("period")):
        words.append(f"per {period}")
    return " ".join(filter(None, words))


def _md5(url: str | None) -> str | None:
    if url is None:
        return None
    return hashlib.md5(url.encode(errors="replace"), usedforsecurity=False).hexdigest()


def _seconds(moment: str | None) -> int | None:
    if moment is None:
        return None
    return int(timestamps.parse(moment).timestamp())

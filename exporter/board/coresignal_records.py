"""The board's postings as records of the Coresignal contract."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import orjson

from exporter.board import postings
from exporter.board.postings import key
from exporter.contracts import filters

PROFILES = "https://www.professional-network.com/company/"
"""Where the vendor's documentation shows company profiles; the company's slug follows."""


class Entry(NamedTuple):
    """What a search by this contract needs to know of a posting beside its other columns."""

    record_id: int
    number: int
    location: str
    website: str


class _Members(msgspec.Struct):
    """The members that a record is made of, each of any type; the others are passed over."""

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
    """The number of the posting with that id, the same on every board: 53 bits, which every
    reader of JSON keeps."""
    return _number(identity, b"posting")


@functools.lru_cache(maxsize=10_000)
def company_id(company: str) -> int | None:
    """The number of the company with that `key`; a posting without company has none."""
    return _number(company, b"company") if company else None


def entry(number: int, identity: str, json_text: bytes) -> Entry:
    """What is stored of the posting with that number on the board and that id."""
    found = _members(json_text)
    location, website = _storable(_location(found)), _storable(_website(found))
    return Entry(record_id(identity), number, location, website)


def keywords(json_text: bytes) -> str:
    """The texts in which a posting's keywords are looked for."""
    return postings.keywords(msgspec.structs.asdict(_members(json_text)))


def record(number: int, json_text: bytes, *, v1: bool) -> bytes:
    """The record of the posting with that record id, as JSON.

    What the board does not know is null: how many applied, whither a link redirects. It knows one
    date of a posting, its `date_posted`, which stands in for the times at which the vendor first
    and last saw it. `url` is the posting's page on its job board or, if there is none, the link to
    apply, which is also `external_url`; `hash` is the MD5 of `url`. `deleted` is always 0: the
    board forgets postings that are taken out. `v1` says the older of the contract's two shapes.
    """
    found = _members(json_text)
    day = _text(found.date_posted)
    seen = f"{day} 00:00:00" if day and filters.is_day(day) else None
    slug, url = _text(found.company_slug), _text(found.job_board_link)
    url = url or _text(found.application_link)
    company = found.company_data if isinstance(found.company_data, dict) else {}
    told = {
        "id": number,
        "created": seen,
        "last_updated": seen,
        "time_posted": day,
        "title": _text(found.job_title),
        "description": _text(found.description),
        "seniority": _text(found.experience_level),
        "employment_type": ", ".join(_texts(found.job_type)) or None,
        "location": _location(found) or None,
        "country": _country(found),
        "url": url,
        "hash": _md5(url),
        "company_id": company_id(key(_storable(_text(found.company_name) or ""))),
        "company_name": _text(found.company_name),
        "company_url": f"{PROFILES}{slug}" if slug else None,
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
        told |= {
            "job_functions_collection": [
                {"job_function_list": {"function": name}} for name in _texts(found.job_categories)
            ],
            "last_updated_ux": _seconds(seen),
            "redirected_url": None,
            "redirected_url_hash": None,
        }
    try:
        return orjson.dumps(told)
    except TypeError:  # half of a surrogate pair, which has no UTF-8
        return json.dumps(told).encode()


def site(address: str) -> str:
    """Equal for two spellings of one web address: without scheme, www and a slash at the end.

    >>> site("https://www.Example.com/jobs/") == site("example.com/jobs")
    True
    """
    bare = address.strip().casefold().rpartition("://")[2]
    return bare.removeprefix("www.").rstrip("/")


def _members(json_text: bytes) -> _Members:
    try:
        return _decode(json_text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Integers without end and halves of surrogate pairs: the board keeps what it was given.
        found: Mapping[str, Any] = json.loads(json_text, parse_int=str, parse_float=str)
        known = {name: found[name] for name in _Members.__struct_fields__ if name in found}
        return _Members(**known)


def _number(text: str, kind: bytes) -> int:
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=8, person=kind).digest()
    return int.from_bytes(digest) >> 11 or 1


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _storable(text: str) -> str:
    """The text without halves of surrogate pairs, which no column takes."""
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


def _country(found: _Members) -> str | None:
    return _text(_first_place(found).get("country"))


def _website(found: _Members) -> str:
    """The company's site; if none is stated, that of the address to which applicants write."""
    return site(_text(found.company_link) or (_text(found.contact_email) or "").rpartition("@")[2])


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
    return int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp())

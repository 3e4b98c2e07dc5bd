"""Parses postings: the complete JSON text and the column values that searches use."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from exporter.contracts import filters, hirebase

BAY_AREA = frozenset(
    {
        *("alameda", "berkeley", "cupertino", "daly city", "fremont", "hayward", "menlo park"),
        *("milpitas", "mountain view", "oakland", "palo alto", "redwood city", "richmond"),
        *("san bruno", "san francisco", "san jose", "san leandro", "san mateo", "san ramon"),
        *("santa clara", "south san francisco", "sunnyvale", "walnut creek"),
    }
)
_CALIFORNIA = frozenset({"", "ca", "california"})


class Digits(str):
    """A JSON number as its original text, because a float would change 1.10 or 2**70."""

    __slots__ = ()


class Place(NamedTuple):
    """Place of a posting; every text is a comparison key, see `key`."""

    city: str
    region: str
    country: str
    address: str
    parts: str
    longitude: float | None
    latitude: float | None


class Columns(NamedTuple):
    """Values of a posting for filters and sorting; several texts in one value are `|a|b|`."""

    company: str
    company_slug: str
    job_slug: str
    job_board: str
    posted: str
    expired: bool
    salary_min: float | None
    salary_max: float | None
    currency: str
    period: str
    yoe_min: float | None
    yoe_max: float | None
    experience: str
    job_types: str
    location_types: str
    job_category: str
    industry: str
    sub_industry: str
    visa: bool
    agency: bool
    incomplete: bool
    size_min: float | None
    size_max: float | None
    location_group: str


class Posting(NamedTuple):
    """A posting as the board stores it; `json` is served byte for byte."""

    id: str
    json: bytes
    columns: Columns
    places: tuple[Place, ...]
    title: str
    words: str
    company_words: str


@functools.lru_cache(maxsize=10_000)
def key(text: str) -> str:
    """Returns a comparison key, equal for texts that differ only in case and white space.

    >>> key(" San  JOSE") == key("san jose")
    True
    """
    return " ".join(text.casefold().split()).replace("|", "\x1f")


@functools.lru_cache(maxsize=10_000)
def label_key(filter_name: str, text: str) -> str:
    """Returns a comparison key that is equal for all spellings of a label.

    For example, `Full Time` and `full-time` have the same key. `filter_name` is the filter of the
    Hirebase contract to which the label belongs.
    """
    return filters.fold(hirebase.label(filter_name, text)) or key(text)


def from_line(line: bytes) -> Posting:
    """Parses one line of JSON Lines; the posting keeps every original member byte for byte.

    The served object is the original text with additional members in front. These are members of
    the vendor's posting object that the line lacks and that have a common name:

    - `_id` from `id`, `job_title` from `title`, `application_link` from `url`, `job_type` from
      `employment_type`.
    - `company_name` and `company_slug` from `company`.
    - `location_raw` and `locations` from `location` (a text).
    - `salary_range` {min, max, currency, period} from `salary` {min, max, currency, text}.
    - `date_posted` from `posted_at` if that is a date, else null.
    - `location_type: ["Remote"]` from `is_remote: true`.
    - `skills`, which keyword filters search, from `tags` (a list of texts).

    A member that already has the vendor's name is not changed, whatever its value.

    Raises ValueError with the reason for a line that is not a JSON object or has no valid id.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from error
    try:
        original = json.loads(
            text, parse_int=Digits, parse_float=Digits, parse_constant=_reject_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error
    if not isinstance(original, dict):
        kind = type(original).__name__
        raise ValueError(f"an object is needed, this is a {kind}")  # noqa: TRY004 - bad data
    added = _missing_members(original)
    identity = added.get("_id", original.get("_id"))
    if not isinstance(identity, str) or not identity:
        raise ValueError('no id: "_id" or "id" should be a non-empty text or a number')
    if _text(str(identity)) != identity:
        raise ValueError("the id contains half of a surrogate pair")
    body = text.strip(" \t\r\n")[1:]
    front = ",".join(f"{json.dumps(name)}:{_encode(value)}" for name, value in added.items())
    whole = f"{{{front},{body}" if front else f"{{{body}"
    return posting(str(identity), whole.encode(), {**original, **added})


def posting(identity: str, text: bytes, members: Mapping[str, Any]) -> Posting:
    """Returns the posting with this id, given its JSON text and its decoded members.

    A member may have any type; a member of an unexpected type is treated like a missing member.
    """
    company = _object(members.get("company_data"))
    places = tuple(_places(members))
    title, description = _text(members.get("job_title")), _text(members.get("description"))
    name = _text(members.get("company_name"))
    pay, years = _object(members.get("salary_range")), _object(members.get("yoe_range"))
    size = _object(company.get("size_range"))
    day = _text(members.get("date_posted"))
    columns = Columns(
        company=key(name),
        company_slug=key(_text(members.get("company_slug"))),
        job_slug=key(_text(members.get("job_slug"))),
        job_board=key(_text(members.get("job_board"))),
        posted=day if filters.is_day(day) else "",
        expired=members.get("expired") is True,
        salary_min=_number(pay.get("min")),
        salary_max=_number(pay.get("max")),
        currency=_text(pay.get("currency")).upper(),
        period=filters.fold(_text(pay.get("period"))),
        yoe_min=_number(years.get("min")),
        yoe_max=_number(years.get("max")),
        experience=label_key("experience", _text(members.get("experience_level"))),
        job_types=_labels("job_types", members.get("job_type")),
        location_types=_labels("location_types", members.get("location_type")),
        job_category=_join_keys(members.get("job_categories")),
        industry=_join_keys(company.get("industries")),
        sub_industry=_join_keys(company.get("subindustries")),
        visa=members.get("visa_sponsored") is True,
        agency=members.get("recruiter_agency") is True
        or company.get("is_recruiting_agency") is True,
        incomplete=not (title and name and description),
        size_min=_number(size.get("min")),
        size_max=_number(size.get("max")),
        location_group=_location_group(members, places),
    )
    about = [_text(company.get("description_summary")), *_texts(company.get("services"))]
    return Posting(identity, text, columns, places, title, keywords(members), " \n".join(about))


def keywords(members: Mapping[str, Any]) -> str:
    """Returns the texts of a posting that keyword filters search, joined to one text."""
    words = [_text(members.get("description")), _text(members.get("requirements"))]
    for name in ("technologies", "skills", "benefits"):
        words += _texts(members.get(name))
    return " \n".join(words)


def labels(document: bytes) -> dict[str, list[str]]:
    """Maps `job_category`, `industry` and `sub_industry` to the labels of a posting.

    `document` is the JSON text of the posting, whose spelling is kept.
    """
    members = _object(json.loads(document, parse_int=Digits, parse_float=Digits))
    company = _object(members.get("company_data"))
    return {
        "job_category": _texts(members.get("job_categories")),
        "industry": _texts(company.get("industries")),
        "sub_industry": _texts(company.get("subindustries")),
    }


def _reject_constant(name: str) -> None:
    raise ValueError(f"not JSON: {name} is not a number")


def _missing_members(original: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the Hirebase fields that a posting lacks, as far as its other fields give them.

    A loaded posting may use the field names `title`, `company` and so on; see `from_line`.
    """
    found: dict[str, Any] = {}
    if isinstance(original.get("id"), str):
        found["_id"] = str(original["id"])
    for name, other in (
        ("job_title", "title"),
        ("company_name", "company"),
        ("location_raw", "location"),
        ("application_link", "url"),
    ):
        if other in original and (original[other] is None or type(original[other]) is str):
            found[name] = original[other]
    if words := re.findall(r"\w+", _text(found.get("company_name"))):
        found["company_slug"] = "-".join(words).casefold()
    if _text(original.get("location")):
        found["locations"] = [_parse_location(original["location"])]
    if "salary" in original:
        found["salary_range"] = _salary(original["salary"])
    if "posted_at" in original:
        found["date_posted"] = _date_of(_text(original["posted_at"]))
    if original.get("is_remote") is True:
        found["location_type"] = ["Remote"]
    if _texts(original.get("employment_type")):
        found["job_type"] = _texts(original["employment_type"])
    tags = original.get("tags")
    if isinstance(tags, list) and all(type(tag) is str for tag in tags):
        found["skills"] = tags
    return {name: value for name, value in found.items() if name not in original}


def _parse_location(location: str) -> dict[str, str]:
    parts = [part.strip() for part in location.split(",")]
    place = {"address": location}
    # Two parts are ambiguous (city and region, or city and country), three parts are not.
    if len(parts) == 3 and all(parts):
        place.update(zip(("city", "region", "country"), parts, strict=True))
    return place


def _salary(salary: Any) -> dict[str, Any] | None:
    if not isinstance(salary, dict):
        return None
    bounds = {name: salary.get(name) for name in ("min", "max")}
    return {
        **{name: bound if type(bound) is Digits else None for name, bound in bounds.items()},
        "currency": _text(salary.get("currency")) or None,
        "period": _text(salary.get("text")) or None,
    }


def _date_of(moment: str) -> str | None:
    day, rest = moment[:10], moment[10:]
    return day if filters.is_day(day) and (not rest or rest[0] in "T ") else None


def _encode(value: Any) -> str:
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f'"{name}":{_encode(item)}' for name, item in value.items()) + "}"
    # ASCII escapes, because half of a surrogate pair has no UTF-8 encoding.
    return json.dumps(value)


def _text(value: Any) -> str:
    if type(value) is not str:
        return ""
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        # SQLite cannot store half of a surrogate pair in a column; the served text keeps it.
        return value.encode(errors="replace").decode()
    return value


def _texts(value: Any) -> list[str]:
    if type(value) is str:
        return [_text(value)]
    return [_text(entry) for entry in value if type(entry) is str] if type(value) is list else []


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Digits):
        return None
    try:
        number = float(value)
    except OverflowError:  # an int that is too large; Digits that are too large become infinity
        return None
    return number if math.isfinite(number) else None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _join_keys(value: Any) -> str:
    return _keys(tuple(_texts(value))) if value else ""


@functools.lru_cache(maxsize=10_000)
def _keys(entries: tuple[str, ...]) -> str:
    return f"|{'|'.join(key(entry) for entry in entries)}|" if entries else ""


def _labels(filter_name: str, value: Any) -> str:
    return _label_keys(filter_name, tuple(_texts(value))) if value else ""


@functools.lru_cache(maxsize=10_000)
def _label_keys(filter_name: str, entries: tuple[str, ...]) -> str:
    return f"|{'|'.join(label_key(filter_name, entry) for entry in entries)}|" if entries else ""


def _places(members: Mapping[str, Any]) -> list[Place]:
    entries = members.get("locations")
    found = []
    for entry in entries if isinstance(entries, list) else []:
        place = _object(entry)
        point = _object(place.get("coordinates")).get("coordinates")
        longitude, latitude = (
            (_number(point[0]), _number(point[1]))
            if isinstance(point, list) and len(point) == 2
            else (None, None)
        )
        names = (_text(place.get(name)) for name in ("city", "region", "country", "address"))
        found.append(Place(*_place_keys(*names), longitude, latitude))
    return found


@functools.lru_cache(maxsize=10_000)
def _place_keys(
    city: str, region: str, country: str, address: str
) -> tuple[str, str, str, str, str]:
    parts = "" if city or region or country else _join_keys(address.split(","))
    return key(city), key(region), key(country), key(address), parts


def _location_group(members: Mapping[str, Any], places: tuple[Place, ...]) -> str:
    if given := _text(members.get("location_group")):
        return filters.fold(given)
    inside = any(place.city in BAY_AREA and place.region in _CALIFORNIA for place in places)
    return "bayarea" if inside else ""

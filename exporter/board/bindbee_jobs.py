"""Converts postings to Bindbee's AtsJob objects."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from exporter.board import members, names
from exporter.board.members import Members
from exporter.board.search import Condition

RELATIONS = ("departments", "offices", "hiring_managers", "recruiters")
_RELATION = re.compile(r"(\w+)(?:\[(\w+(?:,\w+)*)\])?(?:,(?=\w)|$)")
_CUSTOM_FIELDS = (
    *("salary_range", "yoe_range", "experience_level", "education_level", "technologies"),
    *("skills", "benefits", "offers_equity", "company_name"),
)


class RequestedFields(NamedTuple):
    """The optional parts of a job object that the client requested."""

    relations: Mapping[str, Sequence[str] | None]
    """Maps each relation that is returned as objects instead of ids to the fields of the objects.

    None instead of a list of fields means all fields.
    """
    raw_data: bool
    custom_fields: bool


class StoredPosting(NamedTuple):
    """A posting with the values of its columns that its job object needs."""

    uuid: bytes
    number: int
    id: str
    expired: bool
    posted: str
    json: bytes
    modified_at: str


def parse_expand(text: str) -> dict[str, Sequence[str] | None]:
    """Maps each relation in an `expand` parameter to its listed fields, or to None: all fields.

    >>> parse_expand("offices[id,name],recruiters")
    {'offices': ['id', 'name'], 'recruiters': None}

    Raises ValueError with the valid syntax if the text does not match it.
    """
    found: dict[str, Sequence[str] | None] = {}
    at = 0
    while at < len(text) or not text:
        match = _RELATION.match(text, at)
        if match is None or match[1] not in RELATIONS:
            raise ValueError(
                f"Input should be relations out of {', '.join(RELATIONS)}, each with its fields "
                "in [] if only some are wanted, separated by commas without spaces"
            )
        found[match[1]] = match[2].split(",") if match[2] else None
        at = match.end()
    return found


def find(connection: sqlite3.Connection, condition: Condition, limit: int) -> list[StoredPosting]:
    """Returns the first `limit` postings, ordered by uuid, that match the condition.

    The condition may use `uuid`, `number` and the columns of `postings`.
    """
    # The join starts at `names`, whose key is the order, so SQLite stops reading at the limit.
    rows = connection.execute(
        "SELECT uuid, number, id, expired, posted, json,"  # noqa: S608 - values are bound
        f" {names.WRITE_TIME_SQL.format('names.number')}"
        " FROM names CROSS JOIN postings USING (number) CROSS JOIN documents USING (number)"
        f" WHERE {condition.sql} ORDER BY uuid LIMIT ?",
        (*condition.values, limit),
    )
    return [StoredPosting(*row) for row in rows]


def job_objects(
    connection: sqlite3.Connection, found: Sequence[StoredPosting], wanted: RequestedFields
) -> list[bytes]:
    """Returns the AtsJob objects of these postings as JSON texts, in the same order.

    A posting's `team` is its department, its places are its offices, and the owner of its
    `contact_email` is its recruiter; a posting has no hiring managers. An absent relation is null,
    whether it is requested as objects or as ids. The custom fields, if they are requested, are some
    members of the posting for which AtsJob has no field.
    """
    offices = _offices(connection, found)
    return [_job_object(one, offices.get(one.number, []), wanted) for one in found]


def _job_object(
    found: StoredPosting, offices: Sequence[tuple[int, bytes]], wanted: RequestedFields
) -> bytes:
    known = members.decode(found.json)
    link = members.text_or_none(known.application_link)
    at = found.modified_at
    job: dict[str, Any] = {
        "id": names.format_uuid(found.uuid),
        "remote_id": found.id,
        "modified_at": at,
        "custom_fields": None,
        "name": members.text_or_none(known.job_title),
        "description": members.text_or_none(known.description),
        "code": members.text_or_none(known.job_slug),
        "status": "CLOSED" if found.expired else "OPEN",
        "job_posting_urls": [{"value": link, "url_type": "JOB_POSTING"}] if link else None,
        "remote_created_at": members.start_of_day(found.posted),
        "remote_updated_at": at,
        "confidential": False,
        "departments": _relation("departments", _departments(known), at, wanted),
        "offices": _relation("offices", _office_objects(known, offices, wanted), at, wanted),
        "hiring_managers": None,
        "recruiters": _relation("recruiters", _recruiters(known), at, wanted),
    }
    if wanted.custom_fields:
        job["custom_fields"] = {name: getattr(known, name) for name in _CUSTOM_FIELDS}
    if wanted.raw_data:
        job["raw_data"] = msgspec.Raw(found.json)
    return msgspec.json.encode(job)


def _relation(
    name: str, related: Sequence[Mapping[str, Any]], modified_at: str, wanted: RequestedFields
) -> list[Any] | None:
    if not related:
        return None
    if name not in wanted.relations:
        return [one["id"] for one in related]
    shared = {"remote_id": None, "modified_at": modified_at, "custom_fields": None}
    whole = [{"id": one["id"], **shared, **one} for one in related]
    fields = wanted.relations[name]
    if fields is None:
        return whole
    return [{field: one[field] for field in fields if field in one} for one in whole]


def _departments(known: Members) -> list[dict[str, Any]]:
    department = _related_id("department", bytes(known.team))
    return [{"id": department, "name": known.team}] if department else []


def _recruiters(known: Members) -> list[dict[str, Any]]:
    recruiter = _related_id("user", bytes(known.contact_email))
    if recruiter is None:
        return []
    user = {
        "id": recruiter,
        "first_name": None,
        "last_name": None,
        "email": known.contact_email,
        "disabled": False,
        "remote_created_at": None,
        "access_role": "RECRUITER",
    }
    return [user]


@functools.lru_cache(maxsize=10_000)
def _related_id(kind: str, value: bytes) -> str | None:
    """Returns the id of a related object, such as a department, whose name is the JSON `value`.

    Objects of the same kind with the same name have the same id. Returns None if `value` is not a
    JSON string or is blank.
    """
    if not value.startswith(b'"') or not json.loads(value).strip():
        return None
    return names.format_uuid(names.uuid_of(kind, value.decode()))


def _office_objects(
    known: Members, offices: Sequence[tuple[int, bytes]], wanted: RequestedFields
) -> list[dict[str, Any]]:
    places: list[Any] = []
    if offices and "offices" in wanted.relations:
        places = json.loads(bytes(known.locations))
    return [
        {"id": names.format_uuid(office), **(_office_fields(places[nth]) if places else {})}
        for nth, office in offices
    ]


def _office_fields(place: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    named = [place.get(part) for part in ("city", "region", "country")]
    parts = [part for part in named if isinstance(part, str) and part.strip()]
    address = place.get("address")
    whole = address if isinstance(address, str) and address.strip() else ", ".join(parts)
    name = parts[0] if parts else whole
    return {"name": members.encode(name), "location": members.encode(whole)}


def _offices(
    connection: sqlite3.Connection, found: Sequence[StoredPosting]
) -> dict[int, list[tuple[int, bytes]]]:
    """Maps the numbers of these postings to their offices, each office once.

    An office is its index in the posting's `locations`, and its uuid. A posting without places is
    missing in the result.
    """
    rows = connection.execute(
        "SELECT number, place, city, region, country, address FROM places"
        " WHERE number IN (SELECT value FROM json_each(?)) ORDER BY number, place",
        (json.dumps([one.number for one in found]),),
    )
    offices: dict[int, list[tuple[int, bytes]]] = {}
    for number, nth, *parts in rows:
        office = names.office_of(names.Office(*parts))
        known = offices.setdefault(number, [])
        if office is not None and office not in [one for _, one in known]:
            known.append((nth, office))
    return offices

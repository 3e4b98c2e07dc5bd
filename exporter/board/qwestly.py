"""Qwestly API of the board: pages by number, full-text search, single jobs."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from fastapi import APIRouter, Response

from exporter.board import answers, members, names, results, words
from exporter.board.postings import key, label_key
from exporter.board.search import Condition, all_of
from exporter.contracts import hirebase

PREFIX = "/api/external/search/jobs"
MAX_PAGE_SIZE = 200
"""Maximum jobs per page."""
_TITLE_WEIGHT, _COMPANY_WEIGHT, _BODY_WEIGHT = 4, 2, 1
"""Scores of a word that is found in a job's title, its company's name, or its keyword texts."""


def router(pages: results.Results) -> APIRouter:
    """Returns the routes `GET /api/external/search/jobs` and `GET …/{jobId}` of the vendor.

    A posting is `active` until it is `expired`; no posting of the board has another status.
    `job_family` and `location_type` are a posting's first category and first location type; filters
    match their whole value in any case. A full-text search finds postings with at least one of the
    words, like the text search of the vendor's database. The vendor does not document the ranking.
    Here a posting scores once for each word and each text that contains the word, with the highest
    score for the title. An empty parameter is the same as an absent one.
    """
    routes = APIRouter()

    @routes.get(PREFIX)
    def jobs_page(
        page: str = "",
        limit: str = "",
        status: str = "",
        company_id: str = "",
        job_family: str = "",
        location_type: str = "",
        search: str = "",
    ) -> Response:
        number, size = _parse_number(page or "1"), _parse_number(limit or "50")
        if number < 1:
            return _error(400, "Invalid page: it must be an integer of 1 or more")
        if not 1 <= size <= MAX_PAGE_SIZE:
            return _error(400, f"Invalid limit: it must be an integer from 1 to {MAX_PAGE_SIZE}")
        company = company_id.casefold()
        if company and not names.is_object_id(company):
            return _error(400, "Invalid company_id format")
        asked = _Query(status or "active", company, key(job_family), location_type, search.strip())
        with pages.snapshot() as connection:
            numbers = pages.numbers(
                connection, f"qwestly {json.dumps(asked)}", lambda: _find(connection, asked)
            )
            jobs = _jobs_of(connection, numbers[(number - 1) * size : number * size].tolist())
        pagination = {
            "totalCount": len(numbers),
            "totalPages": -(-len(numbers) // size),
            "currentPage": number,
            "limit": size,
        }
        answer = {"success": True, "data": jobs, "pagination": pagination}
        return answers.json_response(msgspec.json.encode(answer))

    @routes.get(PREFIX + "/{job_id}")
    def one(job_id: str) -> Response:
        wanted = job_id.casefold()
        if not names.is_object_id(wanted):
            return _error(400, "Invalid jobId format")
        with pages.snapshot() as connection:
            number = _number(connection, wanted)
            jobs = _jobs_of(connection, [] if number is None else [number])
        if not jobs:
            return _error(404, "Job not found")
        return answers.json_response(msgspec.json.encode({"success": True, "data": jobs[0]}))

    return routes


def error_response(status: int) -> Response:
    """Returns the error response of this contract for 401 (no valid key) or 500 (a crash)."""
    if status == 401:
        return answers.json_response(b"null", 401)
    return _error(status, "Internal server error", details="See the board's log for the cause")


class _Query(NamedTuple):
    status: str
    company_id: str
    job_family: str
    location_type: str
    search: str


def _parse_number(text: str) -> int:
    """Converts a text of 1 to 18 digits to a number; returns -1 for any other text."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else -1


def _error(status: int, message: str, **more: str) -> Response:
    return answers.json_response(json.dumps({"error": message, **more}).encode(), status)


def _find(connection: sqlite3.Connection, asked: _Query) -> Iterator[int]:
    connection.create_function("object_id", 1, names.object_id, deterministic=True)
    connection.create_function("company_object_id", 1, names.company_id, deterministic=True)
    connection.create_function("has_word", 2, _has_word, deterministic=True)
    condition = all_of(_conditions(asked))
    scores, score, values = "", "", condition.values
    if asked.search:
        scores, score = f"{_SCORES} CROSS JOIN", "score DESC,"
        found = dict.fromkeys(words.tokens(asked.search))
        values = (json.dumps(list(found)), *values)
    # Order: score, then the latest write time, then the object id.
    rows = connection.execute(
        f"SELECT number FROM {scores} postings {'USING (number)' if scores else ''}"  # noqa: S608
        f" WHERE {condition.sql} ORDER BY {score}"
        " (SELECT max(moments.number) FROM moments WHERE moments.number <= postings.number) DESC,"
        " object_id(id)",
        values,
    )
    return (number for (number,) in rows)


_SCORES = f"""
(WITH asked AS (SELECT value AS word, '"' || value || '"' AS quoted FROM json_each(?)),
hits AS (
    SELECT titles.rowid AS number, {_TITLE_WEIGHT} AS weight
        FROM asked CROSS JOIN titles ON titles.titles MATCH quoted
    UNION ALL
    SELECT words.rowid, {_BODY_WEIGHT} FROM asked CROSS JOIN words ON words.words MATCH quoted
    UNION ALL
    SELECT postings.number, {_COMPANY_WEIGHT}
        FROM asked CROSS JOIN postings ON has_word(postings.company, word)
)
SELECT number, sum(weight) AS score FROM hits GROUP BY number)
"""  # noqa: S608 - numbers of ours


def _conditions(asked: _Query) -> Iterator[Condition]:
    yield Condition({"active": "NOT expired", "expired": "expired"}.get(asked.status, "0"))
    if asked.company_id:
        yield Condition("company_object_id(company) = ?", (asked.company_id,))
    if asked.job_family:
        yield _first_label_is("job_category", asked.job_family)
    if asked.location_type:
        yield _first_label_is("location_types", label_key("location_types", asked.location_type))


def _first_label_is(column: str, value: str) -> Condition:
    start = f"|{value}|"
    return Condition(f"substr({column}, 1, ?) = ?", (len(start), start))


def _has_word(company: str, word: str) -> bool:
    return word in _words_of(company)


@functools.lru_cache(maxsize=10_000)
def _words_of(company: str) -> frozenset[str]:
    return frozenset(words.tokens(company))


def _number(connection: sqlite3.Connection, wanted: str) -> int | None:
    """Returns the board's number of the posting with this object id; None if there is none."""
    own = connection.execute("SELECT number FROM postings WHERE id = ?", (wanted,)).fetchone()
    if own:
        return int(own[0])
    first = bytes.fromhex(wanted)
    # A derived object id is the first 12 bytes of the posting's uuid.
    rows = connection.execute(
        "SELECT number, id FROM names JOIN postings USING (number) WHERE uuid BETWEEN ? AND ?",
        (first + bytes(4), first + b"\xff" * 4),
    )
    return next((number for number, identity in rows if names.object_id(identity) == wanted), None)


def _jobs_of(connection: sqlite3.Connection, numbers: list[int]) -> list[dict[str, Any]]:
    """Returns the vendor's job objects of postings, in the order of `numbers`.

    Members that the board's postings do not have are null, and lists without a source are empty.
    """
    rows = connection.execute(
        "SELECT number, id, expired, posted, company, job_category, location_types, job_types,"  # noqa: S608
        f" json, {names.WRITE_TIME_SQL.format('postings.number')}"
        " FROM postings JOIN documents USING (number)"
        " WHERE number IN (SELECT value FROM json_each(?))",
        (json.dumps(numbers),),
    )
    jobs = {number: _job(_Row(*row)) for number, *row in rows}
    return [jobs[number] for number in numbers]


class _Row(NamedTuple):
    id: str
    expired: bool
    posted: str
    company: str
    job_category: str
    location_types: str
    job_types: str
    json: bytes
    written_at: str


def _job(row: _Row) -> dict[str, Any]:
    known = members.decode(row.json)
    return {
        "_id": names.object_id(row.id),
        "source_id": row.id,
        "status": "expired" if row.expired else "active",
        "title": members.text_or_none(known.job_title),
        "location": _locations(bytes(known.locations)),
        "location_type": _label("location_types", row.location_types),
        "employment_type": _label("job_types", row.job_types),
        "company_name": members.text_or_none(known.company_name),
        "company_id": names.company_id(row.company),
        "org_unit_name": None,
        "org_unit_id": None,
        "parent_org_id": None,
        "exploratory_job_id": None,
        "job_family": _label("job_family", row.job_category),
        "is_epd": None,
        "has_equity": members.bool_or_none(known.offers_equity),
        "equity_details": None,
        "benefits": _benefits(bytes(known.benefits)),
        "compensation": members.object_or_none(known.salary_range),
        "team": members.text_or_none(known.team),
        "description": members.text_or_none(known.description),
        "responsibilities": [],
        "must_have": {
            "skills": members.list_or_none(known.skills),
            "technologies": members.list_or_none(known.technologies),
            "experience": members.object_or_none(known.yoe_range),
        },
        "nice_to_have": None,
        "metadata": {
            "application_link": members.text_or_none(known.application_link),
            "job_board": members.text_or_none(known.job_board),
            "company_data": members.object_or_none(known.company_data),
        },
        "hm_additional_info": None,
        "llm_role_summary": members.text_or_none(known.requirements_summary),
        "is_publicly_accessible": True,
        "created_at": members.start_of_day(row.posted),
        # Milliseconds, as in the vendor's database.
        "updated_at": f"{row.written_at[:23]}Z",
    }


@functools.lru_cache(maxsize=10_000)
def _label(filter_name: str, labels: str) -> str | None:
    """Returns the first of the labels `|a|b|`; None if there are none.

    The label is converted from its comparison key to the vendor's spelling, but in lower case.
    """
    first = labels.split("|")[1] if labels else ""
    return hirebase.label(filter_name, first).casefold() or None


@functools.lru_cache(maxsize=10_000)
def _locations(raw: bytes) -> msgspec.Raw:
    texts = []
    for place in json.loads(raw) if raw.startswith(b"[") else []:
        if isinstance(place, dict):
            parts = [place.get(part) for part in ("city", "region", "country")]
            named = [part for part in parts if isinstance(part, str) and part.strip()]
            texts.append(", ".join(named) or place.get("address"))
    return members.encode([text for text in texts if isinstance(text, str)])


@functools.lru_cache(maxsize=10_000)
def _benefits(raw: bytes) -> msgspec.Raw | None:
    """Converts a JSON array of texts to one JSON string, in which `; ` separates the texts.

    Returns None if `raw` is not an array. The vendor's job object has all benefits in one text.
    """
    if not raw.startswith(b"["):
        return None
    return members.encode("; ".join(one for one in json.loads(raw) if isinstance(one, str)))

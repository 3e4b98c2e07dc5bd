"""The board as Qwestly's job search: pages by number, full-text search, single jobs."""

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
MOST = 200
"""Jobs a page."""
_TITLE, _COMPANY, _BODY = 4, 2, 1
"""What a word counts in a job's title, in its company's name and in its texts."""


def router(pages: results.Results) -> APIRouter:
    """`GET /api/external/search/jobs` and `GET …/{jobId}`, as the vendor documents them.

    A posting is `active` until it is `expired`; nothing here has another status. `job_family` and
    `location_type` are a posting's first category and its first location type, and filters compare
    them whole, in any case. A full-text search finds what has one of the words, as the text search
    of the vendor's database does; how relevant it is the vendor does not say: here each word counts
    once for each text that has it, most in the title. A blank parameter is an absent one.
    """
    routes = APIRouter()

    @routes.get(PREFIX)
    def some(
        page: str = "",
        limit: str = "",
        status: str = "",
        company_id: str = "",
        job_family: str = "",
        location_type: str = "",
        search: str = "",
    ) -> Response:
        number, size = _whole(page or "1"), _whole(limit or "50")
        if number < 1:
            return _error(400, "Invalid page: it must be an integer of 1 or more")
        if not 1 <= size <= MOST:
            return _error(400, f"Invalid limit: it must be an integer from 1 to {MOST}")
        company = company_id.casefold()
        if company and not names.is_object_id(company):
            return _error(400, "Invalid company_id format")
        asked = _Asked(status or "active", company, key(job_family), location_type, search.strip())
        with pages.state() as connection:
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
        return answers.reply(msgspec.json.encode(answer))

    @routes.get(PREFIX + "/{job_id}")
    def one(job_id: str) -> Response:
        wanted = job_id.casefold()
        if not names.is_object_id(wanted):
            return _error(400, "Invalid jobId format")
        with pages.state() as connection:
            number = _number(connection, wanted)
            jobs = _jobs_of(connection, [] if number is None else [number])
        if not jobs:
            return _error(404, "Job not found")
        return answers.reply(msgspec.json.encode({"success": True, "data": jobs[0]}))

    return routes


def refusal(status: int) -> Response:
    """What a request gets that did not come as far as the routes: 401 without a key, else 500."""
    if status == 401:
        return answers.reply(b"null", 401)
    return _error(status, "Internal server error", details="The board's log says why")


class _Asked(NamedTuple):
    status: str
    company_id: str
    job_family: str
    location_type: str
    search: str


def _whole(text: str) -> int:
    """A number in digits, -1 for anything else."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else -1


def _error(status: int, message: str, **more: str) -> Response:
    return answers.reply(json.dumps({"error": message, **more}).encode(), status)


def _find(connection: sqlite3.Connection, asked: _Asked) -> Iterator[int]:
    connection.create_function("object_id", 1, names.object_id, deterministic=True)
    connection.create_function("company_id", 1, names.company_id, deterministic=True)
    connection.create_function("has_word", 2, _has_word, deterministic=True)
    condition = all_of(_conditions(asked))
    scores, score, values = "", "", condition.values
    if asked.search:
        scores, score = f"{_SCORES} CROSS JOIN", "score DESC,"
        found = dict.fromkeys(words.tokens(asked.search))
        values = (json.dumps(list(found)), *values)
    # Of the same search, all that were written at one moment stand in the order of their ids.
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
    SELECT titles.rowid AS number, {_TITLE} AS weight
        FROM asked CROSS JOIN titles ON titles.titles MATCH quoted
    UNION ALL
    SELECT words.rowid, {_BODY} FROM asked CROSS JOIN words ON words.words MATCH quoted
    UNION ALL
    SELECT postings.number, {_COMPANY}
        FROM asked CROSS JOIN postings ON has_word(postings.company, word)
)
SELECT number, sum(weight) AS score FROM hits GROUP BY number)
"""  # noqa: S608 - numbers of ours


def _conditions(asked: _Asked) -> Iterator[Condition]:
    yield Condition({"active": "NOT expired", "expired": "expired"}.get(asked.status, "0"))
    if asked.company_id:
        yield Condition("company_id(company) = ?", (asked.company_id,))
    if asked.job_family:
        yield _first("job_category", asked.job_family)
    if asked.location_type:
        yield _first("location_types", label_key("location_types", asked.location_type))


def _first(column: str, value: str) -> Condition:
    start = f"|{value}|"
    return Condition(f"substr({column}, 1, ?) = ?", (len(start), start))


def _has_word(company: str, word: str) -> bool:
    return word in _words_of(company)


@functools.lru_cache(maxsize=10_000)
def _words_of(company: str) -> frozenset[str]:
    return frozenset(words.tokens(company))


def _number(connection: sqlite3.Connection, wanted: str) -> int | None:
    """The number of the posting with that object id."""
    own = connection.execute("SELECT number FROM postings WHERE id = ?", (wanted,)).fetchone()
    if own:
        return int(own[0])
    first = bytes.fromhex(wanted)
    # A uuid begins with the object id that was made of it.
    rows = connection.execute(
        "SELECT number, id FROM names JOIN postings USING (number) WHERE uuid BETWEEN ? AND ?",
        (first + bytes(4), first + b"\xff" * 4),
    )
    return next((number for number, identity in rows if names.object_id(identity) == wanted), None)


def _jobs_of(connection: sqlite3.Connection, numbers: list[int]) -> list[dict[str, Any]]:
    """The job objects of postings, in the order of their numbers here.

    Members that the board's postings do not have are null, lists are empty.
    """
    rows = connection.execute(
        "SELECT number, id, expired, posted, company, job_category, location_types, job_types,"  # noqa: S608
        f" json, {names.MOMENT.format('postings.number')}"
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
    known = members.of(row.json)
    return {
        "_id": names.object_id(row.id),
        "source_id": row.id,
        "status": "expired" if row.expired else "active",
        "title": members.text(known.job_title),
        "location": _locations(bytes(known.locations)),
        "location_type": _label("location_types", row.location_types),
        "employment_type": _label("job_types", row.job_types),
        "company_name": members.text(known.company_name),
        "company_id": names.company_id(row.company),
        "org_unit_name": None,
        "org_unit_id": None,
        "parent_org_id": None,
        "exploratory_job_id": None,
        "job_family": _label("job_family", row.job_category),
        "is_epd": None,
        "has_equity": members.flag(known.offers_equity),
        "equity_details": None,
        "benefits": _benefits(bytes(known.benefits)),
        "compensation": members.members(known.salary_range),
        "team": members.text(known.team),
        "description": members.text(known.description),
        "responsibilities": [],
        "must_have": {
            "skills": members.items(known.skills),
            "technologies": members.items(known.technologies),
            "experience": members.members(known.yoe_range),
        },
        "nice_to_have": None,
        "metadata": {
            "application_link": members.text(known.application_link),
            "job_board": members.text(known.job_board),
            "company_data": members.members(known.company_data),
        },
        "hm_additional_info": None,
        "llm_role_summary": members.text(known.requirements_summary),
        "is_publicly_accessible": True,
        "created_at": members.day(row.posted),
        # Milliseconds, as the vendor's database keeps them.
        "updated_at": f"{row.written_at[:23]}Z",
    }


@functools.lru_cache(maxsize=10_000)
def _label(filter_name: str, labels: str) -> str | None:
    """The first of `|a|b|`, as the vendor spells it."""
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
    return members.encoded([text for text in texts if isinstance(text, str)])


@functools.lru_cache(maxsize=10_000)
def _benefits(raw: bytes) -> msgspec.Raw | None:
    """A list of benefits as the one text that the vendor has."""
    if not raw.startswith(b"["):
        return None
    return members.encoded("; ".join(one for one in json.loads(raw) if isinstance(one, str)))

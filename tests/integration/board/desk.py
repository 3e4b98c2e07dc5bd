"""Helpers for the tests of the board: five postings, a served board, and searches on it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests import boards
from tests.boards import KEY as KEY

TODAY = datetime.now(UTC).date()

POSTINGS: list[dict[str, Any]] = [
    {
        "_id": "civil",
        "job_title": "Site/Civil Engineer",
        "company_name": "Company XYZ",
        "company_slug": "company-xyz",
        "job_slug": "civil-1",
        "job_board": "Lever",
        "description": "Draw bridges in C++ and démolish others.",
        "job_type": "Full-time",
        "location_type": "In-Person",
        "locations": [
            {
                "city": "Richmond",
                "region": "Virginia",
                "country": "United States",
                "coordinates": {"type": "Point", "coordinates": [-77.436, 37.5407]},
            }
        ],
        "date_posted": "2025-06-01",
        "salary_range": {"min": 90000, "max": 120000, "currency": "USD", "period": "year"},
        "yoe_range": {"min": 3, "max": 5},
        "experience_level": "Mid Level",
        "job_categories": ["Engineering"],
        "visa_sponsored": True,
        "company_data": {
            "industries": ["Design", "Construction"],
            "subindustries": ["Architecture"],
            "size_range": {"min": 11, "max": 50},
            "description_summary": "We span rivers.",
        },
    },
    {
        "_id": "senior",
        "job_title": "Senior Software Engineer",
        "company_name": "company xyz",
        "description": "Write C and Java.",
        "skills": ["machine learning"],
        "benefits": ["Dental plan"],
        "job_type": ["Contract", "Part Time"],
        "location_type": ["Remote"],
        "locations": [{"city": "Berlin", "country": "Germany"}],
        "date_posted": "2025-05-31",
        "salary_range": {"min": 500, "max": None, "currency": "EUR", "period": "day"},
        "yoe_range": {"min": 8},
        "experience_level": "Senior",
        "recruiter_agency": True,
    },
    {
        "_id": "nurse",
        "job_title": "Nurse, Night Shift",
        "company_name": "Klinik",
        "locations": [
            {"city": "San José", "region": "California"},
            {"city": "Oakland", "region": "CA", "country": "United States"},
        ],
        "date_posted": (TODAY - timedelta(days=2)).isoformat(),
        "description": "learning the machine by night",
        "technologies": ["machines"],
    },
    {
        "_id": "old",
        "job_title": "Engineer, Software (gone)",
        "company_name": "Zed",
        "expired": True,
        "date_posted": "2020-01-01",
        "description": "x",
    },
    {"_id": "bare"},
]
LIVE = ["civil", "senior", "nurse", "bare"]
serving = partial(boards.client, more_keys=["other"])


def lines(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(posting) + "\n" for posting in found))
    return path


def answer(client: httpx.Client, **search: Any) -> dict[str, Any]:
    response = client.post("/v2/jobs/search", json=search)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def ids(client: httpx.Client, **search: Any) -> list[str]:
    return [job["_id"] for job in answer(client, limit=100, **search)["jobs"]]


def everything(client: httpx.Client, limit: int = 100, **search: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = 1
    while jobs := answer(client, page=page, limit=limit, **search)["jobs"]:
        found += jobs
        page += 1
    return found

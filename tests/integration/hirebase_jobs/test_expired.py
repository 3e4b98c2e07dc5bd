"""Expired postings through the API: their list and its export."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.api_server import Service
from tests.integration.hirebase_jobs.desk import DAY


def test_expired_postings_are_listed_by_their_ids_page_by_page(
    jobs: Service, postings: dict[str, dict[str, Any]]
) -> None:
    # Given
    gone = {identity for identity, posting in postings.items() if posting["expired"]}

    # When
    pages = [
        jobs.http.get("/v2/jobs/expired-jobs", params={"since": DAY, "page": page, "limit": 2})
        for page in range(1, len(gone) + 1)
    ]

    # Then
    rows = [row for page in pages for row in page.json()["jobs"]]
    assert len(gone) > 2
    assert sorted(row["_id"] for row in rows) == sorted(gone)
    assert {len(row) for row in rows} == {1}
    assert {page.json()["total_count"] for page in pages} == {len(gone)}


def test_nothing_has_expired_since_tomorrow(jobs: Service) -> None:
    # Given
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    # When
    answer = jobs.http.get("/v2/jobs/expired-jobs", params={"since": tomorrow})

    # Then
    assert answer.json() == {
        "jobs": [],
        "total_count": 0,
        "page": 1,
        "limit": 100,
        "total_pages": 0,
    }


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"since": DAY, "limit": 101}, "limit"),
        ({"since": DAY, "page": 0}, "page"),
    ],
)
def test_a_wrong_question_for_the_expired_is_named(
    jobs: Service, query: dict[str, Any], place: str
) -> None:
    # When
    answer = jobs.http.get("/v2/jobs/expired-jobs", params=query)

    # Then
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["query", place]]


def test_an_export_of_the_expired_is_a_task_of_its_own_type(jobs: Service) -> None:
    # When
    body = {"since": "2026-01-01T02:00:00+02:00", "notify": False, "limit": 5}
    answer = jobs.http.post("/v2/jobs/expired-jobs/export", json=body)

    # Then
    task = answer.json()
    assert answer.status_code == 202, answer.text
    assert (task["type"], task["format"]) == ("export_expired_jobs", "json")
    assert task["input"]["query"] == {"since": "2026-01-01T00:00:00Z", "limit": 5}
    export = jobs.engine.find("ann", task["id"])
    assert export is not None
    assert export.spec.query == {"expired_since": "2026-01-01T00:00:00Z"}
    assert export.spec.limit == 5
    assert jobs.http.get(f"/v2/tasks/{task['id']}").json()["type"] == "export_expired_jobs"


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ({"since": DAY, "notify": True}, "notify", "no e-mail is sent"),
        ({"since": "soon"}, "since", "not a date or time"),
        ({}, "since", "required"),
        ({"since": DAY, "limit": 0}, "limit", "greater than or equal to 1"),
        ({"since": DAY, "format": "csv"}, "format", "unknown field"),
    ],
)
def test_a_wrong_export_of_the_expired_is_named(
    jobs: Service, body: dict[str, Any], place: str, message: str
) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/expired-jobs/export", json=body)

    # Then
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["body", place]
    assert message in problem["msg"]

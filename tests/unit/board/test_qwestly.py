"""Qwestly API of the board, tested over a real socket."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.board import database, qwestly, synthetic
from exporter.board.profiles import Profile
from tests import boards

JOBS = "/api/external/search/jobs"
OWN = "507f1f77bcf86cd799439011"
POSTINGS: list[dict[str, Any]] = [
    {
        "_id": OWN,
        "job_title": "Software Engineer",
        "company_name": "Köhler Bridges",
        "description": "Write C++ for bridges.\n\ud83d",
        "requirements_summary": "Five years.",
        "application_link": "https://jobs.example.com/1",
        "job_type": ["Full-time", "Contract"],
        "location_type": "On-site",
        "job_categories": ["Engineering", "Data"],
        "locations": [{"city": "Bonn", "country": "Germany"}, {"address": "Wien"}, "nowhere", {}],
        "salary_range": {"min": 1.10, "max": 2**70},
        "yoe_range": {"min": 5},
        "skills": ["C++"],
        "benefits": ["Dental", 7, "30 days"],
        "offers_equity": True,
        "team": "Core",
        "date_posted": "2025-06-01",
    },
    {"_id": "two", "job_title": "Bridge Painter", "company_name": "KÖHLER  bridges"},
    {"_id": "three", "job_title": "Software Painter", "location_type": ["Remote", "Hybrid"]},
    {"_id": "old", "job_title": "Software Tester", "expired": True, "job_categories": ["data"]},
    {"_id": "bare"},
]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("board") / "board.db"
    boards.load(path, POSTINGS)
    with boards.client(path) as client:
        yield client


def answer(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    response = client.get(JOBS, params=parameters)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    assert body["success"] is True
    return body


def found(client: httpx.Client, **parameters: Any) -> list[str]:
    return [job["source_id"] for job in answer(client, **parameters)["data"]]


@pytest.fixture(scope="module")
def jobs(board: httpx.Client) -> dict[str, dict[str, Any]]:
    """Returns all jobs, keyed by the id of their posting."""
    listed = answer(board)["data"] + answer(board, status="expired")["data"]
    return {job["source_id"]: job for job in listed}


@pytest.mark.external
def test_a_posting_is_shown_as_the_vendors_job_object(
    board: httpx.Client, jobs: dict[str, dict[str, Any]]
) -> None:
    # When
    job = jobs[OWN]
    # Then
    assert re.fullmatch("[0-9a-f]{24}", job["company_id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", job["updated_at"])
    assert {name: job[name] for name in job if name not in ("company_id", "updated_at")} == {
        "_id": OWN,
        "source_id": OWN,
        "status": "active",
        "title": "Software Engineer",
        "location": ["Bonn, Germany", "Wien"],
        "location_type": "in-person",
        "employment_type": "full-time",
        "company_name": "Köhler Bridges",
        "org_unit_name": None,
        "org_unit_id": None,
        "parent_org_id": None,
        "exploratory_job_id": None,
        "job_family": "engineering",
        "is_epd": None,
        "has_equity": True,
        "equity_details": None,
        "benefits": "Dental; 30 days",
        "compensation": {"min": 1.10, "max": 2**70},
        "team": "Core",
        "description": "Write C++ for bridges.\n\ud83d",
        "responsibilities": [],
        "must_have": {"skills": ["C++"], "technologies": None, "experience": {"min": 5}},
        "nice_to_have": None,
        "metadata": {
            "application_link": "https://jobs.example.com/1",
            "job_board": None,
            "company_data": None,
        },
        "hm_additional_info": None,
        "llm_role_summary": "Five years.",
        "is_publicly_accessible": True,
        "created_at": "2025-06-01T00:00:00Z",
    }
    assert str(2**70) in board.get(JOBS).text


def test_ids_are_24_hexadecimal_digits_whatever_the_postings_have(
    jobs: dict[str, dict[str, Any]],
) -> None:
    # When
    ids = {job["_id"] for job in jobs.values()}
    # Then
    assert len(ids) == len(POSTINGS)
    assert all(re.fullmatch("[0-9a-f]{24}", one) for one in ids)
    assert jobs["two"]["company_id"] == jobs[OWN]["company_id"] != jobs["three"]["company_id"]


def test_filters_really_filter(board: httpx.Client, jobs: dict[str, dict[str, Any]]) -> None:
    # Given
    company = jobs[OWN]["company_id"]
    for parameters, expected in (
        ({}, {OWN, "two", "three", "bare"}),
        ({"status": "active"}, {OWN, "two", "three", "bare"}),
        ({"status": ""}, {OWN, "two", "three", "bare"}),
        ({"status": "expired"}, {"old"}),
        ({"status": "draft"}, set()),
        ({"company_id": company}, {OWN, "two"}),
        ({"company_id": company.upper()}, {OWN, "two"}),
        ({"company_id": "f" * 24}, set()),
        ({"job_family": "Engineering"}, {OWN}),
        ({"job_family": "data"}, set()),
        ({"job_family": "data", "status": "expired"}, {"old"}),
        ({"job_family": "engineer"}, set()),
        ({"location_type": "remote"}, {"three"}),
        ({"location_type": "hybrid"}, set()),
        ({"location_type": "in-person"}, {OWN}),
        ({"search": "kohler"}, {OWN, "two"}),
        ({"search": "c++"}, {OWN}),
        ({"search": "xyzzy"}, set()),
        ({"search": "?!"}, set()),
        ({"search": '" OR 1 --'}, set()),
        ({"search": "software", "company_id": company}, {OWN}),
    ):
        # When / Then
        assert set(found(board, **parameters)) == expected, parameters


def test_a_search_gives_the_most_relevant_first(board: httpx.Client) -> None:
    # When
    titles = found(board, search="software bridge painter")
    bridges = found(board, search="bridges")
    # Then: one matching word is enough, each word adds to the score, and a title scores highest
    assert (set(titles[:2]), titles[2:]) == ({"two", "three"}, [OWN])
    assert bridges == [OWN, "two"]


@pytest.mark.external
def test_the_latest_written_come_first_and_then_the_lowest_id(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": f"{number:024x}"} for number in (3, 1, 2)])
    boards.load(path, [{"_id": f"{number:024x}"} for number in (9, 8)])
    with boards.client(path) as board:
        before = found(board)
        # When
        boards.load(path, [{"_id": f"{1:024x}", "job_title": "changed"}])
        after = answer(board)["data"]
    # Then
    assert [int(one, 16) for one in before] == [8, 9, 1, 2, 3]
    assert [int(job["_id"], 16) for job in after] == [1, 8, 9, 2, 3]
    assert [job["updated_at"] for job in after] == sorted(
        (job["updated_at"] for job in after), reverse=True
    )


def test_pages_are_disjoint_and_one_past_the_end_is_empty_with_the_true_totals(
    board: httpx.Client,
) -> None:
    # When
    pages = [answer(board, page=number, limit=3) for number in (1, 2, 3, 10**9)]
    # Then
    assert [len(page["data"]) for page in pages] == [3, 1, 0, 0]
    assert len({job["_id"] for page in pages for job in page["data"]}) == 4
    assert [page["pagination"] for page in pages[:3]] == [
        {"totalCount": 4, "totalPages": 2, "currentPage": number, "limit": 3}
        for number in (1, 2, 3)
    ]
    assert answer(board)["pagination"]["limit"] == 50


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"page": "0"}, "Invalid page: it must be an integer of 1 or more"),
        ({"page": "x"}, "Invalid page: it must be an integer of 1 or more"),
        ({"page": "1.0"}, "Invalid page: it must be an integer of 1 or more"),
        ({"page": "²"}, "Invalid page: it must be an integer of 1 or more"),
        ({"page": "9" * 5_000}, "Invalid page: it must be an integer of 1 or more"),
        ({"limit": "0"}, "Invalid limit: it must be an integer from 1 to 200"),
        ({"limit": "201"}, "Invalid limit: it must be an integer from 1 to 200"),
        ({"limit": "-5"}, "Invalid limit: it must be an integer from 1 to 200"),
        ({"company_id": "acme"}, "Invalid company_id format"),
        ({"company_id": "g" * 24}, "Invalid company_id format"),
    ],
)
def test_a_wrong_parameter_is_400_with_one_message(
    board: httpx.Client, parameters: dict[str, str], message: str
) -> None:
    # When
    response = board.get(JOBS, params=parameters)
    # Then
    assert (response.status_code, response.json()) == (400, {"error": message})


def test_one_job_is_given_by_its_id(board: httpx.Client, jobs: dict[str, dict[str, Any]]) -> None:
    for source_id, job in jobs.items():
        # When
        response = board.get(f"{JOBS}/{job['_id']}")
        # Then: the job is returned, whatever its status
        assert response.json() == {"success": True, "data": job}, source_id
    assert board.get(f"{JOBS}/{OWN.upper()}").json()["data"] == jobs[OWN]


@pytest.mark.parametrize(
    ("job_id", "status", "message"),
    [
        ("f" * 24, 404, "Job not found"),
        ("two", 400, "Invalid jobId format"),
        ("f" * 23, 400, "Invalid jobId format"),
        ("%20", 400, "Invalid jobId format"),
    ],
)
def test_an_id_that_no_job_has_is_404_and_one_that_none_can_have_is_400(
    board: httpx.Client, job_id: str, status: int, message: str
) -> None:
    # When
    response = board.get(f"{JOBS}/{job_id}")
    # Then
    assert (response.status_code, response.json()) == (status, {"error": message})


@pytest.mark.external
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": f"Bearer {boards.KEY}"}, 200),
        ({"authorization": f"ApiKey {boards.KEY}"}, 200),
        ({"x-api-key": boards.KEY}, 200),
        ({"authorization": "Bearer unknown"}, 401),
        ({"x-api-key": ""}, 401),
        ({}, 401),
    ],
)
def test_a_key_comes_in_one_of_three_ways_and_without_one_the_answer_is_null(
    board: httpx.Client, headers: dict[str, str], status: int
) -> None:
    # When
    response = httpx.get(f"{board.base_url}{JOBS}", headers=headers)
    # Then
    assert response.status_code == status
    if status == 401:
        assert response.content == b"null"
        assert response.headers["content-type"] == "application/json"


def test_a_crash_is_answered_in_the_vendors_shape(
    board: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def broken(*_: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(qwestly, "_jobs_of", broken)
    # When
    response = board.get(JOBS)
    # Then
    assert response.status_code == 500
    assert {type(value) for value in response.json().values()} == {str}
    assert set(response.json()) == {"error", "details"}
    assert "disk" not in response.text


def test_a_page_of_a_cached_search_reads_only_its_own_rows(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, 1_000, profile=Profile.HOSTILE)
    connection = database.reader(path)
    numbers = [number for (number,) in connection.execute("SELECT number FROM postings")]
    done = 0

    def step() -> int:
        nonlocal done
        done += 1
        return 0

    # When
    connection.set_progress_handler(step, 1)
    qwestly._jobs_of(connection, numbers[:20])
    first, done = done, 0
    qwestly._jobs_of(connection, numbers)
    whole = done
    connection.set_progress_handler(None, 1)
    connection.close()
    # Then
    assert first < whole / 40


@pytest.mark.external
def test_faults_apply_to_searches(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": str(number)} for number in range(10)])
    with boards.client(path, "") as board:
        true = answer(board, limit=4)
        seen: dict[str, dict[str, Any]] = {}
        for fault in ("empty", "short", "total", "cursor"):
            # When
            board.post("/faults", json={"spec": f"{fault}=100%"})
            seen[fault] = answer(board, limit=4)
        board.post("/faults", json={"spec": "503=100%"})
        refused = board.get(JOBS)
        one = board.get(f"{JOBS}/{true['data'][0]['_id']}")
    # Then
    assert seen["empty"] == {**true, "data": []}
    missing = 4 - len(seen["short"]["data"])
    assert missing in (1, 2, 3)
    assert seen["short"] == {**true, "data": true["data"][:-missing]}
    lied = seen["total"]["pagination"]
    assert lied["totalCount"] != 10
    assert lied["totalPages"] == -(-lied["totalCount"] // 4)
    # The cursor fault has no effect, because Qwestly's pages have no cursor.
    assert seen["cursor"] == true
    assert (refused.status_code, one.status_code) == (503, 200)

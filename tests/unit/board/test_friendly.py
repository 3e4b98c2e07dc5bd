"""Friendly postings: what a newcomer searches is found, and every row asked for is delivered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.board import database, friendly, synthetic
from exporter.board.profiles import Profile
from tests import boards

ROWS = 300
TODAY = date(2026, 11, 30)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(one.json) for one in synthetic.generate(2_000, today=TODAY)]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Serves a small board of friendly postings, made today."""
    path = tmp_path_factory.mktemp("friendly") / "board.db"
    synthetic.synthesize(path, ROWS)
    with boards.client(path) as client:
        yield client


def found(board: httpx.Client, search: dict[str, Any]) -> int:
    answer = board.post("/v2/jobs/search", json={**search, "limit": 1})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["total_count"])


@pytest.mark.external
@pytest.mark.parametrize(
    "search",
    [
        {"job_titles": ["Software Engineer"], "location_types": ["Remote"], "days_ago": 3},
        {"job_titles": ["Data Engineer"]},
        {"job_titles": ["Data Engineer"], "days_ago": 28},
        {"job_titles": ["Data Engineer"], "yoe": {"min": 1, "max": 6}},
        {"job_titles": ["engineer"], "location_types": ["Remote"]},
        {
            "job_titles": ["Site/Civil Engineer"],
            "geo_locations": [
                {"city": "Richmond", "region": "Virginia", "country": "United States"}
            ],
            "yoe": {"min": 1, "max": 6},
            "company_name": "CompanyXYZ",
            "job_types": ["Full-time"],
            "industry": ["Design", "Construction"],
            "sub_industry": ["Architecture", "Building Construction"],
            "visa": "true",
            "sort_by": "relevance",
            "sort_order": "desc",
        },
    ],
)
@pytest.mark.parametrize("size", [len(friendly.EXAMPLES), ROWS])
def test_the_searches_of_the_documentation_find_postings_on_a_board_of_any_size(
    tmp_path: Path, board: httpx.Client, search: dict[str, Any], size: int
) -> None:
    # Given
    if size == ROWS:
        assert found(board, search)
        return
    path = tmp_path / "board.db"
    synthetic.synthesize(path, size)
    with boards.client(path) as small:
        # When, Then
        assert found(small, search)


@pytest.mark.external
def test_a_number_of_rows_is_the_number_of_postings_on_every_contract(board: httpx.Client) -> None:
    # When
    hirebase = found(board, {})
    qwestly = board.get("/api/external/search/jobs").json()["pagination"]["totalCount"]
    ids = board.post("/cdapi/v2/job_base/search/filter", json={})
    coresignal = int(ids.headers["x-total-results"])
    at: dict[str, Any] = {"page_size": 200}
    bindbee, more = 0, True
    while more:
        page = board.get("/api/ats/v1/jobs", params=at).json()
        bindbee += len(page["items"])
        at["cursor"], more = page["cursor"], page["cursor"] is not None
    # Then
    assert (hirebase, qwestly, coresignal, bindbee) == (ROWS,) * 4


@pytest.mark.external
def test_postings_that_left_the_board_are_listed_as_expired_and_nowhere_else(
    board: httpx.Client,
) -> None:
    # When
    today = datetime.now(UTC)
    pages = [
        board.get("/v2/jobs/expired-jobs", params={"since": f"{today - age:%Y-%m-%d}"}).json()
        for age in (timedelta(days=90), timedelta(days=3), timedelta(days=-1))
    ]
    # Then
    totals = [page["total_count"] for page in pages]
    assert totals[0] == ROWS // 50 + 1
    assert totals[0] >= totals[1] >= totals[2] == 0
    assert found(board, {"include_expired": "true"}) == ROWS
    assert len({job["_id"] for job in pages[0]["jobs"]}) == totals[0]
    assert board.get(f"/v2/jobs/{pages[0]['jobs'][0]['_id']}").status_code == 404


@pytest.mark.external
@pytest.mark.parametrize(
    "filters",
    [
        {"title": "Data Engineer", "country": "Germany"},
        {"title": '"Software Engineer" OR "Data Engineer"', "application_active": True},
        {"employment_type": "Full-time", "industry": "Software", "location": "New York"},
    ],
)
def test_filters_of_coresignal_find_postings(board: httpx.Client, filters: dict[str, Any]) -> None:
    # When
    answer = board.post("/cdapi/v2/job_base/search/filter", json=filters)
    # Then
    assert answer.status_code == 200, answer.text
    assert answer.json()


@pytest.mark.external
@pytest.mark.parametrize(
    "query",
    ["search=Software+Engineer", "location_type=remote", "job_family=Data", "status=active"],
)
def test_filters_of_qwestly_find_postings(board: httpx.Client, query: str) -> None:
    assert board.get(f"/api/external/search/jobs?{query}").json()["pagination"]["totalCount"]


def test_dates_end_today_and_reach_back_two_months(rows: list[dict[str, Any]]) -> None:
    # When
    ages = [(TODAY - date.fromisoformat(row["date_posted"])).days for row in rows]
    # Then
    assert min(ages) == 0
    assert friendly.MAX_AGE_DAYS - 5 < max(ages) < friendly.MAX_AGE_DAYS
    assert 0.15 < sum(age <= 3 for age in ages) / len(ages) < 0.4


def test_only_the_dates_of_the_same_postings_depend_on_the_day() -> None:
    # When
    first, second = (
        [json.loads(one.json) for one in synthetic.generate(50, today=day)]
        for day in (TODAY, TODAY + timedelta(days=9))
    )
    # Then
    assert [row.pop("date_posted") for row in first] != [row.pop("date_posted") for row in second]
    assert first == second


def test_a_friendly_posting_depends_only_on_the_seed_and_its_number() -> None:
    # When
    few, many = (list(synthetic.generate(rows, today=TODAY)) for rows in (7, 60))
    other = list(synthetic.generate(7, seed=2, today=TODAY))
    hostile = list(synthetic.generate(7, profile=Profile.HOSTILE))
    # Then
    assert few == many[:7]
    assert not {one.id for one in few} & {one.id for one in (*other, *hostile)}


def test_every_column_has_one_type_and_no_cell_is_read_as_something_else(
    rows: list[dict[str, Any]],
) -> None:
    # When
    kinds = {name: {type(row.get(name)) for row in rows} for name in {*rows[0]}}
    texts = {text for row in rows for text in row.values() if isinstance(text, str)}
    # Then
    assert {len(kind) for kind in kinds.values()} == {1}
    assert len({row["_id"] for row in rows}) == len(rows)
    assert all(re.fullmatch("f[0-9a-f]{23}", row["_id"]) for row in rows)
    # pandas reads these as missing, spreadsheets run the others as formulas or split them.
    assert not texts & {"", "None", "NA", "N/A", "null", "NULL", "nan", "NaN", "n/a"}
    assert not [text for text in texts if re.match(r"[=+@\-\t]", text)]
    assert all(text.isascii() and text.isprintable() for text in texts)
    assert not any(row["expired"] for row in rows)


def test_titles_and_companies_are_common_and_varied(rows: list[dict[str, Any]]) -> None:
    # When
    titles = [row["job_title"] for row in rows]
    # Then
    assert 0.05 < sum("Software Engineer" in title for title in titles) / len(rows) < 0.2
    assert 0.05 < sum("Data Engineer" in title for title in titles) / len(rows) < 0.2
    assert 0.3 < sum(row["location_type"] == "Remote" for row in rows) / len(rows) < 0.5
    assert len(set(titles)) > 60
    assert len({row["company_name"] for row in rows}) > 100
    assert 500 < sum(len(row["description"]) for row in rows) / len(rows) < 1_200


def test_postings_are_made_again_only_on_another_day(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, 10, today=TODAY)
    before = version(path)
    # When
    synthetic.synthesize(path, 10, today=TODAY)
    synthetic.refresh(path, today=TODAY)
    same = version(path)
    synthetic.refresh(path, today=TODAY + timedelta(days=1))
    # Then
    assert same == before
    assert version(path) > before
    assert database.count_open(path) == 10


def test_hostile_and_loaded_postings_are_not_made_again_by_a_later_day(tmp_path: Path) -> None:
    # Given
    path, empty = tmp_path / "board.db", tmp_path / "empty.db"
    synthetic.synthesize(path, 10, profile=Profile.HOSTILE)
    before = version(path)
    # When
    synthetic.refresh(path, today=datetime.now(UTC).date() + timedelta(days=9))
    synthetic.refresh(empty, today=TODAY)
    # Then
    assert version(path) == before
    assert database.count_open(empty) == 0


def version(path: Path) -> int:
    with database.write_transaction(path) as connection:
        return database.meta(connection, "version")

"""Hirebase endpoints of the board for expired postings and for labels."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import boards

AGES_AGO = "2000-01-01"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board.sqlite"


def load(path: Path, *found: dict[str, Any]) -> datetime:
    """Loads postings and returns the time right after the load."""
    boards.load(path, found)
    return datetime.now(UTC)


def expired(client: httpx.Client, since: datetime | str, **more: Any) -> list[str]:
    text = since if isinstance(since, str) else since.isoformat()
    answer = client.get("/v2/jobs/expired-jobs", params={"since": text, **more})
    assert answer.status_code == 200, answer.text
    return [job["_id"] for job in answer.json()["jobs"]]


def test_a_posting_expires_when_the_board_first_stores_it_as_expired(path: Path) -> None:
    # Given
    first = load(path, {"_id": "a", "expired": True}, {"_id": "b"}, {"_id": "c"})
    second = load(path, {"_id": "b", "expired": True})
    with boards.client(path) as client:
        # When
        everything, later, nothing = (expired(client, since) for since in (AGES_AGO, first, second))

    # Then
    assert (everything, later, nothing) == (["a", "b"], ["b"], [])


def test_a_change_of_an_expired_posting_does_not_change_its_expiry_time(path: Path) -> None:
    # Given
    moment = load(path, {"_id": "a", "expired": True})
    load(path, {"_id": "a", "expired": True, "job_title": "Welder"})
    with boards.client(path) as client:
        # When / Then
        assert expired(client, moment) == []
        assert expired(client, AGES_AGO) == ["a"]


def test_a_posting_that_is_open_again_is_no_longer_listed_as_expired(path: Path) -> None:
    # Given
    load(path, {"_id": "a", "expired": True})
    load(path, {"_id": "a"})
    with boards.client(path) as client:
        # When / Then
        assert expired(client, AGES_AGO) == []

    # When: the posting expires again
    moment = datetime.now(UTC)
    load(path, {"_id": "a", "expired": True})
    with boards.client(path) as client:
        # Then
        assert expired(client, moment) == ["a"]


def test_the_pages_of_expired_postings_have_each_posting_once_and_true_totals(path: Path) -> None:
    # Given
    ids = [f"id {number}" for number in range(25)]
    load(path, *({"_id": identity, "expired": True} for identity in ids))
    with boards.client(path) as client:
        # When
        pages = [expired(client, AGES_AGO, page=page, limit=10) for page in (1, 2, 3, 4)]
        params: dict[str, Any] = {"since": AGES_AGO, "page": 99, "limit": 10}
        beyond = client.get("/v2/jobs/expired-jobs", params=params)

    # Then
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert sorted(identity for page in pages for identity in page) == sorted(ids)
    assert beyond.json() == {
        "jobs": [],
        "total_count": 25,
        "page": 99,
        "limit": 10,
        "total_pages": 3,
    }


def test_labels_are_listed_once_in_alphabetical_order_with_their_spelling(path: Path) -> None:
    # Given
    company = {"industries": ["Tech, IT", "design"], "subindustries": ["A|B"]}
    load(
        path,
        {"_id": "1", "job_categories": ["Nursing", "data"], "company_data": company},
        {"_id": "2", "job_categories": ["DATA", "Éditorial"], "company_data": {"industries": []}},
        {"_id": "3", "job_categories": None, "company_data": {"industries": ["Design", ""]}},
        {"_id": "4"},
    )
    with boards.client(path) as client:
        # When
        listed = [
            client.get(f"/v2/jobs/data/{name}", headers={"x-api-key": ""}).json()
            for name in ("industries", "categories")
        ]
        load(path, {"_id": "1"})
        after = client.get("/v2/jobs/data/industries").json()

    # Then
    assert listed == [
        {"industries": ["design", "Tech, IT"], "sub_industries": ["A|B"]},
        {"categories": ["data", "Nursing", "Éditorial"]},
    ]
    assert after == {"industries": ["Design"], "sub_industries": []}


def test_expired_postings_need_a_key(path: Path) -> None:
    # Given
    with boards.client(path) as client:
        # When
        answer = client.get(
            "/v2/jobs/expired-jobs", params={"since": AGES_AGO}, headers={"authorization": ""}
        )

    # Then
    assert answer.status_code == 401

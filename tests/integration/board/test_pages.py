"""Pages of a search: members, totals and order."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from tests.integration.board.desk import POSTINGS, answer, everything


def test_the_answer_has_the_vendors_members_and_the_true_totals(board: httpx.Client) -> None:
    # When
    body = answer(board)
    # Then
    assert list(body) == [
        *("jobs", "total_count", "company_count", "page", "limit", "total_pages"),
    ]
    assert body["jobs"] == [posting for posting in POSTINGS if posting["_id"] != "old"]
    assert (body["total_count"], body["company_count"]) == (4, 2)
    assert (body["page"], body["limit"], body["total_pages"]) == (1, 10, 1)


@pytest.mark.parametrize("page", [3, 999, 10**30])
def test_a_page_past_the_end_is_empty_and_has_the_true_totals(
    board: httpx.Client, page: int
) -> None:
    # When
    body = answer(board, page=page, limit=2)
    # Then
    assert body["jobs"] == []
    assert (body["total_count"], body["total_pages"], body["page"]) == (4, 2, page)


def matches(posting: Mapping[str, Any], search: Mapping[str, Any]) -> bool:
    """True if the posting matches the search; reimplements the filters used below in Python."""
    years, salary = posting.get("yoe_range") or {}, posting.get("salary_range") or {}
    low, high = years.get("min"), years.get("max")
    checks: dict[str, Callable[[Any], Any]] = {
        "include_expired": lambda _: True,
        "visa": lambda _: posting["visa_sponsored"],
        "month": lambda month: (posting.get("date_posted") or "").startswith(month),
        "yoe": lambda asked: (
            low is not None and (high or math.inf) >= asked["min"] and low <= asked["max"]
        ),
        "currency": lambda currency: salary.get("currency") == currency,
        "locations": lambda asked: any(
            place["city"] == asked[0]["city"] for place in posting.get("locations") or []
        ),
        "keywords": lambda asked: asked[0] in (posting.get("skills") or []),
        "sort_by": lambda _: True,
        "sort_order": lambda _: True,
    }
    expired = posting["expired"] and "include_expired" not in search
    return not expired and all(checks[name](value) for name, value in search.items())


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"include_expired": "true", "sort_by": "company"},
        {"visa": "true", "sort_by": "salary", "sort_order": "desc"},
        {"month": "2025-11"},
        {"yoe": {"min": 4, "max": 6}, "sort_by": "date_posted", "sort_order": "asc"},
        {"currency": "JPY", "sort_by": "yoe", "sort_order": "desc"},
        {"locations": [{"city": "東京"}]},
    ],
)
@pytest.mark.parametrize("limit", [37, 100])
def test_the_pages_of_a_search_hold_every_match_exactly_once(
    large: httpx.Client, generated: list[dict[str, Any]], search: dict[str, Any], limit: int
) -> None:
    # Given
    expected = {posting["_id"] for posting in generated if matches(posting, search)}
    # When
    found = [posting["_id"] for posting in everything(large, limit, **search)]
    # Then
    assert len(expected) > 0
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert answer(large, **search)["total_count"] == len(expected)


def test_sorted_pages_are_in_order_from_the_first_to_the_last(large: httpx.Client) -> None:
    # When
    days = [
        posting.get("date_posted") or ""
        for posting in everything(large, sort_by="date_posted", sort_order="desc")
    ]
    # Then
    assert days == sorted(days, reverse=True)


def test_pages_read_backwards_are_the_pages_read_forwards(large: httpx.Client) -> None:
    # Given
    forwards = [answer(large, page=page, limit=50)["jobs"] for page in range(1, 20)]
    # When
    backwards = [answer(large, page=page, limit=50)["jobs"] for page in range(19, 0, -1)]
    # Then
    assert backwards[::-1] == forwards

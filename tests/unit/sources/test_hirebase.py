"""The Hirebase source: the requests that it sends, and the answers that it accepts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import FakeClock
from exporter.contracts.hirebase import JobSearch
from exporter.errors import QueryError, SourceUntrue
from exporter.sources.hirebase import COLUMNS, HirebaseConfig, HirebaseSource
from tests.upstreams import Answer, Asked, Upstream, reply, serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PAGE_SIZE = 4


def source(url: str = "http://127.0.0.1:9", **more: Any) -> HirebaseSource:
    config = HirebaseConfig(base_url=url, api_key="sk_live_1", page_size=PAGE_SIZE, **more)
    return HirebaseSource(config, FakeClock())


def listing(total: int) -> Any:
    """Returns the answers of an upstream with `total` postings."""

    def answer(asked: Asked) -> Answer:
        page, limit = asked.json["page"], asked.json["limit"]
        found = range((page - 1) * limit, min(page * limit, total))
        return said([{"_id": number} for number in found], total, page=page, limit=limit)

    return answer


def said(jobs: Any, total: Any = None, **more: Any) -> bytes:
    return reply(200, {"jobs": jobs, **({} if total is None else {"total_count": total}), **more})


@contextmanager
def reading(*answers: Any) -> Iterator[tuple[HirebaseSource, Upstream]]:
    with serving(*answers) as upstream:
        one = source(upstream.url)
        try:
            yield one, upstream
        finally:
            one.close()


JOBS = [{"_id": "a"}, {"_id": "b"}, {"_id": "c"}, {"_id": "d"}]
FIRST = {"page": 1, "size": PAGE_SIZE, "skip": 0}


@pytest.mark.external
def test_a_page_is_asked_for_as_the_vendor_documents_it() -> None:
    # Given
    with reading(listing(9)) as (one, upstream):
        # When
        page = one.fetch({"job_titles": ["Welder"]}, one.start(None, 0))
    # Then
    (asked,) = upstream.asked
    assert asked.line == "POST /v2/jobs/search HTTP/1.1"
    assert asked.headers["x-api-key"] == "sk_live_1"
    assert asked.json == {"job_titles": ["Welder"], "page": 1, "limit": PAGE_SIZE}
    assert [bytes(row) for row in page.rows] == [b'{"_id": %d}' % n for n in range(4)]
    assert page.total == 9
    assert page.next == {"page": 2, "size": PAGE_SIZE, "skip": 0, "follows": True}


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "claim"),
    [
        (said(JOBS[:3], 9), "3 rows on page 1, but its total_count of 9 implies 4"),
        (said([*JOBS, {"_id": "e"}], 9), "5 rows on page 1, but its total_count of 9 implies 4"),
        (said([], 9), "0 rows on page 1, but its total_count of 9 implies 4"),
        (said(JOBS, 3), "4 rows on page 1, but its total_count of 3 implies 3"),
        (said(JOBS, 0), "4 rows on page 1, but its total_count of 0 implies 0"),
        (
            said(JOBS[:2], 9, limit=2),
            "page None of 2 rows, but page 1 of 4 rows was requested (if page_size is above the "
            "upstream's maximum, lower it)",
        ),
        (said(JOBS, 9, page=2, limit=4), "page 2 of 4 rows, but page 1 of 4 rows was requested"),
        (said(JOBS), "missing required field `total_count`"),
        (said(JOBS, -1), "`int` >= 0 - at `$.total_count`"),
        (said([], -1), "`int` >= 0 - at `$.total_count`"),
        (said(None, 0), "got `null` - at `$.jobs`"),
        (reply(200, {"detail": "slow down"}), "missing required field `jobs`"),
    ],
)
def test_a_page_that_contradicts_itself_is_never_used(answer: bytes, claim: str) -> None:
    # Given
    with reading(answer) as (one, upstream), pytest.raises(SourceUntrue) as untrue:
        # When
        one.fetch({}, FIRST)
    # Then
    assert claim in str(untrue.value)
    assert len(upstream.asked) > 1


@pytest.mark.external
def test_an_empty_page_in_the_middle_is_no_end() -> None:
    # Given
    with (
        reading(said([], 9, page=2, limit=4)) as (one, _),
        pytest.raises(SourceUntrue, match="implies 4"),
    ):
        # When / Then
        one.fetch({}, {"page": 2, "size": PAGE_SIZE, "skip": 0})


@pytest.mark.external
def test_a_page_without_its_own_number_and_size_is_accepted_if_the_total_agrees() -> None:
    # Given
    with reading(said(JOBS, 4)) as (one, _):
        # When
        page = one.fetch({}, FIRST)
    # Then
    assert (len(page.rows), page.next["page"], page.total) == (4, 2, 4)


@pytest.mark.external
def test_one_total_that_is_too_small_does_not_end_the_list() -> None:
    # Given: a first page with a total that is too small, but agrees with its rows
    with reading(said(JOBS, 4), said(JOBS, 9), said(JOBS[:1], 9), said([], 9)) as (one, _):
        # When
        pages, cursor = [], one.start(None, 0)
        while cursor is not None:
            pages.append(one.fetch({}, cursor))
            cursor = pages[-1].next
    # Then: the list is read to its end, and the totals differ
    assert [len(page.rows) for page in pages] == [4, 4, 1, 0]
    assert [page.total for page in pages] == [4, 9, 9, 9]


@pytest.mark.external
def test_an_empty_page_whose_total_contradicts_the_page_before_it_is_requested_again() -> None:
    # Given: page 3 is past the end of 6 rows, but one answer has a total of 2
    with reading(said([], 2), said([], 6)) as (one, upstream):
        # When
        page = one.fetch({}, {"page": 3, "size": PAGE_SIZE, "skip": 0, "follows": True})
    # Then
    assert (list(page.rows), page.next, page.total) == ([], None, 6)
    assert len(upstream.asked) == 2


@pytest.mark.external
def test_an_offset_past_the_end_is_one_empty_page_with_the_true_total() -> None:
    # Given
    with reading(listing(3)) as (one, _):
        # When
        page = one.fetch({}, one.start(5, 100))
    # Then
    assert (list(page.rows), page.next, page.total) == ([], None, 3)


@given(
    total=st.integers(0, 30),
    limit=st.integers(1, 35),
    offset=st.integers(0, 35),
    size=st.integers(1, 12),
)
def test_pages_from_an_offset_cover_the_limit_and_hardly_more(
    total: int, limit: int, offset: int, size: int
) -> None:
    # Given: the pages that would be requested
    one = HirebaseSource.__new__(HirebaseSource)
    one._page_size = size
    cursor = one.start(limit, offset)
    page, size_asked, skip = cursor["page"], cursor["size"], cursor["skip"]
    # When: pages are read until the limit is reached
    first = (page - 1) * size_asked + skip
    pages = -(-(skip + limit) // size_asked)
    # Then
    assert first == offset
    assert 1 <= size_asked <= size
    assert pages * size_asked - limit < 2 * size
    if offset == 0:
        assert pages * size_asked - limit < pages


@pytest.mark.parametrize("limit", [10**18, 10**30, 10**400])
def test_a_limit_beyond_all_postings_still_gives_pages_of_the_configured_size(limit: int) -> None:
    # When
    cursor = source().start(limit, 0)
    # Then
    assert cursor["size"] == PAGE_SIZE


def test_page_three_of_fifty_starts_at_record_101() -> None:
    # When
    search = source().search({"page": 3, "limit": 50, "job_titles": "Welder"}, NOW, user_id="u1")
    # Then
    assert (search.limit, search.offset) == (50, 100)
    assert search.query == {"job_titles": ["Welder"]}
    assert (search.echo["page"], search.echo["limit"]) == (3, 50)


def test_a_search_without_a_limit_wants_all_from_the_first_on() -> None:
    # When
    search = source().search({"page": 1, "days_ago": 2}, NOW, user_id="u1")
    # Then
    assert (search.limit, search.offset) == (None, 0)
    assert search.query == {"date_posted": "2026-02-27"}


def test_only_a_search_whose_values_the_upstream_lists_may_block() -> None:
    # When
    own = source()
    blocking = {name for name in JobSearch.model_fields if own.search_may_block({name: "a"})}
    # Then
    assert blocking == {"industry", "sub_industry", "job_category"}


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({"page": 2}, [("page",)]),
        ({"page": 0}, [("page",)]),
        ({"limit": 0}, [("limit",)]),
        ({"limit": "50"}, [("limit",)]),
        ({"limit": 1.5, "page": True}, [("page",), ("limit",)]),
        ({"job_titels": ["a"]}, [("job_titels",)]),
        ({"geo_locations": [{"city": "Bonn"}, {}]}, [("geo_locations", 1)]),
        ({"salary": {"min": "1"}}, [("salary", "min")]),
        ({"company_name": "a", "company_names": ["b"]}, [()]),
    ],
)
def test_each_wrong_field_of_a_search_is_named(
    raw: dict[str, Any], where: list[tuple[str | int, ...]]
) -> None:
    # When
    with pytest.raises(QueryError) as wrong:
        source().search(raw, NOW, user_id="u1")
    # Then
    assert {tuple(problem["loc"]) for problem in wrong.value.problems} == set(where)
    assert all(problem["msg"] and problem["type"] for problem in wrong.value.problems)


def test_columns_are_the_contracts_unless_configured() -> None:
    # When
    own = source(columns=("_id", "job_title"))
    # Then
    assert source().columns == COLUMNS
    assert COLUMNS[0] == "_id"
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert own.columns == ("_id", "job_title")

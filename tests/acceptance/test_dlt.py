"""An independent reader of paged APIs against the board, and the same postings as exports."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import (
    BasePaginator,
    JSONResponseCursorPaginator,
    PageNumberPaginator,
)

from exporter.board import bindbee, hostile, synthetic
from exporter.board.profiles import Profile
from exporter.client import Exporter
from exporter.local.stack import Addresses
from tests import boards
from tests.conftest import BOARD_ROWS

ROWS = 1_000
OPEN = {one.id for one in hostile.generate(BOARD_ROWS) if not one.columns.expired}
"""The ids of the stack's postings that have not expired."""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a board, at the rates that the contracts have."""
    path = tmp_path_factory.mktemp("board") / "board.db"
    synthetic.synthesize(path, ROWS, profile=Profile.HOSTILE)
    with boards.serving(path) as url:
        yield url


def read(
    board: str, path: str, rows: str, paginator: BasePaginator, **request: Any
) -> list[dict[str, Any]]:
    """What dlt finds at that path, page after page."""
    client = RESTClient(
        board,
        headers={"x-connector-token": boards.KEY},
        auth=BearerTokenAuth(boards.KEY),
        paginator=paginator,
        data_selector=rows,
    )
    pages = client.paginate(path, **request)
    return list(itertools.chain.from_iterable(pages))


@pytest.mark.parametrize("page_size", [7, 200])
def test_dlt_gets_every_bindbee_job_exactly_once_by_cursor(board: str, page_size: int) -> None:
    # When
    jobs = read(
        board,
        bindbee.PREFIX + "jobs",
        "items",
        JSONResponseCursorPaginator(cursor_path="cursor", cursor_param="cursor"),
        params={"page_size": page_size, "expand": "offices[name]"},
    )
    # Then
    assert sorted(job["remote_id"] for job in jobs) == sorted(
        posting.id for posting in hostile.generate(ROWS)
    )
    assert len({job["id"] for job in jobs}) == ROWS


@pytest.mark.parametrize(
    "paginator",
    [
        PageNumberPaginator(base_page=1, page_param="page", total_path="pagination.totalPages"),
        PageNumberPaginator(base_page=1, page_param="page", total_path=None),
    ],
    ids=["by the number of pages", "until a page is empty"],
)
def test_dlt_gets_every_qwestly_job_exactly_once_by_page_number(
    board: str, paginator: BasePaginator
) -> None:
    for status, expired in (("active", False), ("expired", True)):
        # When
        params = {"limit": 30, "status": status}
        jobs = read(board, "/api/external/search/jobs", "data", paginator, params=params)
        # Then
        assert sorted(job["source_id"] for job in jobs) == sorted(
            posting.id for posting in hostile.generate(ROWS) if posting.columns.expired is expired
        )


def test_dlt_gets_every_hirebase_job_exactly_once_by_the_page_in_the_body(board: str) -> None:
    # When
    jobs = read(
        board,
        "/v2/jobs/search",
        "jobs",
        PageNumberPaginator(base_page=1, page_body_path="page", total_path="total_pages"),
        method="POST",
        json={"limit": 70, "include_expired": "true"},
    )
    # Then
    assert sorted(job["_id"] for job in jobs) == sorted(
        posting.id for posting in hostile.generate(ROWS)
    )


@pytest.mark.stack
@pytest.mark.parametrize(
    ("source", "search", "identity", "expected"),
    [
        ("bindbee", {"status": "OPEN", "include_raw_data": True}, "remote_id", OPEN),
        ("qwestly", {}, "source_id", OPEN),
    ],
)
def test_an_export_of_each_source_is_complete_and_holds_all_ids(
    stack: Addresses,
    source: str,
    search: dict[str, Any],
    identity: str,
    expected: set[str],
) -> None:
    # When
    with Exporter(stack.url, stack.api_key) as client:
        export = client.wait(client.create(source, search, format="json").id)
        rows = list(client.rows(export))
    # Then
    assert export.result is not None, export
    completeness = export.result.completeness
    assert completeness is not None
    assert completeness.outcome == "complete"
    assert completeness.exported == len(expected)
    assert len(rows) == len(expected)
    assert {row[identity] for row in rows} == expected

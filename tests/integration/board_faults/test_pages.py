"""Faults of pages: responses that are not pages, and pages with false content."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.board_faults.desk import ROWS, done, order, rows, search, texts


def test_the_html_fault_is_a_200_with_a_web_page(board: httpx.Client) -> None:
    # Given
    order(board, "html=100%")
    # When
    answer = search(board)
    # Then
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_the_shape_fault_never_returns_a_valid_page(board: httpx.Client) -> None:
    # Given
    order(board, "shape=100%")
    # When
    answers = [search(board) for _ in range(60)]
    # Then
    assert {answer.status_code for answer in answers} == {200}
    bodies = [answer.json() for answer in answers]
    assert not [
        body for body in bodies if isinstance(body, dict) and isinstance(body.get("jobs"), list)
    ]
    assert len({json.dumps(body) for body in bodies}) > 3


def test_an_empty_page_keeps_the_true_total(board: httpx.Client) -> None:
    # Given
    order(board, "empty=100%")
    # When
    page = texts(search(board, page=2))
    # Then
    assert page.jobs == []
    assert (page.total_count, page.page, page.total_pages) == (ROWS, 2, 3)


def test_a_short_page_lacks_its_last_rows_and_keeps_every_byte_of_the_others(
    board: httpx.Client,
) -> None:
    # Given
    whole = rows(texts(search(board)))
    order(board, "short=100%")
    missing = set()
    for _ in range(30):
        # When
        page = texts(search(board))
        # Then
        assert rows(page) == whole[: len(page.jobs)]
        assert page.total_count == ROWS
        missing.add(len(whole) - len(page.jobs))
    assert missing == {1, 2, 3}


def test_a_false_total_is_too_high_or_too_low_and_the_rows_are_true(board: httpx.Client) -> None:
    # Given
    whole = rows(texts(search(board)))
    order(board, "total=100%")
    # When
    pages = [texts(search(board)) for _ in range(60)]
    # Then
    totals = {page.total_count for page in pages}
    assert ROWS not in totals
    assert min(totals) < ROWS < max(totals)
    assert 100 in totals, "the false total that makes this page the last"
    assert all(page.total_pages == -(-page.total_count // 100) for page in pages)
    assert all(rows(page) == whole for page in pages)


@pytest.mark.parametrize("name", ["empty", "short"])
def test_a_page_without_rows_to_remove_is_unchanged_and_not_counted(
    board: httpx.Client, name: str
) -> None:
    # Given
    past_the_end = search(board, page=4).content
    refused = search(board, limit=101).content
    order(board, f"{name}=100%")
    # When
    answers = search(board, page=4), search(board, limit=101)
    # Then
    assert answers[0].content == past_the_end
    assert answers[1].status_code == 422
    assert answers[1].content == refused
    assert done(board) == {}

"""Faults of responses: errors, delays, cut connections and slow bodies."""

from __future__ import annotations

import gzip
import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.integration.board_faults.desk import done, order, raw_search, search
from tests.waiting import until


@pytest.mark.parametrize(
    ("name", "waits"),
    [(name, name in ("429", "503")) for name in ("429", "503", "502", "500", "404", "401", "302")],
)
def test_429_and_503_have_a_retry_after_and_other_errors_do_not(
    board: httpx.Client, name: str, waits: bool
) -> None:
    # Given
    order(board, f"{name}=100%")
    # When
    answers = [search(board) for _ in range(30)]
    # Then
    assert {answer.status_code for answer in answers} == {int(name)}
    assert all(isinstance(answer.json()["detail"], str) for answer in answers)
    assert all(answer.headers["x-request-id"] for answer in answers)
    after = [answer.headers.get("retry-after") for answer in answers]
    if waits:
        dates = [text for text in after if text != "1"]
        assert 0 < len(dates) < 30
        for date in dates:
            ahead = parsedate_to_datetime(date) - datetime.now(UTC)
            assert -2 < ahead.total_seconds() <= 2
    else:
        assert set(after) == {None}
    assert done(board) == {name: 30}


def test_a_403_asks_for_half_a_second(board: httpx.Client) -> None:
    # Given
    order(board, "403=100%")
    # When
    answer = search(board)
    # Then
    assert (answer.status_code, answer.headers["retry-after"]) == (403, "0.5")


def test_a_page_in_an_odd_writing_is_the_true_page(board: httpx.Client) -> None:
    # Given
    order(board, "")
    true = search(board).json()
    for name in ("coding", "latin1", "gzip"):
        order(board, f"{name}=100%")
        # When
        answer = search(board)
        # Then
        text = gzip.decompress(answer.content).decode() if name == "gzip" else answer.text
        assert json.loads(text) == true
        assert done(board) == {name: 1}
        assert answer.headers["content-type"].endswith("ISO-8859-1") is (name == "latin1")
        assert answer.headers.get("content-encoding") == ("UTF-8" if name == "coding" else None)


def test_delayed_responses_do_not_delay_each_other(board: httpx.Client) -> None:
    # Given
    order(board, "latency=400ms-500ms,429=50%")
    begin = time.monotonic()
    # When
    with ThreadPoolExecutor(10) as pool:
        took = list(pool.map(lambda _: search(board).elapsed.total_seconds(), range(10)))
    # Then: errors were delayed too
    assert min(took) >= 0.4
    assert time.monotonic() - begin < 2.5
    assert done(board)["latency"] == 10


def test_a_reset_comes_in_the_middle_of_the_body(
    board: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    order(board, "reset=100%")
    # When
    promised, body, end = raw_search(board)
    # Then
    assert end is ConnectionResetError
    assert 0 < len(body) < promised
    with pytest.raises(httpx.ReadError):
        search(board)
    assert done(board) == {"reset": 2}
    assert [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")] == []


def test_a_truncated_body_ends_with_a_clean_close_before_its_announced_length(
    board: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    order(board, "truncate=100%")
    # When
    promised, body, end = raw_search(board)
    # Then
    assert end is None
    assert 0 < len(body) < promised
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        search(board)
    assert done(board) == {"truncate": 2}
    assert [r.getMessage() for r in caplog.records if r.name.startswith("uvicorn")] == []


def test_a_client_that_disconnects_before_its_fault_causes_no_error(
    board: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    # Given
    order(board, "latency=300ms,reset=50%,truncate=50%")
    # When
    for _ in range(8):
        with pytest.raises(httpx.ReadTimeout):
            board.post("/v2/jobs/search", json={}, timeout=0.05)
    until(lambda: sum(done(board).values()) == 16)
    # Then
    order(board, "")
    assert search(board).status_code == 200
    assert [r.getMessage() for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


def test_a_slow_body_arrives_over_seconds_and_is_complete(board: httpx.Client) -> None:
    # Given
    whole = search(board).content
    order(board, "slow=100%")
    arrivals: list[float] = []
    begin = time.monotonic()
    # When
    with board.stream(
        "POST", "/v2/jobs/search", json={"limit": 100, "include_expired": "true"}
    ) as r:
        parts = []
        for part in r.iter_raw():
            parts.append(part)
            arrivals.append(time.monotonic() - begin)
    # Then
    assert b"".join(parts) == whole
    assert arrivals[0] < 2 < 3.5 < arrivals[-1]
    assert max(b - a for a, b in itertools.pairwise(arrivals)) < 1.5

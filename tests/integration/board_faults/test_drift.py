"""Drift: postings that change while clients read them."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from exporter.board import synthetic
from exporter.board.misbehavior import drift
from exporter.board.profiles import Profile
from tests import boards
from tests.integration.board_faults.desk import ROWS, done, order, search
from tests.waiting import until


def all_rows(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in itertools.count(1):
        jobs = search(client, page=page, **body).json()["jobs"]
        if not jobs:
            break
        found += jobs
    return found


def test_a_drift_changes_only_its_own_postings(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, ROWS, profile=Profile.HOSTILE)
    with boards.client(path, "") as client:
        before = all_rows(client)
        # When
        order(client, "drift=60/s,seed=3")
        until(lambda: all(done(client).get(change, 0) > 5 for change in drift.CHANGES))
        order(client, "")
        # Then: it has stopped
        after = all_rows(client)
        time.sleep(0.3)
        assert all_rows(client) == after
    own = [row for row in after if row["_id"].startswith(drift.ID_PREFIX)]
    assert [row for row in after if row not in own] == before
    assert len({row["_id"] for row in after}) == len(after)


def test_a_drift_keeps_its_rate_and_ends_with_the_board(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, 10, profile=Profile.HOSTILE)
    begin = time.monotonic()
    # When
    with boards.client(path, "drift=40/s") as client:
        until(lambda: sum(done(client).values()) >= 80)
        made, took = sum(done(client).values()), time.monotonic() - begin
    # Then
    assert took > 1.9
    assert made <= took * 40 + 1
    assert "board drift" not in {thread.name for thread in threading.enumerate()}


def test_a_drift_moves_postings_between_pages_in_an_order_by_date(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, ROWS, profile=Profile.HOSTILE)
    newest_first = {"sort_by": "date_posted", "sort_order": "desc"}
    with boards.client(path, "") as client:
        second = [row["_id"] for row in search(client, page=2, **newest_first).json()["jobs"]]
        # When
        order(client, "drift=50/s")
        # Then
        until(
            lambda: (
                [r["_id"] for r in search(client, page=2, **newest_first).json()["jobs"]] != second
            )
        )

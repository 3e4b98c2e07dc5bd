"""Pages say in one sentence what an export does, and numbers agree with their nouns."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.console import texts

EXPORT = {
    "state": "processing", "phase": "reading", "source": "board", "record_count": 1, "error": None,
    "cancel_requested": False, "waiting_for": None, "queue_position": None, "eta_seconds": None,
    "started_at": None, "completed_at": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"state": "queued", "phase": "ready"}, "Waits for a worker."),
        ({"phase": "ready", "queue_position": 0}, "Waits for a worker, first in line."),
        ({"phase": "ready", "queue_position": 12}, "Waits for a worker, behind 12 exports."),
        ({"phase": "waiting", "waiting_for": "it answered 503"}, "Waits: it answered 503."),
        ({"phase": "waiting"}, "Waits: the source is not ready."),
        ({}, "Reads from board and writes the file."),
        ({"eta_seconds": 90}, "Reads from board and writes the file, about 1 min left."),
        ({"cancel_requested": True}, "Stops before its next page."),
        ({"phase": "completing"}, "All rows are read. The file is being published."),
        ({"state": "failed", "phase": "done", "error": "It broke."}, "It broke."),
        ({"state": "canceled", "phase": "done"}, "Canceled after 1 row."),
        ({"state": "finished", "phase": "done", "record_count": 2}, "Finished with 2 rows."),
    ],
)
def test_an_export_is_told_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    assert texts.now_doing({**EXPORT, **change}) == sentence


def test_the_end_has_its_time() -> None:
    times = {"started_at": "2026-03-02T09:15:04Z", "completed_at": "2026-03-02T09:16:44Z"}
    ended = {**EXPORT, "state": "finished", "phase": "done", **times}
    assert texts.now_doing(ended) == "Finished with 1 row in 1 min."


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"salary": {"min": 1, "max": 2}}, "Salary: 1 to 2"),
        ({"salary": {"max": 2}}, "Salary: up to 2"),
        ({"geo_locations": [{"city": "Berlin", "country": "DE"}]}, "Geo locations: Berlin, DE"),
        ({"a": {"min": 1, "b": [False, None]}}, "A: 1, no, None"),
        ({}, "All rows"),
    ],
)
def test_a_query_is_told_in_one_line(query: dict[str, Any], text: str) -> None:
    assert texts.summary(query) == text

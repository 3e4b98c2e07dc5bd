"""Tables of jobs behind the pipeline contract: how the tests fill them and read their refusals."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from exporter.api.files import streams
from exporter.service.exports import ExportService
from exporter.sources.sql.source import SqlSource
from exporter.sources.sql.table import Table
from exporter.store.redis.api_keys import KeyRing

PATH = "/api/export"
HIDDEN = {"user_id", "ai_parsed_data", "last_synced_at", "deleted_at"}


class Service(NamedTuple):
    """An API over a table of jobs, with keys of two users."""

    http: httpx.Client
    """Sends ann's key."""
    engine: ExportService
    keys: KeyRing
    ann: str
    file: Path
    app: Any

    def run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement, values)

    def fill(self, count: int) -> None:
        """Jobs of ann's."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.executemany(
                "INSERT INTO jobs (id, user_id, company_name, job_title, status, source, is_remote,"
                " tags, job_description, created_at, updated_at) VALUES"
                " (?, 'ann', 'Acme', 'Engineer', 'saved', 'manual', 0, '[]', ?,"
                " '2026-02-01T00:00:00Z', '2026-02-01T00:00:00Z')",
                [(f"{number:08}", f"{number:08}" * 40) for number in range(count)],
            )

    @property
    def table(self) -> Table:
        source = self.engine.source("pipeline")
        assert isinstance(source, SqlSource)
        return source._table

    def idle(self) -> bool:
        """Whether nothing is held for any caller."""
        source = self.engine.source("pipeline")
        assert isinstance(source, SqlSource)
        pool: Any = source._database._engine.pool
        lanes: streams.StreamLimits = self.app.state.lanes
        return bool(pool.checkedout() == 0 and lanes.streams.borrowed_tokens == 0)


Make = Callable[..., Service]

FULL = {
    "id": "123e4567-e89b-12d3-a456-426614174000",
    "user_id": "ann",
    "company_name": 'Acme, "Inc"',
    "job_title": "Senior Backend Engineer",
    "status": "interview",
    "source": "linkedin",
    "location": "San Francisco, CA",
    "is_remote": 1,
    "job_url": "https://acme.example/careers/7",
    "job_description": "Build scalable APIs...",
    "salary_range_min": 180000,
    "salary_range_max": 250000,
    "ai_match_score": 87,
    "ai_reasoning": "Strong match",
    "ai_parsed_data": '{"secret": 1}',
    "notes": "Met recruiter\nat a conference",
    "tags": '["high-priority", "backend"]',
    "applied_at": "2026-03-01 10:30:00",
    "interview_at": "2026-03-10T14:00:00Z",
    "last_synced_at": "2026-03-02T00:00:00Z",
    "created_at": "2026-02-28T16:00:00+01:00",
    "updated_at": "2026-03-04T09:00:00Z",
}


def insert(api: Service, **changes: object) -> None:
    row = {**FULL, **changes}
    marks = ", ".join("?" * len(row))
    api.run(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks})", *row.values())


def flat(answer: httpx.Response) -> dict[str, Any]:
    """The error, if it has all that the contract shows, in its order."""
    body: dict[str, Any] = answer.json()
    assert list(body) == [
        "code", "status", "message", "details", "errors", "requestId", "timestamp", "apiVersion",
    ]  # fmt: skip
    assert body["status"] == answer.status_code
    assert body["requestId"] == answer.headers["X-Request-Id"]
    assert body["timestamp"] == "2026-01-01T00:00:00Z"
    assert body["apiVersion"] == "1.0"
    return body

"""Exports as the Hirebase contract shows them: tasks."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from exporter.api import responses
from exporter.core import exports
from exporter.core.exports import State
from exporter.service.exports import ExportService


class TaskInput(msgspec.Struct):
    """The search and the format of the request; filters that were not given are null.

    In a list the search is null if it is long.
    """

    query: dict[str, Any] | None
    format: str


class Task(msgspec.Struct, omit_defaults=True):
    """An export in the vendor's terms. Times are UTC, without a time zone."""

    id: str
    type: str
    state: State
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)]
    created_at: str
    updated_at: str
    started_at: str | None
    completed_at: str | None
    user_id: str
    error: Annotated[
        str | None, msgspec.Meta(description="Reason of the failure; null unless failed.")
    ]
    worker_id: str | None
    priority: int
    input: TaskInput
    result: Annotated[
        responses.File | None, msgspec.Meta(description="The file; null until finished.")
    ]
    format: str
    # Not the vendor's: present only while the export waits.
    waiting_for: Annotated[
        str | None,
        msgspec.Meta(description="Reason of a wait; absent if the export does not wait."),
    ] = None
    retry_at: Annotated[
        str | None, msgspec.Meta(description="Time at which the waiting export continues.")
    ] = None
    retry_in_seconds: Annotated[
        int | None, msgspec.Meta(description="Seconds until it continues, at this answer.")
    ] = None


class TaskPage(msgspec.Struct):
    """A page of the caller's tasks, newest first."""

    tasks: list[Task]
    next_cursor: str | None


def task(service: ExportService, export: exports.Export, *, with_link: bool) -> Task:
    """Returns the export as the vendor's task, with all fields in the vendor's order.

    `with_link` is that of `responses.file`.
    The vendor publishes only the type `export_job_data`; `export_expired_jobs` is a guess.
    """
    naive = responses.naive
    waits = export.phase is exports.Phase.WAITING
    return Task(
        id=export.id,
        type="export_expired_jobs" if "expired_since" in export.spec.query else "export_job_data",
        state=export.state,
        progress=export.progress,
        created_at=naive(export.created_at),
        updated_at=naive(export.updated_at),
        started_at=naive(export.started_at) if export.started_at else None,
        completed_at=naive(export.completed_at) if export.completed_at else None,
        user_id=export.user_id,
        error=export.error if export.state is State.FAILED else None,
        worker_id=export.worker_id,
        priority=export.spec.priority,
        input=TaskInput(export.spec.request, export.spec.format),
        result=responses.file(service, export, naive, with_link=with_link),
        format=export.spec.format,
        waiting_for=export.error if waits else None,
        retry_at=naive(export.retry_at) if waits and export.retry_at else None,
        retry_in_seconds=responses.retry_in_seconds(export, service.clock.now()),
    )


QUEUED_EXAMPLE = {
    "id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11",
    "type": "export_job_data",
    "state": "queued",
    "progress": 0.0,
    "created_at": "2026-03-02T09:15:04.201933",
    "updated_at": "2026-03-02T09:15:04.201933",
    "started_at": None,
    "completed_at": None,
    "user_id": "acme",
    "error": None,
    "worker_id": None,
    "priority": 0,
    "input": {"query": {"job_titles": ["Data Engineer"], "keywords": None}, "format": "csv"},
    "result": None,
    "format": "csv",
}
FINISHED_EXAMPLE = {
    **QUEUED_EXAMPLE,
    "state": "finished",
    "progress": 1.0,
    "updated_at": "2026-03-02T09:15:09.618020",
    "started_at": "2026-03-02T09:15:04.310422",
    "completed_at": "2026-03-02T09:15:09.618020",
    "worker_id": "worker-5d1f0c2a-1",
    "result": {
        "download_url": "https://s3.example.com/exports/0b8c2c4e.csv?X-Amz-Signature=…",
        "file_size": 3120441,
        "record_count": 1204,
        "expiry_time": "2026-03-03T09:15:10.000000",
        "file_name": "board-jobs-2026-03-02-0b8c2c4e.csv",
        "completeness": {
            "outcome": "complete",
            "end_reason": "total_reached",
            "exported": 1204,
            "expected": 1204,
            "duplicates_removed": 0,
            "skipped": 0,
            "total_at_start": 1204,
            "total_at_end": 1204,
        },
        "pages": 13,
        "guarded_cells": 0,
        "replaced_characters": 0,
        "unmapped_fields": {},
        "nulled_numbers": 0,
        "absent_columns": [],
        "converted_rows": 0,
    },
}

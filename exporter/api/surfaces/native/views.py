"""Exports as the native contract shows them."""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated, Any

import msgspec

from exporter.api import responses
from exporter.contracts.timestamps import Rfc3339
from exporter.core import columns, exports
from exporter.core.exports import Phase, State
from exporter.service import estimates
from exporter.service.exports import ExportService
from exporter.store.base import MAX_COUNTED


class Export(msgspec.Struct):
    """An export. Times are RFC 3339 in UTC."""

    id: str
    name: Annotated[str, msgspec.Meta(description="The caller's name of the export.")]
    metadata: Annotated[dict[str, str], msgspec.Meta(description="The caller's own texts.")]
    state: State
    phase: Annotated[Phase, msgspec.Meta(description="Current activity of the export.")]
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Share of the work that is done, 0 to 1; 0 while the number of records is unknown."""
    record_count: Annotated[int, msgspec.Meta(description="Records durably written so far.")]
    source: str
    query: Annotated[
        dict[str, Any] | None,
        msgspec.Meta(
            description="The filters in canonical form, with relative dates made absolute."
            f" null in a list if it has over {responses.MAX_LISTED_QUERY_BYTES} bytes as JSON."
        ),
    ]
    format: str
    compression: str
    columns: Annotated[
        list[str], msgspec.Meta(description="As the request describes them; see its `columns`.")
    ]
    """The requested columns; empty: those of the source."""
    limit: int | None
    """The requested maximum of records; None: all."""
    priority: int
    """0 to 9; a higher number is more urgent."""
    csv_safe: bool
    bom: bool
    surface: Annotated[
        str, msgspec.Meta(description="The contract on which the export was created.")
    ]
    user_id: str
    """The owner."""
    created_by: Annotated[
        str | None, msgspec.Meta(description="Id of the API key that created the export.")
    ]
    retry_of: Annotated[
        str | None, msgspec.Meta(description="Id of the export that this one repeats.")
    ]
    created_at: Rfc3339
    updated_at: Rfc3339
    """When the record last changed."""
    started_at: Rfc3339 | None
    completed_at: Rfc3339 | None
    """When it finished, failed or was canceled."""
    worker_id: str | None
    """The worker that processes it now."""
    attempts: Annotated[
        int, msgspec.Meta(description="Consecutive workers that were lost without any progress.")
    ]
    queue_position: Annotated[
        int | None,
        msgspec.Meta(
            description="Ready exports that are ahead of a ready one, as things stand: urgent ones"
            " may come before it later. null in lists, and when unknown.",
        ),
    ]
    rows_per_second: Annotated[
        float | None, msgspec.Meta(description="Since the start, with all waits; null before.")
    ]
    eta_seconds: Annotated[
        int | None,
        msgspec.Meta(
            description="Seconds to the end at the speed so far; before the first rows, at that of"
            " the source's latest exports. null when unknown."
        ),
    ]
    retry_at: Annotated[
        Rfc3339 | None, msgspec.Meta(description="Time at which a waiting export continues.")
    ]
    retry_in_seconds: Annotated[
        int | None,
        msgspec.Meta(description="Seconds until a waiting export continues, at this answer."),
    ]
    waiting_for: Annotated[
        str | None, msgspec.Meta(description="Reason of the wait while `phase` is `waiting`.")
    ]
    cancel_requested: bool
    """The running export was asked to stop, and ends as canceled before its next page."""
    error: Annotated[
        str | None, msgspec.Meta(description="Reason of the failure; null unless failed.")
    ]
    result: Annotated[
        responses.File | None, msgspec.Meta(description="The file; null until finished.")
    ]
    webhook: Annotated[
        exports.Hook | None,
        msgspec.Meta(description="The webhook endpoint of the request's `webhook_url`."),
    ]
    links: Annotated[
        dict[str, str], msgspec.Meta(description="The URLs `self`, `cancel` and `file`.")
    ]


class ExportPage(msgspec.Struct):
    """A page of the caller's exports."""

    exports: list[Export]
    next_cursor: str | None
    """The `cursor` of the next page; None on the last page."""
    counts: Annotated[
        dict[State, int],
        msgspec.Meta(
            description="Exports in each state that meet the other filters. Ended exports whose"
            " retention is over may be counted for some hours."
        ),
    ]
    counts_are_exact: Annotated[
        bool,
        msgspec.Meta(
            description=f"False if there are more: counting stops after {MAX_COUNTED:,} exports."
        ),
    ]


def export_url(service: ExportService, export_id: str) -> str:
    """Returns the URL of an export."""
    return responses.address(service, f"/v1/exports/{export_id}")


def revision(export: exports.Export) -> str:
    """Returns a short text that is different after each change of the export."""
    facts = (
        *(export.updated_at, export.state, export.phase, export.progress, export.rows),
        *(export.worker_id, export.attempts, export.retry_at, export.cancel_requested),
    )
    digest = hashlib.blake2b(msgspec.json.encode(facts), digest_size=9).digest()
    return base64.urlsafe_b64encode(digest).decode()


def view(service: ExportService, export: exports.Export, *, with_link: bool) -> Export:
    """Returns the export with all details that its owner may see; `with_link` as in `file`."""
    zulu, spec, now = responses.zulu, export.spec, service.clock.now()
    address = export_url(service, export.id)
    return Export(
        id=export.id,
        name=spec.name,
        metadata=spec.metadata,
        state=export.state,
        phase=export.phase,
        progress=export.progress,
        record_count=export.result.record_count if export.result else export.rows,
        source=spec.source,
        query=spec.query,
        format=spec.format,
        compression=spec.compression,
        columns=[columns.describe(one) for one in spec.columns],
        limit=spec.limit,
        priority=spec.priority,
        csv_safe=spec.dialect.guard,
        bom=spec.dialect.bom,
        surface=spec.surface,
        user_id=export.user_id,
        created_by=spec.created_by,
        retry_of=spec.retry_of,
        created_at=zulu(export.created_at),
        updated_at=zulu(export.updated_at),
        started_at=zulu(export.started_at) if export.started_at else None,
        completed_at=zulu(export.completed_at) if export.completed_at else None,
        worker_id=export.worker_id,
        attempts=export.attempts,
        queue_position=None,
        rows_per_second=estimates.rows_per_second(export, now),
        eta_seconds=service.speeds.eta_seconds(export, now),
        retry_at=zulu(export.retry_at) if export.retry_at else None,
        retry_in_seconds=responses.retry_in_seconds(export, now),
        waiting_for=export.error if export.phase is Phase.WAITING else None,
        cancel_requested=export.cancel_requested,
        error=export.error if export.state is State.FAILED else None,
        result=responses.file(service, export, zulu, with_link=with_link),
        webhook=spec.webhook,
        links={"self": address, "cancel": f"{address}/cancel", "file": f"{address}/file"},
    )


EXAMPLE = {
    "id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11",
    "name": "data engineers, weekly",
    "metadata": {"team": "growth"},
    "state": "processing",
    "phase": "reading",
    "progress": 0.41,
    "record_count": 49200,
    "source": "board",
    "query": {"job_titles": ["Data Engineer"], "date_posted": "2026-02-02"},
    "format": "json",
    "compression": "none",
    "columns": [],
    "limit": None,
    "priority": 5,
    "csv_safe": False,
    "bom": False,
    "surface": "native",
    "user_id": "acme",
    "created_by": "5d1f0c2a9e41",
    "retry_of": None,
    "created_at": "2026-03-02T09:15:04.201933Z",
    "updated_at": "2026-03-02T09:15:31.118204Z",
    "started_at": "2026-03-02T09:15:04.310422Z",
    "completed_at": None,
    "worker_id": "worker-5d1f0c2a-1",
    "attempts": 0,
    "queue_position": None,
    "rows_per_second": 1827.4,
    "eta_seconds": 39,
    "retry_at": None,
    "retry_in_seconds": None,
    "waiting_for": None,
    "cancel_requested": False,
    "error": None,
    "result": None,
    "webhook": None,
    "links": {
        "self": "https://exports.example.com/v1/exports/0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11",
        "cancel": "https://exports.example.com/v1/exports/0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11"
        "/cancel",
        "file": "https://exports.example.com/v1/exports/0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11/file",
    },
}


QUEUED_EXAMPLE = {
    **EXAMPLE,
    "state": "queued",
    "phase": "ready",
    "progress": 0.0,
    "record_count": 0,
    "updated_at": "2026-03-02T09:15:04.201933Z",
    "started_at": None,
    "worker_id": None,
    "queue_position": 2,
    "rows_per_second": None,
    "eta_seconds": None,
}

FINISHED_EXAMPLE = {
    **EXAMPLE,
    "state": "finished",
    "phase": "done",
    "progress": 1.0,
    "record_count": 120000,
    "eta_seconds": None,
    "completed_at": "2026-03-02T09:16:10.201933Z",
    "updated_at": "2026-03-02T09:16:10.201933Z",
    "result": {
        "download_url": "https://files.example.com/exports/0b8c2c4e?X-Amz-Signature=…",
        "file_size": 48201331,
        "record_count": 120000,
        "expiry_time": "2026-03-03T09:16:12.000000Z",
        "file_name": "board-2026-03-02-0b8c2c4e.json",
        "completeness": {
            "outcome": "complete",
            "end_reason": "total_reached",
            "expected": 120000,
            "exported": 120000,
            "duplicates_removed": 0,
            "skipped": 0,
            "total_at_start": 120000,
            "total_at_end": 120000,
        },
        "pages": 1200,
        "guarded_cells": 0,
        "replaced_characters": 0,
        "unmapped_fields": {},
        "nulled_numbers": 0,
        "absent_columns": [],
        "converted_rows": 0,
    },
}

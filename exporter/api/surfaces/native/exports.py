"""The native contract: exports from any source, with all details of each export."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from exporter.api import (
    auth,
    creating,
    deeds,
    errors,
    idempotency,
    refusal,
    responses,
    turns,
    webhook_fields,
)
from exporter.api.bodies import TheBody
from exporter.api.errors import Problem
from exporter.api.state import run, service_of
from exporter.api.waiting import until_end
from exporter.core import exports, limits
from exporter.core.exports import Dialect, Phase, State
from exporter.errors import FieldProblem, QueryError
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.store.redis.api_keys import ApiKey

log: structlog.stdlib.BoundLogger = structlog.get_logger()
router = APIRouter(prefix="/v1", tags=["exports"])


MAX_WAIT_SECONDS = 30
"""Longest wait of a poll; most proxies close a connection that is silent for a minute."""


class ExportRequest(webhook_fields.WebhookFields):
    """The source, the query and the file format of a new export. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(max_length=200, description="The name of a configured source.")
    query: dict[str, Any] = Field(description="The source's filters; `{}` matches every posting.")
    format: str = Field(
        max_length=100,
        description="`csv`, `json` (JSON Lines) or `json_envelope` (one object: `exported_at`,"
        " `jobs`, `total`).",
    )
    columns: (
        Annotated[list[Annotated[str, Field(max_length=200)]], Field(fail_fast=True)] | None
    ) = Field(
        None,
        description="Columns of a CSV file in their order, or the fields kept of each JSON row.",
    )
    limit: int | None = Field(
        None, description="Maximum number of records; overrides the query's own limit. null: all."
    )
    compression: str = Field(
        "none",
        max_length=100,
        description="`none`, `gzip` (one member, level 1) or `zstd` (level 3; large files have"
        " several frames, and a reader must read all of them).",
    )
    file_name: str | None = Field(
        None,
        description="Name of the downloaded file, without a folder; the extension of the format is"
        " added if it is missing. null: named after the source, the day and the export.",
    )
    priority: int = Field(0, description="0 to 9; a higher number is more urgent.")
    csv_safe: bool = Field(
        False,
        description="Put an apostrophe before CSV text that a spreadsheet would run as a formula,"
        " also after a `;`, a tab or a line break within the text.",
    )
    bom: bool = Field(
        False,
        description="Begin a CSV file with a byte order mark, without which Excel shows `Ã¼` for"
        " `ü`. Other programs may take the mark for a part of the first column's name.",
    )


class Export(msgspec.Struct):
    """An export. Times are RFC 3339 in UTC."""

    id: str
    state: State
    phase: Annotated[Phase, msgspec.Meta(description="Current activity of the export.")]
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)]
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
    columns: list[str]
    limit: int | None
    priority: int
    csv_safe: bool
    bom: bool
    surface: Annotated[
        str, msgspec.Meta(description="The contract on which the export was created.")
    ]
    user_id: str
    created_at: str
    updated_at: str
    started_at: str | None
    completed_at: str | None
    worker_id: str | None
    attempts: Annotated[
        int, msgspec.Meta(description="Consecutive workers that were lost without any progress.")
    ]
    retry_at: Annotated[
        str | None, msgspec.Meta(description="Time at which a waiting export continues.")
    ]
    retry_in_seconds: Annotated[
        int | None,
        msgspec.Meta(description="Seconds until a waiting export continues, at this answer."),
    ]
    waiting_for: Annotated[
        str | None, msgspec.Meta(description="Reason of the wait while `phase` is `waiting`.")
    ]
    cancel_requested: bool
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
    links: Annotated[dict[str, str], msgspec.Meta(description="The URLs `self` and `cancel`.")]


class ExportPage(msgspec.Struct):
    """A page of the caller's exports, newest first."""

    exports: list[Export]
    next_cursor: str | None


def view(service: ExportService, export: exports.Export, *, with_link: bool) -> Export:
    """Returns the export with all details that its owner may see; `with_link` as in `file`."""
    zulu, spec = responses.zulu, export.spec
    address = _export_url(service, export.id)
    return Export(
        id=export.id,
        state=export.state,
        phase=export.phase,
        progress=export.progress,
        record_count=export.result.record_count if export.result else export.rows,
        source=spec.source,
        query=spec.query,
        format=spec.format,
        compression=spec.compression,
        columns=list(spec.columns),
        limit=spec.limit,
        priority=spec.priority,
        csv_safe=spec.dialect.guard,
        bom=spec.dialect.bom,
        surface=spec.surface,
        user_id=export.user_id,
        created_at=zulu(export.created_at),
        updated_at=zulu(export.updated_at),
        started_at=zulu(export.started_at) if export.started_at else None,
        completed_at=zulu(export.completed_at) if export.completed_at else None,
        worker_id=export.worker_id,
        attempts=export.attempts,
        retry_at=zulu(export.retry_at) if export.retry_at else None,
        retry_in_seconds=responses.retry_in_seconds(export, service.clock.now()),
        waiting_for=export.error if export.phase is Phase.WAITING else None,
        cancel_requested=export.cancel_requested,
        error=export.error if export.state is State.FAILED else None,
        result=responses.file(service, export, zulu, with_link=with_link),
        webhook=spec.webhook,
        links={"self": address, "cancel": f"{address}/cancel"},
    )


_EXAMPLE = {
    "id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11",
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
    "created_at": "2026-03-02T09:15:04.201933Z",
    "updated_at": "2026-03-02T09:15:31.118204Z",
    "started_at": "2026-03-02T09:15:04.310422Z",
    "completed_at": None,
    "worker_id": "worker-5d1f0c2a-1",
    "attempts": 0,
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
    },
}


_QUEUED_EXAMPLE = {
    **_EXAMPLE,
    "state": "queued",
    "phase": "ready",
    "progress": 0.0,
    "record_count": 0,
    "updated_at": "2026-03-02T09:15:04.201933Z",
    "started_at": None,
    "worker_id": None,
}
EXAMPLES: Mapping[tuple[str, str, str], Any] = {
    ("/v1/exports", "post", "202"): _QUEUED_EXAMPLE,
    ("/v1/exports/{export_id}", "get", "200"): _EXAMPLE,
    ("/v1/exports", "get", "200"): {"exports": [_EXAMPLE], "next_cursor": None},
    ("/v1/exports/{export_id}/cancel", "post", "200"): {
        **_QUEUED_EXAMPLE,
        "state": "canceled",
        "phase": "done",
    },
    ("/v1/exports/{export_id}/cancel", "post", "202"): {**_EXAMPLE, "cancel_requested": True},
    ("/v1/exports/{export_id}/retry", "post", "202"): _QUEUED_EXAMPLE,
    ("/v1/exports/{export_id}", "delete", "202"): responses.DELETED_EXAMPLE,
}
"""Example responses by path, method and status."""


def _response_doc(description: str, schema: str = "Export") -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    return {"description": description, "content": {"application/json": content}}


_CREATE_DOCS = {
    "parameters": [idempotency.PARAMETER],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ExportRequest"},
                "example": {
                    "source": "board",
                    "query": {"job_titles": ["Data Engineer"], "days_ago": 28},
                    "format": "json",
                    "priority": 5,
                },
            }
        },
    },
}


@router.post(
    "/exports",
    summary="Create an export",
    status_code=202,
    response_model=None,
    openapi_extra=_CREATE_DOCS,
    responses={
        202: _response_doc("The export, queued. Poll it at the URL in Location."),
        **errors.documented(Problem, 400, 402, 409, 413, 415, 422, 429, 502),
    },
)
async def create(request: Request, body: TheBody) -> Response:
    """Records an export and responds at once; workers then make the file."""
    caller = auth.writer(request)
    await run(request, deeds.count_call(request, caller, limits.CREATE_RATE))
    asked = await creating.parse_body(
        request, body, ExportRequest, lambda fields: _find_problems(request, caller, fields)
    )
    if service_of(request).feature(asked.source, asked.query) == "pipeline":
        await run(request, deeds.count_call(request, caller, limits.PIPELINE_RATE))
    new = NewExport(
        user_id=caller.user_id,
        surface="native",
        source=asked.source,
        search=asked.query,
        format=asked.format,
        columns=asked.columns,
        compression=asked.compression,
        file_name=asked.file_name,
        priority=asked.priority,
        dialect=Dialect(
            guard=asked.csv_safe,
            bom=asked.bom,
            exported_at=responses.zulu_seconds(service_of(request).clock.now()),
        ),
        limit=asked.limit,
    )
    try:
        export = await creating.create(request, caller, body, asked, new)
    except QueryError as error:
        raise errors.invalid([body_problem(problem) for problem in error.problems]) from None
    return _created_response(service_of(request), caller, export, new.id)


def _find_problems(
    request: Request, caller: ApiKey, fields: Mapping[str, Any]
) -> Sequence[FieldProblem]:
    plain = ("format", "columns", "compression", "file_name", "priority", "limit")
    found = service_of(request).find_problems(
        user_id=caller.user_id,
        source=fields.get("source"),
        search=fields.get("query"),
        wrong=webhook_fields.find_problems(request, caller.user_id, fields),
        dialect=Dialect(bom=fields.get("bom", False)) if "format" in fields else None,
        **{name: fields.get(name) for name in plain},
    )
    return [body_problem(problem) for problem in found]


@router.post(
    "/exports/{export_id}/retry",
    summary="Retry an export",
    status_code=202,
    response_model=None,
    openapi_extra={"parameters": [idempotency.PARAMETER]},
    responses={
        202: _response_doc("A new export, queued. Poll it at the URL in Location."),
        **errors.documented(Problem, 400, 402, 404, 409, 422, 429, 502),
    },
)
def retry(request: Request, export_id: str) -> Response:
    """Creates a new export with the request of an export that failed or was canceled.

    Relative dates of the request keep the values that they had in the first export. The new export
    has its own id.
    """
    caller, service = deeds.writer(request, limits.CREATE_RATE), service_of(request)
    mark = idempotency.read_key(request)
    before = service.find(caller.user_id, export_id)
    if before is None:
        raise errors.missing(export_id)
    if before.state not in (State.FAILED, State.CANCELED):
        raise refusal.Refusal(
            409,
            "not_retryable",
            f"the export is {before.state}; only a failed or canceled export can be retried",
        )
    if service.feature(before.spec.source, before.spec.query) == "pipeline":
        deeds.count(request, caller, limits.PIPELINE_RATE)
    new_id = str(uuid.uuid4())
    try:
        export = service.retry(before, export_id=new_id, idempotency=mark, plan=caller.plan)
    except QueryError as error:
        raise refusal.Refusal(409, "not_retryable", error.problems[0]["msg"]) from None
    return _created_response(service, caller, export, new_id)


def _created_response(
    service: ExportService, caller: ApiKey, export: exports.Export, export_id: str
) -> Response:
    place = {"Location": _export_url(service, export.id)}
    headers = {**place, **idempotency.log_and_headers(export, export_id)}
    return _reply(service, export, 202, headers, with_link=caller.may_read)


def body_problem(problem: FieldProblem) -> FieldProblem:
    """Returns a problem of the export service with the field name and location of this contract.

    The service calls the filters `search`, as Hirebase does; this contract calls them `query`.
    """
    first, *rest = problem["loc"]
    return {**problem, "loc": ("body", "query" if first == "search" else first, *rest)}


Wait = Annotated[
    int,
    Query(
        ge=0,
        description="Seconds to wait for the end of the export before the response is sent;"
        f" values over {MAX_WAIT_SECONDS} count as {MAX_WAIT_SECONDS}.",
    ),
]


@router.get(
    "/exports/{export_id}",
    summary="Get an export",
    response_model=None,
    responses={
        200: _response_doc("The export; Retry-After until it has ended."),
        **errors.documented(Problem, 404, 422),
    },
)
async def show(request: Request, export_id: str, wait: Wait = 0) -> Response:
    """Returns an export of the caller, whichever contract it was created on."""
    export = await responses.find_export(request, export_id)
    if wait and not export.terminal:
        # Clients poll again after an ordinary answer, so one too many waits is no error.
        with turns.turns_of(request).hold(request, limits.WAITING_POLLS) as may_wait:
            if may_wait and await until_end(request, export_id, min(wait, MAX_WAIT_SECONDS)):
                export = await responses.find_export(request, export_id)
    return _reply(service_of(request), export, with_link=True)


@router.get(
    "/exports",
    summary="List exports",
    response_model=None,
    responses={
        200: _response_doc(
            "A page of exports, newest first; Link has the URL of the next page.",
            "ExportPage",
        ),
        **errors.documented(Problem, 422, 429),
    },
)
def index(
    request: Request, limit: responses.Limit = 20, cursor: responses.Cursor = None
) -> Response:
    """Lists the caller's exports of all contracts, newest first."""
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    page = responses.records(service, caller.user_id, limit, cursor)
    entries = [view(service, export, with_link=True) for export in page.exports]
    for entry in entries:
        entry.query = responses.listed_query(entry.query or {})
    return responses.reply(
        ExportPage(entries, page.next_cursor),
        headers=responses.next_link(service, "/v1/exports", limit, page),
    )


@router.post(
    "/exports/{export_id}/cancel",
    summary="Cancel an export",
    response_model=None,
    responses={
        200: _response_doc("The export has ended. An export that had ended before is unchanged."),
        202: _response_doc("The running export was asked to stop."),
        **errors.documented(Problem, 404, 429),
    },
)
def cancel(request: Request, export_id: str) -> Response:
    """Cancels an export: at once if it is queued, before its next page if a worker processes it."""
    caller, service = deeds.writer(request, limits.CHANGE_RATE), service_of(request)
    export = service.cancel(caller.user_id, export_id)
    if export is None:
        raise errors.missing(export_id)
    log.info(
        "export.cancel_requested", export_id=export.id, user_id=export.user_id, state=export.state
    )
    status = 200 if export.terminal else 202
    return _reply(service, export, status, with_link=caller.may_read)


@router.delete(
    "/exports/{export_id}",
    summary="Delete an export",
    status_code=202,
    response_model=None,
    responses={
        202: _response_doc("The export is no longer visible.", "Deleted"),
        **errors.documented(Problem, 404, 429),
    },
)
def delete(request: Request, export_id: str) -> Response:
    """Deletes an export with its file and record; a running export is canceled first."""
    return responses.deleted(request, deeds.writer(request, limits.CHANGE_RATE).user_id, export_id)


def _reply(
    service: ExportService,
    export: exports.Export,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    with_link: bool,
) -> Response:
    waits = responses.retry_after_header(export, service.clock.now())
    shown = view(service, export, with_link=with_link)
    return responses.reply(shown, status, {**waits, **(headers or {})})


def _export_url(service: ExportService, export_id: str) -> str:
    return responses.address(service, f"/v1/exports/{export_id}")

"""The native contract: exports from any source, with all details of each export."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from exporter.api import (
    admission,
    auth,
    creating,
    deeds,
    errors,
    headers,
    idempotency,
    preferences,
    refusal,
    responses,
    webhook_fields,
)
from exporter.api.bodies import TheBody
from exporter.api.openapi import bounds
from exporter.api.state import run, service_of, show_call
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.native import lists, polls, views
from exporter.api.surfaces.native.views import Export
from exporter.contracts.coresignal import JobFilters
from exporter.contracts.hirebase import JobSearch
from exporter.core import exports, limits
from exporter.core.exports import Dialect, State
from exporter.errors import FieldProblem, QueryError
from exporter.formats import registry
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.store.redis.api_keys import ApiKey

SOURCE: Any = Field(max_length=200, description="The name of a configured source.")
QUERY: Any = Field(
    description="The source's filters; `{}` matches every posting.",
    json_schema_extra=bounds.objects(JobSearch, JobFilters, or_other=True),
)
LIMIT: Any = Field(
    None,
    description="Maximum number of records; overrides the query's own limit. null: all.",
    json_schema_extra=bounds.COUNT,
)
"""Fields of the requests to create and to estimate an export."""


Columns = (
    Annotated[list[Annotated[str, Field(max_length=400)] | dict[str, str]], Field(fail_fast=True)]
    | None
)
COLUMNS: Any = Field(
    None,
    description="Columns of a CSV file in their order, or the fields kept of each JSON row: a"
    " field; a part of one, `salary_range.min` or `locations[0].city`; either with a new name,"
    ' `salary_range.min as salary_min` or `{"salary_range.min": "salary_min"}`; `*` stands'
    " for the columns without a choice. null: those of the source.",
    json_schema_extra=bounds.COLUMNS,
)


class ExportRequest(webhook_fields.WebhookFields):
    """The source, the query and the file format of a new export. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: str | None = webhook_fields.URL
    source: str = SOURCE
    query: dict[str, Any] = QUERY
    format: str = Field(max_length=100, json_schema_extra=bounds.one_of(registry.FORMATS))
    columns: Columns = COLUMNS
    limit: int | None = LIMIT
    compression: str = Field(
        "none", max_length=100, json_schema_extra=bounds.one_of(registry.COMPRESSIONS)
    )
    file_name: str | None = Field(
        None,
        description="Name of the downloaded file, without a folder; the extension of the format is"
        " added if it is missing. null: named after the source, the day and the export.",
    )
    priority: int = creating.PRIORITY
    name: str = Field(
        "",
        description="A name for people, which lists show and find.",
        json_schema_extra={"maxLength": limits.EXPORT_NAME_CHARS.default},
    )
    metadata: dict[str, str] = Field(
        {},
        description="Texts of your own, which answers and webhooks repeat and lists find.",
        json_schema_extra={"maxProperties": limits.METADATA_PAIRS.default},
    )
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


@admission.admitted
async def create(request: Request, body: TheBody) -> Response:
    """Records an export and responds at once; workers then make the file.

    With `Prefer: wait=10`, the answer comes at the end of the export if that is within 10 seconds.
    """
    caller = auth.writer(request)
    admission.count(request, deeds.count_of(request, caller, limits.CREATE_RATE))
    asked = await creating.parse_body(
        request, body, ExportRequest, lambda fields: _find_problems(request, caller, fields)
    )
    if service_of(request).sources.feature(asked.source, asked.query) == "pipeline":
        admission.count(request, deeds.count_of(request, caller, limits.PIPELINE_RATE))
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
        name=asked.name,
        metadata=asked.metadata,
        extension=_extension(asked.format, asked.file_name),
    )
    try:
        export = await creating.create(request, caller, body, asked, new)
    except QueryError as error:
        raise errors.invalid(body_problems(error.problems)) from None
    headers = _creation_headers(service_of(request), export, new.id)
    seconds, applied = preferences.wait_seconds(request, polls.MAX_WAIT_SECONDS)
    if seconds and not export.terminal and await polls.end(request, export.id, seconds):
        latest = await run(request, show_call(request, export.id))
        export = export if latest is None else latest
    status = 200 if seconds and export.terminal else 202
    given = {**headers, **applied}
    return _reply(service_of(request), export, status, given, with_link=caller.may_read)


def _extension(format: str, file_name: str | None) -> str | None:  # noqa: A002
    """Returns `jsonl` for JSON Lines on this contract, unless the caller named it `.json`."""
    given = (file_name or "").lower().split(".")[1:]
    return "jsonl" if format == "json" and "json" not in given else None


def _find_problems(
    request: Request, caller: ApiKey, fields: Mapping[str, Any]
) -> Sequence[FieldProblem]:
    plain = (
        *("format", "columns", "compression", "file_name", "priority", "limit"),
        *("name", "metadata"),
    )
    found = service_of(request).find_problems(
        user_id=caller.user_id,
        source=fields.get("source"),
        search=fields.get("query"),
        wrong=webhook_fields.find_problems(request, caller.user_id, fields),
        dialect=Dialect(bom=fields.get("bom", False)) if "format" in fields else None,
        **{name: fields.get(name) for name in plain},
    )
    return body_problems(found)


def retry(request: Request, export_id: str) -> Response:
    """Creates a new export with the request of an export that failed or was canceled.

    Relative dates of the request keep the values that they had in the first export. The new export
    has its own id.
    """
    caller, service = deeds.writer(request, limits.CREATE_RATE), service_of(request)
    mark = idempotency.read_key(request)
    before = service.find(auth.owner(caller), export_id)
    if before is None:
        raise errors.missing(export_id)
    if before.state not in (State.FAILED, State.CANCELED):
        raise refusal.Refusal(
            409,
            "not_retryable",
            f"the export is {before.state}; only a failed or canceled export can be retried",
        )
    if service.sources.feature(before.spec.source, before.spec.query) == "pipeline":
        deeds.count(request, caller, limits.PIPELINE_RATE)
    new_id = str(uuid.uuid4())
    try:
        export = service.retry(before, export_id=new_id, idempotency=mark, plan=caller.plan)
    except QueryError as error:
        raise refusal.Refusal(409, "not_retryable", error.problems[0]["msg"]) from None
    headers = _creation_headers(service, export, new_id)
    is_own = export.user_id == caller.user_id
    return _reply(service, export, 202, headers, with_link=caller.may_read and is_own)


def _creation_headers(
    service: ExportService, export: exports.Export, export_id: str
) -> Mapping[str, str]:
    place = {"Location": views.export_url(service, export.id)}
    return {**place, **idempotency.log_and_headers(export, export_id)}


def body_problems(problems: Sequence[FieldProblem]) -> list[FieldProblem]:
    """Returns problems of the export service with the field names and locations of this contract.

    The service calls the filters `search`, as Hirebase does; this contract calls them `query`.
    """
    found: list[FieldProblem] = []
    for one in problems:
        first, *rest = one["loc"]
        found.append({**one, "loc": ("body", "query" if first == "search" else first, *rest)})
    return found


def cancel(request: Request, export_id: str) -> Response:
    """Cancels an export: at once if it is queued, before its next page if a worker processes it."""
    caller = deeds.writer(request, limits.CHANGE_RATE)
    export = responses.canceled(request, auth.owner(caller), export_id)
    is_own = export.user_id == caller.user_id
    status = 200 if export.terminal else 202
    return _reply(service_of(request), export, status, with_link=caller.may_read and is_own)


def delete(request: Request, export_id: str) -> Response:
    """Deletes an export with its file and record; a running export is canceled first."""
    caller = deeds.writer(request, limits.CHANGE_RATE)
    return responses.deleted(request, auth.owner(caller), export_id)


def _reply(
    service: ExportService,
    export: exports.Export,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    with_link: bool,
) -> Response:
    waits = responses.retry_after_header(export, service.clock.now())
    shown = views.view(service, export, with_link=with_link)
    return responses.reply(shown, status, {**waits, **(headers or {})})


_CREATED = Answer(
    "The export, queued. Poll it at the URL in Location.",
    Export,
    views.QUEUED_EXAMPLE,
    headers.CREATED,
)

OPERATIONS = (
    Operation(
        "POST /v1/exports",
        create,
        "createExport",
        "Create an export",
        {
            200: Answer(
                "The export, which ended within the time of `Prefer: wait`.",
                Export,
                views.FINISHED_EXAMPLE,
                (*headers.CREATED, headers.PREFERENCE_APPLIED),
            ),
            202: _CREATED._replace(headers=(*headers.CREATED, headers.PREFERENCE_APPLIED)),
        },
        (400, 402, 409, 413, 415, 422, 429, 502),
        Body(
            ExportRequest,
            {
                "source": "board",
                "query": {"job_titles": ["Data Engineer"], "days_ago": 28},
                "format": "json",
                "priority": 5,
            },
            nested=(JobSearch, JobFilters),
        ),
        parameters=(idempotency.PARAMETER, preferences.PARAMETER),
        is_frequent=True,
    ),
    Operation(
        "POST /v1/exports/{export_id}/retry",
        retry,
        "retryExport",
        "Retry an export",
        {
            202: _CREATED._replace(
                description="A new export, queued. Poll it at the URL in Location."
            )
        },
        (400, 402, 404, 409, 422, 429, 502),
        codes={
            400: "idempotency_key_invalid",
            409: "not_retryable",
            422: "idempotency_key_reused",
        },
        parameters=(idempotency.PARAMETER,),
    ),
    *polls.OPERATIONS,
    lists.OPERATION,
    Operation(
        "POST /v1/exports/{export_id}/cancel",
        cancel,
        "cancelExport",
        "Cancel an export",
        {
            200: Answer(
                "The export has ended. An export that had ended before is unchanged.",
                Export,
                {**views.QUEUED_EXAMPLE, "state": "canceled", "phase": "done"},
            ),
            202: Answer(
                "The running export was asked to stop.",
                Export,
                {**views.EXAMPLE, "cancel_requested": True},
                (headers.RETRY_AFTER,),
            ),
        },
        (404, 429),
    ),
    Operation(
        "DELETE /v1/exports/{export_id}",
        delete,
        "deleteExport",
        "Delete an export",
        {
            202: Answer(
                "The export is no longer visible.", responses.Deleted, responses.DELETED_EXAMPLE
            )
        },
        (404, 429),
    ),
)

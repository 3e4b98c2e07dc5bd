"""The exports of the Hirebase contract: an export is a task, polled until it has a result.

The vendor documents how to create and poll a task. Our additions, in the vendor's style, are the
endpoints that list, cancel and delete tasks, the header Idempotency-Key, the request fields
`priority`, `columns`, `csv_safe`, `webhook_url` and `webhook_events`, and all fields of a result
but `download_url`, `file_size`, `record_count` and `expiry_time`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anyio import to_thread
from fastapi import Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from exporter.api import (
    admission,
    creating,
    errors,
    headers,
    idempotency,
    refusal,
    responses,
    webhook_fields,
)
from exporter.api.bodies import TheBody
from exporter.api.openapi import bounds
from exporter.api.state import service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.hirebase import usage, views
from exporter.contracts.hirebase import JobSearch
from exporter.core import exports, limits
from exporter.core.exports import Dialect
from exporter.core.plans import CreditsSpent
from exporter.errors import ConfigurationError, FieldProblem, QueryError, within
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.store.redis.api_keys import ApiKey

FORMATS = ("csv", "json")
"""Formats of this contract.

`json_envelope` is missing, because the official client reads such a file as one empty job.
"""


class TaskRequest(webhook_fields.WebhookFields):
    """A search and the format of its file. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    webhook_url: str | None = webhook_fields.URL
    search: dict[str, Any] = Field(
        description="The filters, all optional. `limit` is the maximum number of records;"
        " without it all are exported. `{}` matches every posting.",
        json_schema_extra=bounds.objects(JobSearch),
    )
    format: str = Field(
        max_length=100,
        description="`csv` or `json` (JSON Lines).",
        json_schema_extra={"enum": list(FORMATS)},
    )
    priority: int = creating.PRIORITY
    columns: creating.Columns = creating.COLUMNS
    csv_safe: bool = Field(
        False,
        description="Put an apostrophe before CSV text that a spreadsheet would run as a formula.",
    )


@admission.admitted
async def create(request: Request, body: TheBody) -> Response:
    """Records an export and responds at once with its task.

    The status is 202, because the work is only accepted. The vendor documents no status here; its
    official client accepts 200 and 202.
    """
    caller = usage.create_writer(request)
    asked = await creating.parse_body(
        request, body, TaskRequest, lambda fields: _find_problems(request, caller, fields)
    )
    return await enqueue(
        request,
        caller,
        body,
        asked,
        search=asked.search,
        format=asked.format,
        formats=FORMATS,
        columns=asked.columns,
        priority=asked.priority,
        dialect=Dialect(guard=asked.csv_safe),
    )


def _find_problems(
    request: Request, caller: ApiKey, fields: Mapping[str, Any]
) -> Sequence[FieldProblem]:
    service = service_of(request)
    found = service.find_problems(
        user_id=caller.user_id,
        source=service.config.surfaces.hirebase,
        search=fields.get("search"),
        wrong=webhook_fields.find_problems(request, caller.user_id, fields),
        formats=FORMATS,
        **{name: fields.get(name) for name in ("format", "columns", "priority")},
    )
    return to_refusal(service, found).problems


async def show(request: Request, task_id: str) -> Response:
    """Returns the task of an export of the caller, whichever contract it was created on.

    These polls do not count towards the rate limit.
    """
    export = await responses.find_export(request, task_id)
    return _reply(service_of(request), export, with_link=True)


def index(
    request: Request, limit: responses.Limit = 20, cursor: responses.Cursor = None
) -> Response:
    """Lists the caller's exports of all contracts as tasks, newest first."""
    caller, service = usage.reader(request, limits.LIST_RATE), service_of(request)
    page = responses.records(service, caller.user_id, limit, cursor)
    tasks = [views.task(service, export, with_link=True) for export in page.exports]
    for one in tasks:
        one.input.query = responses.listed_query(one.input.query or {})
    return responses.reply(
        views.TaskPage(tasks, page.next_cursor),
        headers=responses.next_link(service, "/v2/tasks", limit, page.next_cursor),
    )


def cancel(request: Request, task_id: str) -> Response:
    """Cancels an export: at once if it is queued, before its next page if a worker processes it."""
    caller = usage.writer(request, limits.CHANGE_RATE)
    export = responses.canceled(request, caller.user_id, task_id)
    status = 200 if export.terminal else 202
    return _reply(service_of(request), export, status, with_link=caller.may_read)


def delete(request: Request, task_id: str) -> Response:
    """Deletes an export with its file and record; a running export is canceled first."""
    return responses.deleted(request, usage.writer(request, limits.CHANGE_RATE).user_id, task_id)


async def enqueue(
    request: Request,
    caller: ApiKey,
    body: bytes,
    asked: webhook_fields.WebhookFields,
    **wanted: Any,
) -> Response:
    """Creates an export and returns the 202 response with its task.

    `asked` is the parsed `body`, from which the webhook and the idempotency fingerprint are read.
    `wanted` are further fields of `NewExport`. Raises Refusal if the body is invalid or the caller
    has too few credits.
    """
    service = service_of(request)
    new = NewExport(
        user_id=caller.user_id,
        surface="hirebase",
        source=service.config.surfaces.hirebase,
        **wanted,
    )
    try:
        export = await creating.create(request, caller, body, asked, new)
    except QueryError as error:
        raise to_refusal(service, error.problems) from None
    except CreditsSpent as error:
        needed = error.needed
        raise await to_thread.run_sync(
            usage.quota_spent, request, caller, usage.EXPORTS, needed
        ) from None
    if caller.plan.metered:
        await to_thread.run_sync(usage.add_usage_headers, request, caller, usage.EXPORTS)
    return _reply(
        service,
        export,
        202,
        {
            "Location": responses.address(service, f"/v2/tasks/{export.id}"),
            **idempotency.log_and_headers(export, new.id),
        },
        with_link=caller.may_read,
    )


def to_refusal(service: ExportService, problems: Sequence[FieldProblem]) -> refusal.Refusal:
    """Returns the 422 refusal of a request body with these problems.

    Raises ConfigurationError for a problem with the source: callers do not name a source in this
    contract, so only the operator can fix that.
    """
    if any(problem["loc"][:1] == ("source",) for problem in problems):
        source = service.config.surfaces.hirebase
        raise ConfigurationError(
            f"[surfaces] hirebase = {source!r} is not the name of a configured source"
        )
    return errors.invalid(within("body", problems))


def _reply(
    service: ExportService,
    export: exports.Export,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    with_link: bool,
) -> Response:
    waits = responses.retry_after_header(export, service.clock.now())
    shown = views.task(service, export, with_link=with_link)
    return responses.reply(shown, status, {**waits, **(headers or {})})


CREATED = Answer(
    "The task, queued. Poll it at the URL in Location.",
    views.Task,
    views.QUEUED_EXAMPLE,
    (*headers.CREATED, *usage.USAGE),
)
"""Answer to the creation of a task."""

OPERATIONS = (
    Operation(
        "POST /v2/jobs/export",
        create,
        "createTask",
        "Create an export",
        {202: CREATED},
        {409: (), 413: (), 422: (), 429: usage.USAGE, 502: ()},
        Body(
            TaskRequest,
            {
                "search": {"job_titles": ["Data Engineer"], "yoe": {"min": 1, "max": 6}},
                "format": "csv",
            },
            nested=(JobSearch,),
        ),
        parameters=(idempotency.PARAMETER,),
        limit_headers=usage.RATE,
        is_frequent=True,
    ),
    Operation(
        "GET /v2/tasks/{task_id}",
        show,
        "getTask",
        "Get a task",
        {
            200: Answer(
                "The task; Retry-After until it has ended.",
                views.Task,
                views.FINISHED_EXAMPLE,
                (headers.RETRY_AFTER,),
            )
        },
        (404,),
        is_frequent=True,
    ),
    Operation(
        "GET /v2/tasks",
        index,
        "listTasks",
        "List tasks",
        {
            200: Answer(
                "A page of tasks, newest first; Link has the URL of the next page.",
                views.TaskPage,
                {"tasks": [views.FINISHED_EXAMPLE], "next_cursor": None},
                (headers.LINK,),
            )
        },
        (422, 429),
        limit_headers=usage.RATE,
    ),
    Operation(
        "POST /v2/tasks/{task_id}/cancel",
        cancel,
        "cancelTask",
        "Cancel a task",
        {
            200: Answer(
                "The task has ended. A task that had ended before is unchanged.",
                views.Task,
                {**views.QUEUED_EXAMPLE, "state": "canceled"},
            ),
            202: Answer(
                "The running task was asked to stop.",
                views.Task,
                {
                    **views.QUEUED_EXAMPLE,
                    "state": "processing",
                    "started_at": "2026-03-02T09:15:04.310422",
                    "worker_id": "worker-5d1f0c2a-1",
                },
                (headers.RETRY_AFTER,),
            ),
        },
        (404, 429),
        limit_headers=usage.RATE,
    ),
    Operation(
        "DELETE /v2/tasks/{task_id}",
        delete,
        "deleteTask",
        "Delete a task",
        {
            202: Answer(
                "The task is no longer visible.", responses.Deleted, responses.DELETED_EXAMPLE
            )
        },
        (404, 429),
        limit_headers=usage.RATE,
    ),
)

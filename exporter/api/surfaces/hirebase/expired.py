"""Expired postings of the Hirebase contract: a list of their ids, and exports of it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Query, Request
from pydantic import AfterValidator, ConfigDict, Field
from starlette.responses import Response

from exporter.api import admission, creating, turns, webhook_fields
from exporter.api.bodies import TheBody
from exporter.api.openapi import bounds
from exporter.api.state import service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.hirebase import searches, tasks, usage, views
from exporter.contracts import timestamps
from exporter.contracts.filters import refuse
from exporter.errors import within

MAX_EXPIRED_PAGE_SIZE = 100


def _without_mail(notify: bool) -> bool:
    if notify:
        refuse("value_error", "no e-mail is sent: poll the task, or give a webhook_url")
    return notify


class ExpiredRequest(webhook_fields.WebhookFields):
    """A request for an export of expired postings. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: timestamps.Moment = Field(
        description="A date, or a time in ISO 8601.", json_schema_extra=bounds.DAY_OR_MOMENT
    )
    notify: Annotated[bool, AfterValidator(_without_mail)] = Field(
        False,
        description="`true` is rejected: this service sends no e-mail.",
        json_schema_extra={"const": False},
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Maximum number of records; null: all.",
        json_schema_extra=bounds.COUNT,
    )


class ExpiredListing(msgspec.Struct):
    """A page of ids of expired postings."""

    jobs: list[dict[str, Any]]
    total_count: int
    page: int
    limit: int
    total_pages: int


@turns.waits_for_source
def expired_jobs(
    request: Request,
    since: Annotated[
        timestamps.Moment,
        Query(
            description="A date, or a time in ISO 8601.",
            json_schema_extra=bounds.only(bounds.DAY_OR_MOMENT),
        ),
    ],
    page: Annotated[int, Query(ge=1, description="Number of the page.")] = 1,
    limit: Annotated[
        int, Query(ge=1, le=MAX_EXPIRED_PAGE_SIZE, description="Ids per page.")
    ] = MAX_EXPIRED_PAGE_SIZE,
) -> Response:
    """Lists the ids of the postings that have expired since the time `since`. Free."""
    caller, service = usage.reader(request), service_of(request)
    caller.plan.check("expired")
    listing = searches.source_of(service).listing({"expired_since": since}, page, limit)
    return searches.json_response(listing.body)


@admission.admitted
async def export_expired(request: Request, body: TheBody) -> Response:
    """Records an export of the ids of expired postings and responds at once. Free.

    Each line of the file is `{"_id": …}`. Unknown fields of the request are rejected.
    """
    caller = usage.create_writer(request)
    asked = await creating.parse_body(
        request,
        body,
        ExpiredRequest,
        lambda fields: within(
            "body", webhook_fields.find_problems(request, caller.user_id, fields)
        ),
    )
    searches.source_of(service_of(request))
    return await tasks.enqueue(
        request,
        caller,
        body,
        asked,
        search={"expired_since": asked.since, "limit": asked.limit},
        format="json",
        file_stem="expired",
    )


OPERATIONS = (
    Operation(
        "GET /v2/jobs/expired-jobs",
        expired_jobs,
        "listExpiredJobs",
        "List expired postings",
        {
            200: Answer(
                "A page of ids.",
                ExpiredListing,
                {"jobs": [{"_id": "6650f1c2"}], **searches.TOTALS_EXAMPLE},
            )
        },
        (404, 422, 429, 502),
        limit_headers=usage.RATE,
        codes={404: "not_offered"},
    ),
    Operation(
        "POST /v2/jobs/expired-jobs/export",
        export_expired,
        "createExpiredTask",
        "Create an export of expired postings",
        {
            202: tasks.CREATED._replace(
                example={
                    **views.QUEUED_EXAMPLE,
                    "type": "export_expired_jobs",
                    "input": {"query": {"since": "2026-03-01", "limit": None}, "format": "json"},
                    "format": "json",
                }
            )
        },
        {**dict.fromkeys((404, 409, 413, 422, 502), ()), 429: usage.USAGE},
        Body(ExpiredRequest, {"since": "2026-03-01"}),
        limit_headers=usage.RATE,
    ),
)

"""The sources of the native contract: their filters, columns and use, and a preview of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from exporter.api import deeds, errors, responses, turns
from exporter.api.bodies import TheBody, parse
from exporter.api.refusal import Refusal
from exporter.api.state import service_of, statistics_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.native import exports
from exporter.contracts.coresignal import JobFilters
from exporter.contracts.described import Filter
from exporter.contracts.hirebase import JobSearch
from exporter.contracts.timestamps import Rfc3339
from exporter.core import limits
from exporter.core.plans import NotInPlan, Plan
from exporter.errors import FieldProblem, QueryError
from exporter.service import source_reads
from exporter.service.exports import ExportService
from exporter.sources.base import ListsValues
from exporter.store.redis.source_statistics import SourceUse


class Use(msgspec.Struct):
    """The latest requests to a source, in the current and the previous hour."""

    reachable: Annotated[
        bool | None,
        msgspec.Meta(description="Whether the latest request succeeded; null if none is known."),
    ]
    last_success_at: Rfc3339 | None
    last_failure_at: Rfc3339 | None
    last_failure_status: Annotated[
        int | None, msgspec.Meta(description="0 if the source did not answer.")
    ]
    requests: int
    limited: Annotated[int, msgspec.Meta(description="Answers 429.")]
    failed: Annotated[int, msgspec.Meta(description="Other failures than 429.")]
    p95_seconds: Annotated[
        float | None,
        msgspec.Meta(description="Duration that 95 % of the answers did not exceed."),
    ]
    next_request_in_seconds: Annotated[
        float,
        msgspec.Meta(description="Time until the rate or a requested pause allows a request."),
    ]


class Source(msgspec.Struct):
    """A configured source."""

    name: str
    type: str
    feature: Annotated[str, msgspec.Meta(description="Feature of a plan that an export needs.")]
    allowed: Annotated[
        bool, msgspec.Meta(description="Whether the plan of this key includes the feature.")
    ]
    rate: Annotated[
        str | None,
        msgspec.Meta(description="Requests that all workers together may send; null: any number."),
    ]
    use: Use


class SourceDetails(Source):
    """A configured source with its filters and columns."""

    filters: list[Filter]
    columns: Annotated[
        list[str], msgspec.Meta(description="All columns that an export may choose.")
    ]
    column_types: Annotated[
        dict[str, str],
        msgspec.Meta(description="Types of the columns, as far as they are known."),
    ]
    default_columns: Annotated[
        list[str], msgspec.Meta(description="The columns of a CSV without chosen columns.")
    ]


class SourceList(msgspec.Struct):
    """All configured sources."""

    sources: list[Source]


class PreviewRequest(BaseModel):
    """The query of an export. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: dict[str, Any] = exports.QUERY


class PreviewRows(msgspec.Struct):
    """The first rows of a query, as the source sends them now."""

    rows: list[dict[str, Any]]
    total: Annotated[
        int | None, msgspec.Meta(description="Rows that match; null if the source does not say.")
    ]


def index(request: Request) -> Response:
    """Lists the configured sources, and how they answered of late."""
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    names = service.sources.names()
    uses = statistics_of(request).read(names)
    found = [Source(**_facts(service, name, uses[name], caller.plan)) for name in names]
    return responses.reply(SourceList(found))


@turns.waits_for_source
def show(request: Request, name: str) -> Response:
    """Returns a source with its filters, their known values, and its columns.

    The values of some filters are those that the upstream publishes; they are left out if the
    upstream does not answer.
    """
    caller, service = deeds.reader(request, limits.LIST_RATE), service_of(request)
    return responses.reply(details(request, service, name, caller.plan))


def details(request: Request, service: ExportService, name: str, plan: Plan) -> SourceDetails:
    """Returns a source with all details; raises Refusal 404 for an unknown name."""
    sources = service.sources
    if name not in sources:
        raise Refusal(404, "not_found", sources.unknown(name))
    own, config = sources.get(name), sources.config(name)
    values = own.listed_values() if isinstance(own, ListsValues) else {}
    return SourceDetails(
        **_facts(service, name, statistics_of(request).read([name])[name], plan),
        filters=[
            msgspec.structs.replace(one, choices=tuple(values.get(one.name, one.choices)))
            for one in config.filters
        ],
        columns=list(sources.declared(name)),
        column_types=dict(sources.types(name)),
        default_columns=list(sources.columns(name)),
    )


@turns.waits_for_source
def preview(request: Request, name: str, body: TheBody) -> Response:
    """Returns the first 20 rows that an export of this query would have now. Free."""
    caller, service = deeds.reader(request, limits.PREVIEW_RATE), service_of(request)
    if name not in service.sources:
        raise Refusal(404, "not_found", service.sources.unknown(name))

    def find_problems(fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        found = service.find_problems(
            user_id=caller.user_id, source=name, search=fields.get("query")
        )
        return exports.body_problems(found)

    asked = parse(request, body, PreviewRequest, check=find_problems)
    try:
        found = source_reads.preview(
            service, name, asked.query, user_id=caller.user_id, plan=caller.plan
        )
    except QueryError as error:
        raise errors.invalid(exports.body_problems(error.problems)) from None
    return responses.reply(PreviewRows([dict(row) for row in found.rows], found.total))


def _facts(service: ExportService, name: str, use: SourceUse, plan: Plan) -> dict[str, Any]:
    config, feature = service.sources.config(name), service.sources.feature(name, {})
    return {
        "name": name,
        "type": config.type,
        "feature": feature,
        "allowed": _includes(plan, feature),
        "rate": None if config.rate is None else str(config.rate),
        "use": Use(
            reachable=use.is_reachable,
            last_success_at=responses.zulu_or_none(use.succeeded_at),
            last_failure_at=responses.zulu_or_none(use.failed_at),
            last_failure_status=use.failure,
            requests=use.requests,
            limited=use.limited,
            failed=use.failed,
            p95_seconds=use.p95_seconds,
            next_request_in_seconds=use.next_in_seconds,
        ),
    }


def _includes(plan: Plan, feature: str) -> bool:
    try:
        plan.check(feature)
    except NotInPlan:
        return False
    return True


_EXAMPLE = {
    "name": "board",
    "type": "hirebase",
    "feature": "export",
    "allowed": True,
    "rate": "600/60s",
    "use": {
        "reachable": True,
        "last_success_at": "2026-03-02T09:15:31.118204Z",
        "last_failure_at": None,
        "last_failure_status": None,
        "requests": 1840,
        "limited": 0,
        "failed": 2,
        "p95_seconds": 0.42,
        "next_request_in_seconds": 0.0,
    },
}
_FILTER_EXAMPLE = {
    "name": "location_types",
    "kind": "texts",
    "description": "Remote, Hybrid, In-Person (or On-site).",
    "choices": ["Remote", "Hybrid", "In-Person"],
}

OPERATIONS = (
    Operation(
        "GET /v1/sources",
        index,
        "listSources",
        "List the sources",
        {200: Answer("All configured sources.", SourceList, {"sources": [_EXAMPLE]})},
        (429,),
    ),
    Operation(
        "GET /v1/sources/{name}",
        show,
        "getSource",
        "Get a source",
        {
            200: Answer(
                "The source, its filters and columns.",
                SourceDetails,
                {
                    **_EXAMPLE,
                    "filters": [_FILTER_EXAMPLE],
                    "columns": ["_id", "job_title"],
                    "column_types": {"expired": "flag"},
                    "default_columns": ["_id", "job_title"],
                },
            )
        },
        (404, 429),
    ),
    Operation(
        "POST /v1/sources/{name}/preview",
        preview,
        "previewSource",
        "Preview a query",
        {
            200: Answer(
                "The first rows, and how many match.",
                PreviewRows,
                {"rows": [{"_id": "65f1", "job_title": "Data Engineer"}], "total": 1204},
            )
        },
        (400, 404, 413, 415, 422, 429, 502),
        Body(
            PreviewRequest,
            {"query": {"job_titles": ["Data Engineer"]}},
            nested=(JobSearch, JobFilters),
        ),
    ),
)

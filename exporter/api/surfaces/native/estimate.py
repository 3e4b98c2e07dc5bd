"""The estimate of the native contract: the number of records of an export not yet created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from exporter.api import deeds, errors, responses, turns
from exporter.api.bodies import TheBody, parse
from exporter.api.state import service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.native import exports
from exporter.contracts.coresignal import JobFilters
from exporter.contracts.hirebase import JobSearch
from exporter.core import limits
from exporter.errors import FieldProblem, QueryError


class EstimateRequest(BaseModel):
    """The source and the query of an export. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = exports.SOURCE
    query: dict[str, Any] = exports.QUERY
    limit: int | None = exports.LIMIT


class Records(msgspec.Struct):
    """A number of records; null if the source does not count its records."""

    records: int | None


@turns.waits_for_source
def estimate(request: Request, body: TheBody) -> Response:
    """Returns the number of records that an export of this query would have now. Free."""
    caller, service = deeds.reader(request, limits.ESTIMATE_RATE), service_of(request)

    def find_problems(fields: Mapping[str, Any]) -> Sequence[FieldProblem]:
        found = service.find_problems(
            user_id=caller.user_id,
            source=fields.get("source"),
            search=fields.get("query"),
            limit=fields.get("limit"),
        )
        return exports.body_problems(found)

    asked = parse(request, body, EstimateRequest, check=find_problems)
    try:
        records = service.estimate(
            asked.source,
            asked.query,
            user_id=caller.user_id,
            limit=asked.limit,
            plan=caller.plan,
        )
    except QueryError as error:
        raise errors.invalid(exports.body_problems(error.problems)) from None
    return responses.reply(Records(records))


OPERATIONS = (
    Operation(
        "POST /v1/exports/estimate",
        estimate,
        "estimateExport",
        "Estimate an export",
        {
            200: Answer(
                "The number of records that the source counts now.", Records, {"records": 1204}
            )
        },
        (400, 413, 415, 422, 429, 502),
        Body(
            EstimateRequest,
            {"source": "board", "query": {"job_titles": ["Data Engineer"]}},
            nested=(JobSearch, JobFilters),
        ),
    ),
)

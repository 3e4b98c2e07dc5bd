"""Hirebase API of the board: searches, single postings, expired postings, and known labels."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.exceptions import HTTPException
from starlette.concurrency import run_in_threadpool

from exporter.board import answers, results
from exporter.contracts import hirebase, timestamps

MAX_LIMIT = 100
PUBLIC_PATHS = ("/v2/jobs/data/industries", "/v2/jobs/data/categories")
"""Paths that need no key, as in the vendor's API."""


def router(pages: results.Results) -> APIRouter:
    """Returns the routes of the Hirebase endpoints.

    - `POST /v2/jobs/search` (body: JobSearch): `page` from 1, `limit` 1 to 100, by default 10.
    - `GET /v2/jobs/{id}`.
    - `GET /v2/jobs/expired-jobs?since=`: `page` from 1, `limit` 1 to 100, by default 100.
    - `GET /v2/jobs/data/industries` and `GET /v2/jobs/data/categories`, without a key.

    The vendor does not document the response shape of the last three. Here expired postings are
    returned like a search result, with only the `_id` of each posting; labels are lists in an
    object.
    """
    routes = APIRouter()

    @routes.post("/v2/jobs/search")
    async def search_jobs(wanted: hirebase.JobSearch) -> Response:
        page, limit = wanted.page or 1, wanted.limit or 10
        if limit > MAX_LIMIT:
            message = f"Limit cannot be greater than {MAX_LIMIT}"
            return answers.validation_error([(("body", "limit"), message, "value_error")])
        now = datetime.now(UTC)
        if pages.is_cached(wanted, now):
            # So short a read takes less time than a switch to a thread and back.
            found = pages.page(wanted, page, limit, now)
        else:
            found = await run_in_threadpool(pages.page, wanted, page, limit, now)
        return _page_response(found, page, limit, company_count=found.companies)

    @routes.get("/v2/jobs/expired-jobs")
    def expired_jobs(
        since: str,
        page: Annotated[int, Query(ge=1)] = 1,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
    ) -> Response:
        try:
            moment = timestamps.parse(since)
        except ValueError as error:
            return answers.validation_error([(("query", "since"), str(error), "value_error")])
        return _page_response(pages.expired(moment, page, limit), page, limit)

    @routes.get("/v2/jobs/data/industries")
    def industries() -> Response:
        known = pages.labels()
        return _lists_response({name: known[name] for name in ("industries", "sub_industries")})

    @routes.get("/v2/jobs/data/categories")
    def categories() -> Response:
        return _lists_response({"categories": pages.labels()["categories"]})

    @routes.get("/v2/jobs/{identity:path}")
    def one_job(identity: str) -> Response:
        document = pages.one(identity)
        if document is None:
            raise HTTPException(404, f"There is no job with the id {identity!r}")
        return answers.json_response(document)

    return routes


def _page_response(found: results.ResultPage, page: int, limit: int, **more: int) -> Response:
    totals = {
        "total_count": found.total,
        **more,
        "page": page,
        "limit": limit,
        "total_pages": -(-found.total // limit),
    }
    return answers.json_response(
        b'{"jobs":[' + b",".join(found.documents) + b"]," + json.dumps(totals)[1:].encode()
    )


def _lists_response(lists: dict[str, list[str]]) -> Response:
    return answers.json_response(json.dumps(lists).encode())

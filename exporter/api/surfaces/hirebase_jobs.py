"""The Hirebase contract's searches: passed through to the source that its exports are made from.

Whoever calls waits for the answer, so the source is given seconds and not the patience of an
export. Postings are passed on as the source wrote them, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from anyio import to_thread
from fastapi import APIRouter, Query, Request
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporter.api import creating, errors, responses, webhook_fields
from exporter.api.bodies import TheBody, parse
from exporter.api.errors import Detail
from exporter.api.refusal import Refusal
from exporter.api.state import runner_of, service_of
from exporter.api.surfaces import hirebase, hirebase_usage
from exporter.contracts import timestamps
from exporter.contracts.hirebase import JobSearch
from exporter.errors import FieldProblem, QueryError
from exporter.service.exports import ExportService
from exporter.sources.hirebase import HirebaseSource

router = APIRouter(prefix="/v2", tags=["hirebase"])

ASKERS = 16
"""Requests to sources that one process has under way for callers who wait: while a source hangs,
no more threads do, and exports are created and polled all the same."""
MOST_LISTED, LISTED = 100, 10
"""The most postings that a search gives, and how many it gives by default."""
MOST_EXPIRED = 100


class ExpiredRequest(webhook_fields.WebhookFields):
    """Since when. An unknown field is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: timestamps.Moment = Field(description="A day, or a moment of ISO 8601.")
    notify: bool = Field(False, description="The vendor's e-mail. `true` is refused: we send none.")
    limit: int | None = Field(None, ge=1, description="Records at most; null: all.")


class Listing(msgspec.Struct):
    """A page of postings, each as the source has it; fields of the source's own may stand
    beside these."""

    jobs: list[dict[str, Any]]
    total_count: int
    company_count: int
    page: int
    limit: int
    total_pages: int


class ExpiredListing(msgspec.Struct):
    """A page of identifiers."""

    jobs: list[dict[str, Any]]
    total_count: int
    page: int
    limit: int
    total_pages: int


class Posting(msgspec.Struct, rename={"id": "_id"}):
    """A posting, with all the fields that the source has of it."""

    id: str
    job_title: str
    company_name: str


class Estimate(msgspec.Struct):
    """What a search would cost."""

    cost: int


class Industries(msgspec.Struct):
    """The values of `industry` and `sub_industry`."""

    industries: list[str]
    sub_industries: list[str]


class Categories(msgspec.Struct):
    """The values of `job_category`."""

    categories: list[str]


_POSTING = {"_id": "6650f1c2", "job_title": "Data Engineer", "company_name": "Acme"}
_TOTALS = {"total_count": 1204, "page": 1, "limit": 1, "total_pages": 1204}
_LISTING = {"jobs": [_POSTING], **_TOTALS, "company_count": 310}
EXAMPLES: Mapping[tuple[str, str, str], Any] = {
    ("/v2/jobs/search", "post", "200"): _LISTING,
    ("/v2/jobs/estimate", "post", "200"): {"cost": 1204},
    ("/v2/jobs/expired-jobs", "get", "200"): {"jobs": [{"_id": "6650f1c2"}], **_TOTALS},
    ("/v2/jobs/expired-jobs/export", "post", "202"): {
        **hirebase.QUEUED_EXAMPLE,
        "type": "export_expired_jobs",
        "input": {"query": {"since": "2026-03-01", "limit": None}, "format": "json"},
        "format": "json",
    },
    ("/v2/jobs/data/industries", "get", "200"): {
        "industries": ["Construction", "Design"],
        "sub_industries": ["Architecture", "Building Construction"],
    },
    ("/v2/jobs/data/categories", "get", "200"): {"categories": ["Data", "Engineering"]},
    ("/v2/jobs/{job_id}", "get", "200"): _POSTING,
    ("/v2/hirebase/companies/{company_slug}/jobs/{job_slug}", "get", "200"): _LISTING,
}
"""What is answered, by path, method and status."""


def _takes(model: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


_SEARCH_DOCS = _takes(JobSearch, {"job_titles": ["Data Engineer"], "page": 1, "limit": 1})


async def _asking(request: Request, ask: Callable[[], Response]) -> Response:
    return await to_thread.run_sync(ask, limiter=request.app.state.askers)


# -- searching ---------------------------------------------------------------------------------


@router.post(
    "/jobs/search",
    summary="Search",
    response_model=None,
    openapi_extra=_SEARCH_DOCS,
    responses={
        200: responses.shows("A page; past the end it is empty, with the true totals.", "Listing"),
        **errors.documented(Detail, 404, 413, 422, 429, 502),
    },
)
async def search(request: Request, body: TheBody) -> Response:
    """One page of the postings that match, `limit` 1 to 100, by default 10.

    A metered key pays for each posting that it gets, and its `limit` has to fit into what it has
    left.
    """

    def ask() -> Response:
        caller, service = hirebase_usage.reader(request), service_of(request)
        caller.plan.check("search")
        asked = parse(request, body, JobSearch)
        page, limit = asked.page or 1, asked.limit or LISTED
        if limit > MOST_LISTED:
            raise _wrong("limit", f"Limit cannot be greater than {MOST_LISTED}")
        hirebase_usage.afford(request, caller, hirebase_usage.JOBS, limit)
        source = _source(service)
        try:
            query = source.search(_search(service, asked), service.clock.now(), user_id="").query
        except QueryError as error:
            raise hirebase.refused(service, error.problems) from None
        listing = source.listing(query, page, limit)
        hirebase_usage.charge(request, caller, hirebase_usage.JOBS, listing.rows)
        return _passed(listing.body)

    return await _asking(request, ask)


@router.post(
    "/jobs/estimate",
    summary="Tell what a search would cost",
    response_model=None,
    openapi_extra=_SEARCH_DOCS,
    responses={
        200: responses.shows("One credit a record.", "Estimate"),
        **errors.documented(Detail, 404, 413, 422, 429, 502),
    },
)
async def estimate(request: Request, body: TheBody) -> Response:
    """How many postings match, but no more than `limit`: the price of an export. Free.

    Without a limit all that match are counted, as an export would write them all; a search gives
    10 then. The vendor does not say which of the two it means.
    """

    def ask() -> Response:
        caller, service = hirebase_usage.reader(request), service_of(request)
        asked = parse(request, body, JobSearch)
        name = service.config.surfaces.hirebase
        try:
            cost = service.estimate(name, _search(service, asked), user_id=caller.user_id)
        except QueryError as error:
            raise hirebase.refused(service, [_lifted(one) for one in error.problems]) from None
        if cost is None:
            raise Refusal(422, "not_counted", f"the source {name!r} does not say how many match")
        hirebase_usage.add_usage_headers(request, caller, hirebase_usage.JOBS)
        return responses.reply(Estimate(cost))

    return await _asking(request, ask)


@router.get(
    "/hirebase/companies/{company_slug}/jobs/{job_slug}",
    summary="Get the postings of a slug",
    response_model=None,
    responses={
        200: responses.shows("As a search answers; one posting, or none.", "Listing"),
        **errors.documented(Detail, 404, 422, 429, 502),
    },
)
async def by_slug(request: Request, company_slug: str, job_slug: str) -> Response:
    """The posting that a company's page names so, expired or not."""

    def ask() -> Response:
        caller = hirebase_usage.reader(request)
        caller.plan.check("search")
        hirebase_usage.afford(request, caller, hirebase_usage.JOBS, 1)
        asked = {
            "company_slugs": [company_slug],
            "job_slug": job_slug,
            "include_expired": "true",
        }
        listing = _source(service_of(request)).listing(asked, 1, LISTED)
        hirebase_usage.charge(request, caller, hirebase_usage.JOBS, listing.rows)
        return _passed(listing.body)

    return await _asking(request, ask)


# -- what expired --------------------------------------------------------------------------------


@router.get(
    "/jobs/expired-jobs",
    summary="List expired postings",
    response_model=None,
    responses={
        200: responses.shows("A page of identifiers.", "ExpiredListing"),
        **errors.documented(Detail, 404, 422, 429, 502),
    },
)
async def expired_jobs(
    request: Request,
    since: Annotated[str, Query(max_length=64, description="A day, or a moment of ISO 8601.")],
    page: Annotated[int, Query(ge=1)] = 1,
    limit: Annotated[int, Query(ge=1, le=MOST_EXPIRED)] = MOST_EXPIRED,
) -> Response:
    """The identifiers of the postings that have expired since then. Free."""

    def ask() -> Response:
        caller, service = hirebase_usage.reader(request), service_of(request)
        caller.plan.check("expired")
        try:
            moment = timestamps.canonical(since)
        except ValueError as error:
            raise errors.invalid(
                [{"loc": ("query", "since"), "msg": str(error), "type": "value_error"}]
            ) from None
        listing = _source(service).listing({"expired_since": moment}, page, limit)
        return _passed(listing.body)

    return await _asking(request, ask)


@router.post(
    "/jobs/expired-jobs/export",
    summary="Create an export of expired postings",
    status_code=202,
    response_model=None,
    openapi_extra=_takes(ExpiredRequest, {"since": "2026-03-01"}),
    responses={
        202: responses.shows("The task, queued. Location says where to poll.", "Task"),
        **errors.documented(Detail, 404, 409, 413, 422, 429, 502),
    },
)
async def export_expired(request: Request, body: TheBody) -> Response:
    """Record an export of the identifiers, `{"_id": …}` a line, and answer at once. Free."""
    caller = await runner_of(request).run(lambda turn: hirebase_usage.writer(request, turn))
    asked = await creating.parse_body(request, body, ExpiredRequest)
    if asked.notify:
        raise _wrong("notify", "no e-mail is sent: poll the task, or give a webhook_url")
    _source(service_of(request))
    return await hirebase.enqueue(
        request,
        caller,
        asked,
        inline=creating.runs_without_waiting(caller, body, asked, {}),
        search={"expired_since": asked.since, "limit": asked.limit},
        format="json",
        file_stem="expired",
        # What costs nothing is not paid for, whatever the plan.
        plan=replace(caller.plan, metered=False),
        feature="expired",
    )


# -- what can be searched for ---------------------------------------------------------------------


@router.get(
    "/jobs/data/industries",
    summary="List industries",
    response_model=None,
    responses={
        200: responses.shows("As the source lists them.", "Industries"),
        **errors.documented(Detail, 404, 429, 502),
    },
)
async def industries(request: Request) -> Response:
    """The values that `industry` and `sub_industry` take; no key is needed.

    As the source tells them, at most an hour ago. The vendor publishes no shape of its answer; the
    one here is a guess.
    """
    return await _asking(request, lambda: _listed(request, "industries"))


@router.get(
    "/jobs/data/categories",
    summary="List job categories",
    response_model=None,
    responses={
        200: responses.shows("As the source lists them.", "Categories"),
        **errors.documented(Detail, 404, 429, 502),
    },
)
async def categories(request: Request) -> Response:
    """The values that `job_category` takes; for key, age and shape see the industries."""
    return await _asking(request, lambda: _listed(request, "categories"))


def _listed(request: Request, name: str) -> Response:
    return _passed(_source(service_of(request)).catalogue.body(name))


# Behind all others of /jobs: a posting may have any id.
@router.get(
    "/jobs/{job_id}",
    summary="Get a posting",
    response_model=None,
    responses={
        200: responses.shows("The posting.", "Posting"),
        **errors.documented(Detail, 404, 429, 502),
    },
)
async def job(request: Request, job_id: str) -> Response:
    """One posting by its id. A metered key pays one credit, and nothing for a 404."""

    def ask() -> Response:
        caller = hirebase_usage.reader(request)
        caller.plan.check("search")
        hirebase_usage.afford(request, caller, hirebase_usage.JOBS, 1)
        posting = _source(service_of(request)).posting(job_id)
        if posting is None:
            raise Refusal(404, "not_found", f"no posting has the id {job_id[:100]!r}")
        hirebase_usage.charge(request, caller, hirebase_usage.JOBS, 1)
        return _passed(bytes(posting))

    return await _asking(request, ask)


def _source(service: ExportService) -> HirebaseSource:
    """The source behind this contract, if it can be searched. Raises Refusal 404."""
    name = service.config.surfaces.hirebase
    if name not in service.config.sources:
        raise hirebase.refused(service, [{"loc": ("source",), "msg": name, "type": "missing"}])
    source = service.source(name)
    if not isinstance(source, HirebaseSource):
        raise Refusal(
            404, "not_offered", f"postings are only exported from the source {name!r} here"
        )
    return source


def _search(service: ExportService, asked: JobSearch) -> Mapping[str, Any]:
    """The search as a source takes it; a page without a limit is one of the default size."""
    limit = asked.limit or (LISTED if (asked.page or 1) > 1 else None)
    return {**asked.canonical(service.clock.now()), "page": asked.page, "limit": limit}


def _lifted(problem: FieldProblem) -> FieldProblem:
    # The engine calls the filters `search`; here they are the body itself.
    first, *rest = problem["loc"]
    return {**problem, "loc": tuple(rest) if first == "search" else problem["loc"]}


def _wrong(field: str, message: str) -> Refusal:
    return errors.invalid([{"loc": ("body", field), "msg": message, "type": "value_error"}])


def _passed(body: bytes) -> Response:
    return Response(body, media_type="application/json")

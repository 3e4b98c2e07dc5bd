"""The searches and lookups of the Hirebase contract, forwarded to this contract's source.

A caller waits for each response, so the source must respond within seconds; an export waits much
longer. Postings are returned byte for byte as the source wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
from fastapi import Request
from starlette.responses import Response

from exporter.api import errors, responses, turns
from exporter.api.bodies import TheBody, parse
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.hirebase import tasks, usage
from exporter.contracts.hirebase import JobSearch
from exporter.core import limits
from exporter.errors import FieldProblem, QueryError, problem
from exporter.service.exports import ExportService
from exporter.sources.hirebase import HirebaseSource

Found = TypeVar("Found")

MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE = 100, 10
"""The largest and the default number of postings in the response to a search."""


class Listing(msgspec.Struct):
    """A page of postings as the source wrote them; there may be more fields than these."""

    has_more_fields: ClassVar = True

    jobs: list[dict[str, Any]]
    total_count: int
    company_count: int
    page: int
    limit: int
    total_pages: int


class Posting(msgspec.Struct, rename={"id": "_id"}):
    """A posting with all fields that the source has for it."""

    has_more_fields: ClassVar = True

    id: str
    job_title: str
    company_name: str


class Estimate(msgspec.Struct):
    """The cost of a search in credits."""

    cost: int


class Industries(msgspec.Struct):
    """The values of `industry` and `sub_industry`."""

    industries: list[str]
    sub_industries: list[str]


class Categories(msgspec.Struct):
    """The values of `job_category`."""

    categories: list[str]


_POSTING = {"_id": "6650f1c2", "job_title": "Data Engineer", "company_name": "Acme"}
TOTALS_EXAMPLE = {"total_count": 1204, "page": 1, "limit": 1, "total_pages": 1204}
_LISTING = {"jobs": [_POSTING], **TOTALS_EXAMPLE, "company_count": 310}


@turns.waits_for_source
def search(request: Request, body: TheBody) -> Response:
    """Returns a page of the matching postings; `limit` is 1 to 100, by default 10.

    A metered key pays one credit for each posting returned, and its `limit` must not exceed the
    credits that it has left.
    """
    caller, service = usage.reader(request), service_of(request)
    caller.plan.check("search")
    asked = parse(request, body, JobSearch, check=lambda fields: _find_problems(request, fields))
    page, limit = asked.page or 1, asked.limit or DEFAULT_PAGE_SIZE
    if limit > MAX_PAGE_SIZE:
        raise errors.invalid(_find_problems(request, asked.model_dump(exclude_none=True)))
    usage.check_balance(request, caller, limit)
    source = source_of(service)
    try:
        query = source.search(_source_query(service, asked), service.clock.now(), user_id="").query
    except QueryError as error:
        raise tasks.to_refusal(service, error.problems) from None
    listing = usage.ask_and_charge(
        request, caller, limit, lambda: source.listing(query, page, limit), lambda found: found.rows
    )
    return json_response(listing.body)


@turns.waits_for_source
def estimate(request: Request, body: TheBody) -> Response:
    """Returns the price of an export: the number of matching postings, at most `limit`. Free.

    Without a limit, all matching postings are counted, because an export without a limit writes all
    of them. The vendor does not document this case; a search without a limit returns only 10.
    """
    caller, service = usage.reader(request, limits.ESTIMATE_RATE), service_of(request)
    asked = parse(
        request,
        body,
        JobSearch,
        check=lambda fields: _find_problems(request, fields, max_limit=None),
    )
    name = service.config.surfaces.hirebase
    try:
        cost = service.estimate(
            name, _source_query(service, asked), user_id=caller.user_id, plan=caller.plan
        )
    except QueryError as error:
        raise tasks.to_refusal(
            service, [_drop_search_prefix(one) for one in error.problems]
        ) from None
    if cost is None:
        raise Refusal(422, "not_counted", f"the source {name!r} does not count its postings")
    usage.add_usage_headers(request, caller, usage.JOBS)
    return responses.reply(Estimate(cost))


@turns.waits_for_source
def by_slug(request: Request, company_slug: str, job_slug: str) -> Response:
    """Returns the posting with this slug at this company, expired or not."""
    asked = {"company_slugs": [company_slug], "job_slug": job_slug, "include_expired": "true"}
    listing = _ask_for_one(
        request,
        lambda source: source.listing(asked, 1, DEFAULT_PAGE_SIZE),
        lambda found: found.rows,
    )
    return json_response(listing.body)


@turns.waits_for_source
def industries(request: Request) -> Response:
    """Returns the values of the filters `industry` and `sub_industry`. No key is needed.

    The source's list is cached for an hour, or longer while the source does not respond. The vendor
    does not publish the shape of this response; the shape here is a guess.
    """
    return json_response(source_of(service_of(request)).catalogue.body("industries"))


@turns.waits_for_source
def categories(request: Request) -> Response:
    """Returns the values of the filter `job_category`. No key is needed.

    The age and the shape of the list are as for industries.
    """
    return json_response(source_of(service_of(request)).catalogue.body("categories"))


@turns.waits_for_source
def job(request: Request, job_id: str) -> Response:
    """Returns the posting with this id. A metered key pays one credit; a 404 is free."""
    posting = _ask_for_one(
        request,
        lambda source: source.posting(job_id),
        lambda found: int(found is not None),
    )
    if posting is None:
        raise Refusal(404, "not_found", f"no posting has the id {job_id[:100]!r}")
    return json_response(bytes(posting))


def _ask_for_one(
    request: Request, ask: Callable[[HirebaseSource], Found], count: Callable[[Found], int]
) -> Found:
    """Returns what the source returns for one posting, which costs at most one credit."""
    caller = usage.reader(request)
    caller.plan.check("search")
    usage.check_balance(request, caller, 1)
    source = source_of(service_of(request))
    return usage.ask_and_charge(request, caller, 1, lambda: ask(source), count)


def source_of(service: ExportService) -> HirebaseSource:
    """Returns the configured source of the Hirebase contract.

    Raises Refusal 404 if the source can only be exported, not searched, and ConfigurationError if
    it is not configured.
    """
    name = service.config.surfaces.hirebase
    if name not in service.config.sources:
        raise tasks.to_refusal(service, [problem(("source",), name, "missing")])
    source = service.source(name)
    if not isinstance(source, HirebaseSource):
        raise Refusal(404, "not_offered", f"the source {name!r} cannot be searched, only exported")
    return source


def _source_query(service: ExportService, asked: JobSearch) -> Mapping[str, Any]:
    """Converts the body of a search to the filters that a source accepts.

    If the request asks for page 2 or later without a limit, the limit is DEFAULT_PAGE_SIZE.
    """
    limit = asked.limit or (DEFAULT_PAGE_SIZE if (asked.page or 1) > 1 else None)
    return {**asked.canonical(service.clock.now()), "page": asked.page, "limit": limit}


def _drop_search_prefix(problem: FieldProblem) -> FieldProblem:
    # The service calls the filters `search`; in this contract they are the body itself.
    first, *rest = problem["loc"]
    return {**problem, "loc": tuple(rest) if first == "search" else problem["loc"]}


def _find_problems(
    request: Request, fields: Mapping[str, Any], max_limit: int | None = MAX_PAGE_SIZE
) -> list[FieldProblem]:
    """Returns the problems of the fields of a search that all have the right types."""
    found: list[FieldProblem] = []
    limit = fields.get("limit")
    if max_limit is not None and limit is not None and limit > max_limit:
        text = f"Limit cannot be greater than {max_limit}"
        found.append(problem(("body", "limit"), text))
    service = service_of(request)
    # A page needs no limit here, and the vendor's shape has no number of records.
    search = {name: one for name, one in fields.items() if name not in ("page", "limit")}
    problems = service.find_problems(
        user_id="", source=service.config.surfaces.hirebase, search=search
    )
    shown = tasks.to_refusal(service, [_drop_search_prefix(one) for one in problems])
    return [*found, *shown.problems]


def json_response(body: bytes) -> Response:
    """Returns the response with a body that the source wrote."""
    return Response(body, media_type="application/json")


_SEARCH = Body(JobSearch, {"job_titles": ["Data Engineer"], "page": 1, "limit": 1})
_ASKS_SOURCE = {404: (), 429: usage.USAGE, 502: ()}
_SEARCHES = {**_ASKS_SOURCE, 413: (), 422: ()}

OPERATIONS = (
    Operation(
        "POST /v2/jobs/search",
        search,
        "searchJobs",
        "Search postings",
        {
            200: Answer(
                "A page of postings. A page past the end is empty and has the true totals.",
                Listing,
                _LISTING,
                usage.USAGE,
            )
        },
        _SEARCHES,
        _SEARCH,
        limit_headers=usage.RATE,
        codes={404: "not_offered"},
    ),
    Operation(
        "POST /v2/jobs/estimate",
        estimate,
        "estimateJobs",
        "Estimate the cost of a search",
        {200: Answer("The cost: one credit per record.", Estimate, {"cost": 1204}, usage.USAGE)},
        _SEARCHES,
        _SEARCH,
        limit_headers=usage.RATE,
        codes={404: "not_offered"},
    ),
    Operation(
        "GET /v2/hirebase/companies/{company_slug}/jobs/{job_slug}",
        by_slug,
        "getJobBySlug",
        "Get the posting of a slug",
        {
            200: Answer(
                "A page as in a search, with one posting or none.", Listing, _LISTING, usage.USAGE
            )
        },
        {**_ASKS_SOURCE, 422: ()},
        limit_headers=usage.RATE,
    ),
    Operation(
        "GET /v2/jobs/data/industries",
        industries,
        "listIndustries",
        "List industries",
        {
            200: Answer(
                "The values that the source lists.",
                Industries,
                {
                    "industries": ["Construction", "Design"],
                    "sub_industries": ["Architecture", "Building Construction"],
                },
            )
        },
        (404, 429, 502, 503),
        is_public=True,
        codes={404: "not_offered"},
    ),
    Operation(
        "GET /v2/jobs/data/categories",
        categories,
        "listCategories",
        "List job categories",
        {
            200: Answer(
                "The values that the source lists.",
                Categories,
                {"categories": ["Data", "Engineering"]},
            )
        },
        (404, 429, 502, 503),
        is_public=True,
        codes={404: "not_offered"},
    ),
    # After all other paths under /jobs, because any text may be the id of a posting.
    Operation(
        "GET /v2/jobs/{job_id}",
        job,
        "getJob",
        "Get a posting",
        {200: Answer("The posting.", Posting, _POSTING, usage.USAGE)},
        _ASKS_SOURCE,
        limit_headers=usage.RATE,
    ),
)

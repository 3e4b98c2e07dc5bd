"""HTTP endpoints of the board's Coresignal API: searches that return ids, and records by id."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from exporter.board import answers, coresignal_records
from exporter.board.coresignal import dsl, filters
from exporter.board.expressions import InvalidExpression
from exporter.board.results import Results
from exporter.board.search import Condition
from exporter.contracts.coresignal import MAX_IDS, JobFilters

PREFIX = "/cdapi"
"""Path prefix of this contract."""
PREVIEW_SIZE = 20
"""Records per page of a preview."""
_MAX_INT64 = 2**63 - 1


class Ids(NamedTuple):
    """A page of the record ids that match a search."""

    ids: list[int]
    next_after: int | None
    """The `after` value of the next page; None on the last page."""
    total: int
    """Number of matches on all pages."""


class Records:
    """Finds the board's postings by record id.

    Searches return ids in ascending order, and a posting keeps its id forever. So even if postings
    are replaced, added or removed while a client reads the pages, a posting that stays is returned
    exactly once. The ids of a search are cached, so a page costs the same at any depth.
    """

    def __init__(self, results: Results) -> None:
        self._results = results

    def page(self, wanted: Condition, after: int, size: int) -> Ids:
        """Returns the next `size` ids greater than `after` that match the condition."""
        ids = self._matching(wanted)
        first = bisect_right(ids, after)
        found = ids[first : first + size].tolist()
        more = first + size < len(ids)
        return Ids(found, found[-1] if more else None, len(ids))

    def preview(self, wanted: Condition, page: int) -> tuple[list[bytes], int]:
        """Returns the records of page `page` (from 1) of a search, and the number of all matches.

        A page has PREVIEW_SIZE records; a page past the end has none.
        """
        ids = self._matching(wanted)
        first = min((page - 1) * PREVIEW_SIZE, len(ids))
        return self.collect(ids[first : first + PREVIEW_SIZE].tolist()), len(ids)

    def one(self, record_id: int, *, v1: bool) -> bytes | None:
        """Returns the record with this id, or None."""
        row = self._results.connection().execute(
            "SELECT json FROM coresignal JOIN documents USING (number) WHERE record_id = ?",
            (record_id,),
        )
        found = row.fetchone()
        return coresignal_records.record(record_id, found[0], v1=v1) if found else None

    def collect(self, ids: Sequence[int]) -> list[bytes]:
        """Returns the records of these ids in the same order, without the unknown ids."""
        rows = self._results.connection().execute(
            "SELECT record_id, json FROM coresignal JOIN documents USING (number)"
            " WHERE record_id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        records = {known: coresignal_records.record(known, text, v1=False) for known, text in rows}
        return [records[one] for one in ids if one in records]

    def _matching(self, wanted: Condition) -> array[int]:
        with self._results.snapshot() as connection:
            return self._results.numbers(
                connection, f"coresignal {wanted!r}", lambda: filters.find(connection, wanted)
            )


def router(results: Results) -> APIRouter:  # noqa: C901 - one nested function an endpoint
    """Returns the routes of the Coresignal endpoints under `/cdapi`.

    Paths relative to `/cdapi/v2/job_base/`:

    - `POST search/filter` (body: the filters; see JobFilters and filters.condition) returns an
      array of record ids. `items_per_page` is 1 to 1000, by default 1000. `after` is the
      `x-next-page-after` header of the previous page; the last page has no such header.
      `x-total-pages` and `x-total-results` count the whole search.
    - `POST search/es_dsl` returns the same for `{"query": …}`: see dsl.condition.
    - `POST search/filter/preview` and `POST search/es_dsl/preview` return the records themselves,
      20 per `page`.
    - `GET collect/{id}` returns a record, or 404 if no record has this id.
    - `POST collect` (`{"ids": […]}`, at most 1000) returns the records of all known ids, in the
      order of the list. Only the board has this endpoint: the vendor returns one record per
      request.

    `POST v1/professional_network/job/search/filter` and `GET …/job/collect/{id}` are the contract's
    older paths; the record of the latter has the older shape. Errors are `{"detail": text}`.
    """
    records = Records(results)
    routes = APIRouter(prefix=PREFIX)

    @routes.post("/v2/job_base/search/filter")
    @routes.post("/v1/professional_network/job/search/filter")
    async def search_by_filters(request: Request) -> Response:
        return await search_page(request, _filter_condition(await _json_body(request)))

    @routes.post("/v2/job_base/search/es_dsl")
    async def search_by_dsl(request: Request) -> Response:
        return await search_page(request, dsl.condition(await _json_body(request)))

    @routes.post("/v2/job_base/search/filter/preview")
    async def preview_by_filters(request: Request) -> Response:
        return await preview_page(request, _filter_condition(await _json_body(request)))

    @routes.post("/v2/job_base/search/es_dsl/preview")
    async def preview_by_dsl(request: Request) -> Response:
        return await preview_page(request, dsl.condition(await _json_body(request)))

    @routes.get("/v2/job_base/collect/{record_id}")
    async def collect(record_id: str) -> Response:
        return one(record_id, v1=False)

    @routes.get("/v1/professional_network/job/collect/{record_id}")
    async def collect_v1(record_id: str) -> Response:
        return one(record_id, v1=True)

    @routes.post("/v2/job_base/collect")
    async def collect_many(request: Request) -> Response:
        try:
            wanted = _CollectRequest.model_validate(await _json_body(request))
        except ValidationError as error:
            raise _invalid_body(error) from None
        found = await run_in_threadpool(records.collect, wanted.ids)
        return answers.json_response(b"[" + b",".join(found) + b"]")

    async def search_page(request: Request, wanted: Condition) -> Response:
        size = _int_parameter(request, "items_per_page", MAX_IDS, maximum=MAX_IDS)
        after = _int_parameter(request, "after", 0, maximum=_MAX_INT64)
        found = await run_in_threadpool(records.page, wanted, after, size)
        response = _with_totals(json.dumps(found.ids).encode(), found.total, size)
        if found.next_after is not None:
            response.headers["x-next-page-after"] = str(found.next_after)
        return response

    async def preview_page(request: Request, wanted: Condition) -> Response:
        page = _int_parameter(request, "page", 1, maximum=_MAX_INT64)
        found, total = await run_in_threadpool(records.preview, wanted, page)
        return _with_totals(b"[" + b",".join(found) + b"]", total, PREVIEW_SIZE)

    def one(record_id: str, *, v1: bool) -> Response:
        # A single indexed read is faster than a switch to a thread and back.
        number = _number(record_id, maximum=_MAX_INT64)
        found = None if number is None else records.one(number, v1=v1)
        if found is None:
            raise HTTPException(404, f"There is no job with the id {record_id!r}")
        return answers.json_response(found)

    return routes


def error_response(status: int) -> Response:
    """Returns the error response of this contract for 401 (no valid key) or 500 (a crash)."""
    if status == 401:
        return answers.error(401, "Missing or invalid API key: send one as apikey")
    return answers.error(status, "Internal server error")


class _CollectRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Annotated[
        list[Annotated[int, Field(strict=True, ge=1, le=_MAX_INT64)]], Field(max_length=MAX_IDS)
    ]


def _filter_condition(body: object) -> Condition:
    try:
        return filters.condition(JobFilters.model_validate(body))
    except ValidationError as error:
        raise _invalid_body(error) from None
    except InvalidExpression as error:
        raise HTTPException(422, str(error)) from None


async def _json_body(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"The body should be JSON: {error}") from None


def _int_parameter(request: Request, name: str, default: int, *, maximum: int) -> int:
    text = request.query_params.get(name)
    number = default if text is None else _number(text, maximum=maximum)
    if number is None:
        raise HTTPException(
            422, f"{name} should be a whole number from 1 to {maximum}, not {text!r}"
        )
    return number


def _number(text: str, *, maximum: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(maximum))):
        return None
    number = int(text)
    return number if 1 <= number <= maximum else None


def _invalid_body(error: ValidationError) -> HTTPException:
    problems = error.errors(include_url=False, include_input=False)
    said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in problems)
    return HTTPException(422, said)


def _with_totals(body: bytes, total: int, per_page: int) -> Response:
    response = answers.json_response(body)
    response.headers["x-total-results"] = str(total)
    response.headers["x-total-pages"] = str(-(-total // per_page))
    return response

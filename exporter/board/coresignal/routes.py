"""The board as a Coresignal API: searches that give ids, and the records of ids."""

from __future__ import annotations

import json
import sqlite3
import threading
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from exporter.board import answers, coresignal_records, database
from exporter.board.coresignal import dsl, filters
from exporter.board.expressions import Wrong
from exporter.board.search import Condition
from exporter.contracts.coresignal import MAX_IDS, JobFilters

PREFIX = "/cdapi"
"""How the paths of this contract begin."""
PREVIEWED = 20
_REMEMBERED = 16
"""Searches whose ids are kept: 8 MB each for a million postings."""
_LARGEST = 2**63 - 1


class Ids(NamedTuple):
    """A page of a search."""

    ids: list[int]
    following: int | None
    """What the next page comes after; None if there is none."""
    total: int


class Records:
    """The board's postings by record id. One connection a thread.

    Searches give ids in ascending order. An id belongs to its posting for ever, so whatever is
    replaced, added or taken out while pages are read, no posting that stays is missed or comes
    twice. The ids of a search are found once per state of the board, so a page costs the same at
    any depth.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.local()
        self._found = lru_cache(maxsize=_REMEMBERED)(self._find)

    def page(self, wanted: Condition, after: int, size: int) -> Ids:
        """The next `size` ids above `after` that meet the condition."""
        ids = self._matching(wanted)
        first = bisect_right(ids, after)
        found = ids[first : first + size].tolist()
        more = first + size < len(ids)
        return Ids(found, found[-1] if more else None, len(ids))

    def preview(self, wanted: Condition, page: int) -> tuple[list[bytes], int]:
        """The records of the PREVIEWED ids of page `page`, from 1, and how many there are."""
        ids = self._matching(wanted)
        first = min((page - 1) * PREVIEWED, len(ids))
        return self.collect(ids[first : first + PREVIEWED].tolist()), len(ids)

    def one(self, record_id: int, *, v1: bool = False) -> bytes | None:
        """The record with that id, or None."""
        row = self._connection().execute(
            "SELECT json FROM coresignal JOIN documents USING (number) WHERE record_id = ?",
            (record_id,),
        )
        found = row.fetchone()
        return coresignal_records.record(record_id, found[0], v1=v1) if found else None

    def collect(self, ids: Sequence[int]) -> list[bytes]:
        """The records of these ids, in their order; unknown ids are left out."""
        rows = self._connection().execute(
            "SELECT record_id, json FROM coresignal JOIN documents USING (number)"
            " WHERE record_id IN (SELECT value FROM json_each(?))",
            (json.dumps(ids),),
        )
        records = {known: coresignal_records.record(known, text, v1=False) for known, text in rows}
        return [records[one] for one in ids if one in records]

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = database.reader(self._path)
            filters.register(connection)
            self._thread.connection = connection
        return connection

    def _matching(self, wanted: Condition) -> array[int]:
        connection = self._connection()
        # One read transaction: what is found belongs to the state whose number it is kept under.
        connection.execute("BEGIN")
        try:
            return self._found(database.meta(connection, "version"), wanted)
        finally:
            connection.execute("COMMIT")

    def _find(self, version: int, wanted: Condition) -> array[int]:  # noqa: ARG002 - a key
        rows = self._connection().execute(
            f"SELECT record_id FROM {filters.TABLES}"  # noqa: S608 - values are bound
            f" WHERE {wanted.sql} ORDER BY record_id",
            wanted.values,
        )
        return array("q", (row[0] for row in rows))


def router(path: Path) -> APIRouter:
    """Under `/cdapi`, with `v2/job_base/` before each:

    - `POST search/filter` (body: the filters; see JobFilters and coresignal_filters.condition)
      gives an array of record ids. `items_per_page` is 1 to 1000, by default 1000; `after` is the
      `x-next-page-after` of the page before, and the page without one is the last. `x-total-pages`
      and `x-total-results` count the whole search.
    - `POST search/es_dsl` gives the same for `{"query": …}`: see coresignal_dsl.condition.
    - `POST search/filter/preview` and `POST search/es_dsl/preview` give the records themselves, 20
      a `page`.
    - `GET collect/{id}` gives a record, 404 if there is none with this id.
    - `POST collect` (`{"ids": […]}`, at most 1000) gives the records of all ids that there are, in
      the order of the list. It is the board's own: the vendor collects one by one.

    `POST v1/professional_network/job/search/filter` and `GET …/job/collect/{id}` are the older
    names; the record of the latter has the older shape. Errors are `{"detail": text}`.
    """
    records = Records(path)
    routes = APIRouter(prefix=PREFIX)

    @routes.post("/v2/job_base/search/filter")
    @routes.post("/v1/professional_network/job/search/filter")
    async def search_by_filters(request: Request) -> Response:
        return await searched(request, _filtered(await _body(request)))

    @routes.post("/v2/job_base/search/es_dsl")
    async def search_by_dsl(request: Request) -> Response:
        return await searched(request, dsl.condition(await _body(request)))

    @routes.post("/v2/job_base/search/filter/preview")
    async def preview_by_filters(request: Request) -> Response:
        return await previewed(request, _filtered(await _body(request)))

    @routes.post("/v2/job_base/search/es_dsl/preview")
    async def preview_by_dsl(request: Request) -> Response:
        return await previewed(request, dsl.condition(await _body(request)))

    @routes.get("/v2/job_base/collect/{record_id}")
    async def collect(record_id: str) -> Response:
        return one(record_id, v1=False)

    @routes.get("/v1/professional_network/job/collect/{record_id}")
    async def collect_v1(record_id: str) -> Response:
        return one(record_id, v1=True)

    @routes.post("/v2/job_base/collect")
    async def collect_many(request: Request) -> Response:
        try:
            wanted = _Wanted.model_validate(await _body(request))
        except ValidationError as error:
            raise _refused(error) from None
        found = await run_in_threadpool(records.collect, wanted.ids)
        return answers.reply(b"[" + b",".join(found) + b"]")

    async def searched(request: Request, wanted: Condition) -> Response:
        size = _asked(request, "items_per_page", MAX_IDS, most=MAX_IDS)
        after = _asked(request, "after", 0, most=_LARGEST)
        found = await run_in_threadpool(records.page, wanted, after, size)
        response = _counted(json.dumps(found.ids).encode(), found.total, size)
        if found.following is not None:
            response.headers["x-next-page-after"] = str(found.following)
        return response

    async def previewed(request: Request, wanted: Condition) -> Response:
        page = _asked(request, "page", 1, most=_LARGEST)
        found, total = await run_in_threadpool(records.preview, wanted, page)
        return _counted(b"[" + b",".join(found) + b"]", total, PREVIEWED)

    def one(record_id: str, *, v1: bool) -> Response:
        # One indexed read: handing it to a thread and back would take longer.
        number = _number(record_id, most=_LARGEST)
        found = None if number is None else records.one(number, v1=v1)
        if found is None:
            raise HTTPException(404, f"There is no job with the id {record_id!r}")
        return answers.reply(found)

    return routes


def refusal(status: int) -> Response:
    """What this contract answers without a valid key, and after a crash."""
    if status == 401:
        return answers.detail(401, "Missing or invalid API key: send one as apikey")
    return answers.detail(status, "Internal server error")


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: Annotated[
        list[Annotated[int, Field(strict=True, ge=1, le=_LARGEST)]], Field(max_length=MAX_IDS)
    ]


def _filtered(body: object) -> Condition:
    try:
        return filters.condition(JobFilters.model_validate(body))
    except ValidationError as error:
        raise _refused(error) from None
    except Wrong as error:
        raise HTTPException(422, str(error)) from None


async def _body(request: Request) -> object:
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"The body should be JSON: {error}") from None


def _asked(request: Request, name: str, default: int, *, most: int) -> int:
    text = request.query_params.get(name)
    number = default if text is None else _number(text, most=most)
    if number is None:
        raise HTTPException(422, f"{name} should be a whole number from 1 to {most}, not {text!r}")
    return number


def _number(text: str, *, most: int) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
        return None
    number = int(text)
    return number if 1 <= number <= most else None


def _refused(error: ValidationError) -> HTTPException:
    problems = error.errors(include_url=False, include_input=False)
    said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in problems)
    return HTTPException(422, said)


def _counted(body: bytes, total: int, per_page: int) -> Response:
    response = answers.reply(body)
    response.headers["x-total-results"] = str(total)
    response.headers["x-total-pages"] = str(-(-total // per_page))
    return response

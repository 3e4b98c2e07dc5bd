"""A source that reads Qwestly's job search, by numbered pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

import msgspec
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from exporter.clock import Clock
from exporter.contracts.described import Filter, describe
from exporter.contracts.filters import Strict, Text
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget
from exporter.errors import SourceRefused, SourceUntrue
from exporter.sources.base import Page, Search, Source
from exporter.sources.checking import validate
from exporter.sources.config import HttpConfig, InFlight
from exporter.sources.http.json_pages import python_reader, reader, text_of
from exporter.sources.http.numbered import Lookups, fetch_or_shrink, first_place
from exporter.sources.http.numbered_pages import Answer, Place, check_page, next_cursor

COLUMNS = (
    *("_id", "source_id", "status", "title", "location", "location_type", "employment_type"),
    *("company_name", "company_id", "org_unit_name", "org_unit_id", "parent_org_id"),
    *("exploratory_job_id", "job_family", "is_epd", "has_equity", "equity_details", "benefits"),
    *("compensation", "team", "description", "responsibilities", "must_have", "nice_to_have"),
    *("metadata", "hm_additional_info", "llm_role_summary", "is_publicly_accessible"),
    *("created_at", "updated_at"),
)
"""The fields of a job, in the order of the vendor's documentation."""
TYPES: Mapping[str, str] = {
    **dict.fromkeys(("is_epd", "has_equity", "is_publicly_accessible"), "flag"),
    **dict.fromkeys(("created_at", "updated_at"), "moment"),
}
"""Types of fields. Of the others, the vendor documents only the names."""
PATH = "/api/external/search/jobs"
MAX_PAGE_SIZE = 200
"""Maximum number of jobs on one page."""
_OBJECT_ID = re.compile("[0-9a-f]{24}")
_UNKNOWN = '"Job not found"'


class _Pagination(msgspec.Struct, rename="camel"):
    total_count: Annotated[int, msgspec.Meta(ge=0)]
    current_page: int
    limit: int


class _Answer(msgspec.Struct):
    success: bool
    data: list[msgspec.Raw]
    pagination: _Pagination


class _Single(msgspec.Struct):
    success: bool
    data: msgspec.Raw


def _object_id(value: str | None) -> str | None:
    if value is None:
        return None
    if not _OBJECT_ID.fullmatch(value.casefold()):
        raise PydanticCustomError("object_id", "Input should be 24 hexadecimal digits")
    return value.casefold()


class JobSearch(Strict):
    """Validates the vendor's filters; null counts as an absent filter."""

    status: Text = Field(None, description="If absent, upstream gives active jobs.")
    company_id: Annotated[Text, AfterValidator(_object_id)] = None
    job_family: Text = None
    location_type: Text = None
    search: Text = Field(None, description="Full-text search.")


class QwestlyConfig(HttpConfig):
    """Qwestly's job search."""

    documented_columns: ClassVar[tuple[str, ...]] = COLUMNS
    documented_types: ClassVar[Mapping[str, str]] = TYPES
    filters: ClassVar[tuple[Filter, ...]] = describe(JobSearch)

    type: Literal["qwestly"] = "qwestly"
    max_in_flight: InFlight = 8
    """Maximum number of pages or jobs that one worker requests at the same time."""

    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        return QwestlySource(self, clock, budget)


class QwestlySource:
    """Reads a job search: `[sources.NAME]` with type "qwestly"."""

    def __init__(self, config: QwestlyConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.names or COLUMNS
        self.identity: str | None = "_id"
        self.tolerated_drift = config.tolerated_drift
        self._lookups = Lookups.for_rate(config.max_in_flight, config.rate)
        self.lookup_size = self._lookups.size
        self.read_ahead = self._lookups.at_once
        self._page_size = min(config.page_size, MAX_PAGE_SIZE)
        self._upstream = config.connect(
            {"authorization": f"Bearer {config.api_key}"}, clock, budget
        )
        self._read = reader(_Answer, "data", self.identity)
        self._read_one = python_reader(_Single, "data")

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Checks a caller's filters and returns them in the form that is stored and sent upstream.

        Raises QueryError for unknown or wrong filters, and for page and limit, which the export
        itself chooses.
        """
        query = validate(JobSearch, raw).model_dump(exclude_none=True)
        return Search(query=query, echo=query)

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def start(self, limit: int | None, offset: int) -> Cursor:
        return msgspec.to_builtins(first_place(limit, offset, self._page_size))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page at `cursor`; only a page without rows is the last.

        The page after the last row is therefore fetched too; it announces the total once more. If
        the upstream fails to return a page of this size, a smaller page is fetched, and all
        following pages have the smaller size.
        """
        deadline = self._upstream.deadline()
        return fetch_or_shrink(
            msgspec.convert(cursor, Place),
            lambda at, can_shrink: self._page(query, at, deadline, can_shrink=can_shrink),
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """Returns the cursor of the page with the next number, at the same page size."""
        return next_cursor(cursor)

    def count(self, query: Mapping[str, Any]) -> int:
        """Returns the total of the search; requests a page of one job that announces it."""
        page = self._page(query, Place(page=1, size=1), self._upstream.deadline())
        assert page.total is not None
        return page.total

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """Returns the jobs with these ids, by id; ids without a job are left out.

        Sends one request for each id, several at the same time.
        """
        deadline = self._upstream.deadline()
        return self._lookups.run(ids, lambda id_: self._job(id_, deadline))

    def close(self) -> None:
        self._upstream.close()

    def _page(
        self, query: Mapping[str, Any], at: Place, deadline: float, *, can_shrink: bool = False
    ) -> Page:
        def read(body: bytes) -> Page:
            answer = self._read(body)
            if not answer.success:
                raise SourceUntrue("success: false")
            said = answer.pagination
            return check_page(
                Answer(answer.data, said.total_count, page=said.current_page, limit=said.limit), at
            )

        path = f"{PATH}?{urlencode({**query, 'page': at.page, 'limit': at.size})}"
        return self._upstream.request("GET", path, read, deadline=deadline, can_shrink=can_shrink)

    def _job(self, id_: str, deadline: float) -> Row | None:
        wanted = id_.casefold()
        if not _OBJECT_ID.fullmatch(wanted):
            return None  # upstream answers 400 to an id of another form, and has no such job

        def read(body: bytes) -> Row:
            answer = self._read_one(body)
            if not answer.success or text_of(answer.data, "_id") != wanted:
                raise SourceUntrue(f"an answer that is not the job {wanted}")
            return answer.data

        try:
            return self._upstream.request("GET", f"{PATH}/{wanted}", read, deadline=deadline)
        except SourceRefused as error:
            # The text is checked too: with a wrong base_url every request is answered with 404.
            if error.status == 404 and _UNKNOWN in str(error):
                return None
            raise

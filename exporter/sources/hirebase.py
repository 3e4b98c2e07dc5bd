"""A source that reads a Hirebase upstream: searches, expired postings and single postings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from exporter.clock import Clock
from exporter.contracts.described import Filter
from exporter.contracts.hirebase import FILTERS, ExpiredSearch, JobSearch
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget
from exporter.errors import QueryError, SourceRefused, SourceUntrue, problem
from exporter.sources.base import PAST_THE_END, Page, Search, Source
from exporter.sources.catalogue import LISTED_FILTERS, Catalogue
from exporter.sources.checking import validate
from exporter.sources.config import HttpConfig, InFlight
from exporter.sources.http.charsets import enclosed
from exporter.sources.http.json_pages import reader
from exporter.sources.http.numbered import Lookups, fetch_or_shrink, first_place
from exporter.sources.http.numbered_pages import Answer, Place, check_page, next_cursor

T = TypeVar("T")

# fmt: off
COLUMNS = (
    "_id", "company_name", "job_title", "job_title_raw", "description", "description_raw",
    "requirements_summary", "application_link", "company_link", "company_logo", "job_board",
    "job_board_link", "company_slug", "job_slug", "job_type", "location_type", "location_raw",
    "locations", "date_posted", "expired", "salary_range", "yoe_range", "experience_level",
    "education_level", "job_categories", "technologies", "skills", "benefits", "team", "language",
    "visa_sponsored", "recruiter_agency", "offers_equity", "contact_email", "contact_phone",
    "coolness_score", "flexibility_score", "compensation_value_score", "benefits_score",
    "impact_autonomy_score", "prestige_score", "growth_score", "score", "vector_score",
    "company_data",
)
# fmt: on
"""The fields of a posting, as the vendor documents them.

`_id` is first, where the official client expects it.
"""
TYPES: Mapping[str, str] = {
    **dict.fromkeys(COLUMNS, "text"),
    **dict.fromkeys(
        ("locations", "salary_range", "yoe_range", "job_categories", "technologies", "skills"),
        "json",
    ),
    **dict.fromkeys(("benefits", "company_data"), "json"),
    **dict.fromkeys(("expired", "visa_sponsored", "recruiter_agency", "offers_equity"), "flag"),
    **dict.fromkeys((one for one in COLUMNS if one.endswith("score")), "float"),
    "date_posted": "date",
}
"""Types of the fields."""

SEARCH, EXPIRED, JOB = "/v2/jobs/search", "/v2/jobs/expired-jobs", "/v2/jobs/"
MAX_INTERACTIVE_SECONDS = 8.0
"""Time limit of an upstream request for whose answer a caller of the API is waiting."""
MAX_CATALOGUE_SECONDS = 3.0
"""Time limit for fetching a list of allowed values while an export is created.

It is short because the list only serves to find mistakes early.
"""


class Listing(NamedTuple):
    """One page of the upstream, whose shape and counts were checked; callers get it unchanged."""

    body: bytes
    """The body, byte for byte as the upstream sent it."""
    rows: int
    """The number of postings on the page."""


class HirebaseConfig(HttpConfig):
    """A Hirebase-compatible API."""

    documented_columns: ClassVar[tuple[str, ...]] = COLUMNS
    documented_types: ClassVar[Mapping[str, str]] = TYPES
    filters: ClassVar[tuple[Filter, ...]] = FILTERS

    type: Literal["hirebase"] = "hirebase"
    max_in_flight: InFlight = 8
    """Maximum number of pages or postings that one worker requests at the same time."""

    def feature(self, search: Mapping[str, Any]) -> str:
        return "expired" if "expired_since" in search else "export"

    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        return HirebaseSource(self, clock, budget)


class HirebaseSource:
    """Reads a search of a Hirebase-compatible upstream.

    Configured by `[sources.NAME]` with type "hirebase". The search `{"expired_since": …}` instead
    reads the ids of postings that have expired, for which the upstream does not charge.
    """

    def __init__(self, config: HirebaseConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.names or COLUMNS
        self.identity: str | None = "_id"
        self.tolerated_drift = config.tolerated_drift
        self._lookups = Lookups.for_rate(config.max_in_flight, config.rate)
        self.lookup_size = self._lookups.size
        self.read_ahead = self._lookups.at_once
        self._clock = clock
        self._page_size = config.page_size
        self._upstream = config.connect({"x-api-key": config.api_key}, clock, budget)
        self._read = reader(Answer, "jobs", self.identity)
        self.catalogue = Catalogue(self._get_list, clock)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Validates a Hirebase search body and returns its canonical form.

        `limit` is the number of records wanted, and `page` counts pages of that size: page 3 of
        limit 50 starts at record 101. Raises QueryError for a page above 1 without a limit, and for
        an industry, sub-industry or category that the upstream does not list. If the upstream does
        not answer, any such value is accepted.
        """
        if "expired_since" in raw:
            return _expired(raw)
        search = validate(JobSearch, raw)
        page = search.page or 1
        if page > 1 and search.limit is None:
            raise QueryError([problem(("page",), f"page {page} needs `limit`")])
        return Search(
            query=self.catalogue.with_listed_spelling(search.canonical(now)),
            echo=search.echo(),
            limit=search.limit,
            offset=(page - 1) * (search.limit or 0),
        )

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:
        """True if the search has a filter whose values the upstream lists."""
        return not LISTED_FILTERS.isdisjoint(raw)

    def listed_values(self) -> Mapping[str, Sequence[str]]:
        return self.catalogue.listed_values()

    def start(self, limit: int | None, offset: int) -> Cursor:
        return msgspec.to_builtins(first_place(limit, offset, self._page_size))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page at `cursor`; only a page without rows is the last.

        The page after the last row is therefore fetched too: if the source relied on a total that
        is too small by mistake, the export would end early. That page costs nothing and announces
        the total once more. If the upstream fails to return a page of this size, a smaller page is
        fetched, and all following pages have the smaller size; each row is still read exactly once.
        """
        deadline = self._upstream.deadline()
        return fetch_or_shrink(
            msgspec.convert(cursor, Place),
            lambda at, can_shrink: self._fetch(query, at, deadline, can_shrink=can_shrink),
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """Returns the cursor of the page with the next number, at the same page size."""
        return next_cursor(cursor)

    def _fetch(
        self, query: Mapping[str, Any], at: Place, deadline: float, *, can_shrink: bool
    ) -> Page:
        return self._ask(
            query,
            at,
            lambda body: check_page(self._read(body), at),
            deadline=deadline,
            can_shrink=can_shrink,
        )

    def _ask(
        self,
        query: Mapping[str, Any],
        at: Place,
        read: Callable[[bytes], T],
        *,
        deadline: float,
        can_shrink: bool = False,
    ) -> T:
        since = query.get("expired_since")
        if since is None:
            method, path, json = "POST", SEARCH, {**query, "page": at.page, "limit": at.size}
        else:
            asked = urlencode({"since": since, "page": at.page, "limit": at.size})
            method, path, json = "GET", f"{EXPIRED}?{asked}", None
        return self._upstream.request(
            method, path, read, json=json, deadline=deadline, can_shrink=can_shrink
        )

    def count(self, query: Mapping[str, Any]) -> int:
        """Returns the total announced on a page far beyond the end.

        That page has no rows, so it costs nothing. If the upstream refuses it, or sends another
        page instead, a first page of one row is requested. The call takes at most
        MAX_INTERACTIVE_SECONDS, because a caller waits for the count.
        """
        far, first = Place(page=1_000_000, size=self._page_size), Place(page=1, size=1)
        deadline = self._interactive_deadline()
        try:
            page = self._fetch(query, far, deadline, can_shrink=False)
        except (SourceRefused, SourceUntrue) as error:
            if isinstance(error, SourceRefused) and error.status not in PAST_THE_END:
                raise
            page = self._fetch(query, first, deadline, can_shrink=False)
        assert page.total is not None
        return page.total

    def listing(self, query: Mapping[str, Any], page: int, limit: int) -> Listing:
        """Returns one page, byte for byte as the upstream sent it.

        The number of its rows has been compared with its total. The call takes at most
        MAX_INTERACTIVE_SECONDS. Raises the same errors as `fetch`.
        """
        at = Place(page=page, size=limit)

        def verified(body: bytes) -> Listing:
            return Listing(body, len(check_page(self._read(body), at).rows))

        return self._ask(query, at, verified, deadline=self._interactive_deadline())

    def posting(self, id_: str) -> Row | None:
        """Returns the posting with that id; None if the upstream does not have it.

        The call takes at most MAX_INTERACTIVE_SECONDS. Raises the same errors as `fetch`.
        """
        return self._posting(id_, self._interactive_deadline())

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """Returns the postings with these ids, by id; ids without a posting are left out.

        Sends one request for each id, several at the same time.
        """
        deadline = self._upstream.deadline()
        return self._lookups.run(ids, lambda id_: self._posting(id_, deadline))

    def close(self) -> None:
        self._upstream.close()

    def _posting(self, id_: str, deadline: float) -> Row | None:
        def read(body: bytes) -> Row:
            # Read as the only row of a page, so that odd JSON is accepted as it is on pages.
            rows = self._read(enclosed(b'{"jobs":[', body, b'],"total_count":1}')).jobs
            if len(rows) != 1 or not bytes(rows[0]).startswith(b"{"):
                raise SourceUntrue("something that is not a posting")
            return rows[0]

        try:
            return self._upstream.request("GET", JOB + quote(id_, safe=""), read, deadline=deadline)
        except SourceRefused as error:
            if error.status == 404:
                return None
            raise

    def _get_list(self, path: str) -> bytes:
        deadline = self._clock.monotonic() + MAX_CATALOGUE_SECONDS
        return self._upstream.request("GET", path, bytes, deadline=deadline)

    def _interactive_deadline(self) -> float:
        return min(self._upstream.deadline(), self._clock.monotonic() + MAX_INTERACTIVE_SECONDS)


def _expired(raw: Mapping[str, Any]) -> Search:
    asked = validate(ExpiredSearch, raw)
    return Search(
        query={"expired_since": asked.expired_since},
        echo={"since": raw["expired_since"], "limit": asked.limit},
        limit=asked.limit,
    )

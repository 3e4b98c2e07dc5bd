"""Reading a Hirebase upstream: searches page by numbered page, expired postings, single ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from exporter.clock import Clock
from exporter.config import SourceConfig
from exporter.contracts.expired import ExpiredSearch
from exporter.contracts.hirebase import JobSearch
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget
from exporter.errors import (
    QueryError,
    SourceRefused,
    SourceUntrue,
)
from exporter.sources.base import Page, Search
from exporter.sources.catalogue import Catalogue
from exporter.sources.checking import validate
from exporter.sources.http.client import Upstream
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
"""The posting object as the vendor documents it; `_id` first, where the official client looks."""

SEARCH, EXPIRED, JOB = "/v2/jobs/search", "/v2/jobs/expired-jobs", "/v2/jobs/"
MAX_INTERACTIVE_SECONDS = 8.0
"""Seconds for an answer that a caller of ours waits for, and no export."""
MAX_CATALOGUE_SECONDS = 3.0
"""Seconds that creating an export waits for a list that only helps to find mistakes early."""


class Listing(NamedTuple):
    """A page that is passed on."""

    body: bytes
    """As upstream wrote it, byte for byte."""
    rows: int
    """How many postings it holds."""


class HirebaseSource:
    """A search of a Hirebase-compatible upstream: `[sources.NAME]` with type "hirebase".

    A search of `{"expired_since": …}` reads the identifiers of expired postings instead, which
    upstream does not bill.
    """

    def __init__(self, config: SourceConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.columns or COLUMNS
        self.identity: str | None = "_id"
        self.tolerated_drift = config.tolerated_drift
        self._lookups = Lookups.for_rate(config.max_in_flight, config.rate)
        self.lookup_size = self._lookups.size
        self.read_ahead = self._lookups.at_once
        self._clock = clock
        self._page_size = config.page_size
        self._upstream = Upstream(
            config.base_url,
            {"x-api-key": config.api_key},
            clock,
            budget=budget,
            timeout=config.page_timeout.total_seconds(),
        )
        self._read = reader(Answer, "jobs")
        self.catalogue = Catalogue(self._get_list, clock)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """A Hirebase search body made canonical.

        `limit` is the number of records wanted. `page` then means what it means in a search:
        page 3 of limit 50 starts at record 101. A page above 1 without a limit has no such
        meaning and is an error. So is an industry, sub-industry or category that upstream does
        not list, unless it cannot be asked.
        """
        if "expired_since" in raw:
            return _expired(raw)
        search = validate(JobSearch, raw)
        page = search.page or 1
        if page > 1 and search.limit is None:
            raise QueryError(
                [{"loc": ("page",), "msg": f"page {page} needs a limit", "type": "value_error"}]
            )
        return Search(
            query=self.catalogue.with_listed_spelling(search.canonical(now)),
            echo=search.echo(),
            limit=search.limit,
            offset=(page - 1) * (search.limit or 0),
        )

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Pages of equal size that together just cover the limit: upstream bills each row."""
        return msgspec.to_builtins(first_place(limit, offset, self._page_size))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """The page. Only an empty one is the last: a total that is too small by mistake would
        otherwise end the export early, so the page past the end is asked for too. Upstream
        answers it with no rows, which cost nothing, and the total once more.

        A page that upstream does not manage is asked for in smaller pieces, and so are all that
        follow: each row still comes once."""
        deadline = self._upstream.deadline()
        return fetch_or_shrink(
            msgspec.convert(cursor, Place),
            lambda at, can_shrink: self._fetch(query, at, deadline, can_shrink=can_shrink),
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:
        """The page of the next number."""
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
        """The total that a page far past the end announces: it holds no row, so it costs nothing.

        Gives up after PATIENCE, because somebody waits for it.
        """
        far = Place(page=1_000_000, size=self._page_size)
        page = self._fetch(query, far, self._interactive_deadline(), can_shrink=False)
        assert page.total is not None
        return page.total

    def listing(self, query: Mapping[str, Any], page: int, limit: int) -> Listing:
        """One page as upstream wrote it, if it holds what it promises.

        Gives up after PATIENCE. Raises as `fetch` does.
        """
        at = Place(page=page, size=limit)

        def verified(body: bytes) -> Listing:
            return Listing(body, len(check_page(self._read(body), at).rows))

        return self._ask(query, at, verified, deadline=self._interactive_deadline())

    def posting(self, id_: str) -> Row | None:
        """The posting of that id, or None if upstream has none; gives up after PATIENCE."""
        return self._posting(id_, self._interactive_deadline())

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """The postings of these ids, by one request each, several at once; see Source.lookup."""
        deadline = self._upstream.deadline()
        return self._lookups.run(ids, lambda id_: self._posting(id_, deadline))

    def close(self) -> None:
        self._upstream.close()

    def _posting(self, id_: str, deadline: float) -> Row | None:
        def read(body: bytes) -> Row:
            # As the only row of a page it is cut out as tolerantly as rows of pages are.
            rows = self._read(b'{"jobs":[' + body + b'],"total_count":1}').jobs
            if len(rows) != 1 or not bytes(rows[0]).startswith(b"{"):
                raise SourceUntrue("something that is no posting")
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

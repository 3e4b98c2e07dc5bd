"""Reading the Hirebase job search, page by numbered page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
import structlog
from pydantic import ValidationError

from exporter.admission import UNLIMITED, Budget
from exporter.checkpoints import Cursor
from exporter.clock import Clock
from exporter.errors import FieldProblem, PageTooLarge, QueryError, SourceUntrue
from exporter.queries import JobSearch
from exporter.settings import SourceConfig
from exporter.sources.base import Page, Search
from exporter.sources.http import Upstream
from exporter.sources.pages import reader

log = structlog.get_logger()

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

PATH = "/v2/jobs/search"


class _Answer(msgspec.Struct):
    jobs: list[msgspec.Raw]
    total_count: Annotated[int, msgspec.Meta(ge=0)]
    page: int | None = None
    limit: int | None = None


class _Cursor(msgspec.Struct):
    page: int
    """Counted from 1, as upstream counts."""
    size: int
    skip: int = 0
    """Rows at the head of this page that the caller did not ask for."""
    follows: bool = False
    """Whether a page with rows came before this one."""


class HirebaseSource:
    """A search of a Hirebase-compatible upstream: `[sources.NAME]` with type "hirebase"."""

    def __init__(self, config: SourceConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.columns or COLUMNS
        self.identity: str | None = "_id"
        self.tolerated_drift = config.tolerated_drift
        self._page_size = config.page_size
        self._upstream = Upstream(
            config.base_url,
            {"x-api-key": config.api_key},
            clock,
            budget=budget,
            timeout=config.page_timeout.total_seconds(),
        )
        self._read = reader(_Answer, "jobs")

    def search(self, raw: Mapping[str, Any], now: datetime) -> Search:
        """A Hirebase search body made canonical.

        `limit` is the number of records wanted. `page` then means what it means in a search:
        page 3 of limit 50 starts at record 101. A page above 1 without a limit has no such
        meaning and is an error.
        """
        try:
            search = JobSearch.model_validate(raw)
        except ValidationError as error:
            raise QueryError([_problem(dict(e)) for e in error.errors(include_url=False)]) from None
        page = search.page or 1
        if page > 1 and search.limit is None:
            raise QueryError(
                [{"loc": ("page",), "msg": f"page {page} needs a limit", "type": "value_error"}]
            )
        return Search(
            query=search.canonical(now),
            echo=search.echo(),
            limit=search.limit,
            offset=(page - 1) * (search.limit or 0),
        )

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Pages of equal size that together just cover the limit: upstream bills each row."""
        size = self._page_size
        if limit is not None:
            pages = -(-limit // size)
            size = -(-limit // pages)
        return msgspec.to_builtins(_Cursor(page=offset // size + 1, size=size, skip=offset % size))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """The page. Only an empty one is the last: a total that is too small by mistake would
        otherwise end the export early, so the page past the end is asked for too. Upstream
        answers it with no rows, which cost nothing, and the total once more.

        A page that upstream does not manage is asked for in smaller pieces, and so are all that
        follow: each row still comes once."""
        first = at = msgspec.convert(cursor, _Cursor)
        deadline = self._upstream.deadline()
        while True:
            smaller = _smaller(at)
            try:
                return self._fetch(query, at, deadline, can_shrink=smaller is not None)
            except PageTooLarge as error:
                # What may have another reason than the size is tried with one other size only.
                if smaller is None or (error.guess and at is not first):
                    raise
                log.warning(
                    "source.page_shrunk", size=at.size, smaller=smaller.size, reason=str(error)
                )
                at = smaller

    def _fetch(
        self, query: Mapping[str, Any], at: _Cursor, deadline: float, *, can_shrink: bool
    ) -> Page:
        return self._upstream.ask(
            "POST",
            PATH,
            lambda body: _page(self._read(body), at),
            json={**query, "page": at.page, "limit": at.size},
            deadline=deadline,
            can_shrink=can_shrink,
        )

    def close(self) -> None:
        self._upstream.close()


def _page(answer: _Answer, at: _Cursor) -> Page:
    """The page, if it holds exactly the rows that its own total promises for this place."""
    if answer.limit not in (None, at.size) or answer.page not in (None, at.page):
        raise SourceUntrue(
            f"page {answer.page} of {answer.limit} rows where page {at.page} of {at.size} was "
            "asked for (is page_size above what it takes?)"
        )
    before = (at.page - 1) * at.size
    promised = min(max(answer.total_count - before, 0), at.size)
    if len(answer.jobs) != promised:
        raise SourceUntrue(
            f"{len(answer.jobs)} rows on page {at.page} where its total_count of "
            f"{answer.total_count} promises {promised}"
        )
    if at.follows and answer.total_count <= before - at.size:
        raise SourceUntrue(
            f"total_count {answer.total_count} on page {at.page}, although the page before it, "
            f"from row {before - at.size + 1} on, had rows"
        )
    following = _Cursor(page=at.page + 1, size=at.size, follows=True)
    return Page(
        rows=answer.jobs[at.skip :],
        next=msgspec.to_builtins(following) if promised else None,
        total=answer.total_count,
    )


def _smaller(at: _Cursor) -> _Cursor | None:
    """The beginning of that page as a page of the next smaller size, which divides this one so that
    a page begins where this one does; None if there is no smaller one."""
    size = next((size for size in range(at.size // 2, 0, -1) if at.size % size == 0), None)
    if size is None:
        return None
    # That the page before had rows says nothing about the last of them, so `follows` is dropped.
    page, skip = divmod((at.page - 1) * at.size + at.skip, size)
    return _Cursor(page=page + 1, size=size, skip=skip)


def _problem(error: dict[str, Any]) -> FieldProblem:
    return {"loc": tuple(error["loc"]), "msg": error["msg"], "type": error["type"]}

"""A source that reads the jobs of a Bindbee connector, cursor by cursor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

import msgspec
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from exporter.clock import Clock
from exporter.contracts import timestamps
from exporter.contracts.described import Filter, describe
from exporter.contracts.filters import Flag, Shown, Strict, Text, Texts, as_list
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget, Rate
from exporter.errors import SourceUntrue
from exporter.sources.base import Page, Search, Source
from exporter.sources.checking import validate
from exporter.sources.config import HeaderSecret, HttpConfig, RateLimit
from exporter.sources.http.json_pages import reader, text_of

COLUMNS = (
    *("id", "remote_id", "modified_at", "custom_fields", "name", "description", "code", "status"),
    *("job_posting_urls", "remote_created_at", "remote_updated_at", "confidential", "departments"),
    *("offices", "hiring_managers", "recruiters", "raw_data"),
)
"""The fields of a job, in the order of the vendor's documentation."""
TYPES: Mapping[str, str] = {
    **dict.fromkeys(("modified_at", "remote_created_at", "remote_updated_at"), "moment"),
    **dict.fromkeys(("custom_fields", "job_posting_urls", "departments", "offices"), "json"),
    **dict.fromkeys(("hiring_managers", "recruiters", "raw_data"), "json"),
    "confidential": "flag",
}
"""Types of the fields that are not text."""
PATH = "/api/ats/v1/jobs"
MAX_PAGE_SIZE = 200
"""Maximum number of jobs on one page, and of ids in one filter.

More ids would exceed the request line that servers commonly accept.
"""
_UUID = re.compile("-".join(f"[0-9a-f]{{{digits}}}" for digits in (8, 4, 4, 4, 12)))


class _Answer(msgspec.Struct):
    cursor: Annotated[str, msgspec.Meta(min_length=1)] | None
    page_size: int
    items: list[msgspec.Raw]


class _Place(msgspec.Struct):
    cursor: str | None
    """The cursor that the vendor returned for this page; None for the first page."""
    size: int
    """The page size of the first request: the vendor requires one size for all pages of a list."""
    skip: int = 0
    """Number of rows, from the beginning of this page on, that the caller's offset skips."""


def _moment(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return timestamps.sortable(timestamps.parse(value.strip()))
    except ValueError:
        raise PydanticCustomError(
            "datetime_parsing", "Input should be a date and time such as 2024-02-21T21:22:12.993Z"
        ) from None


def _ids(value: object) -> object:
    """Returns the ids of a filter as a list of texts without surrounding spaces.

    `value` is a comma-separated text or a list of texts. A value of another type is returned
    unchanged, and the model then refuses it.
    """
    if value is None or not isinstance(value, str | list | tuple):
        return value
    texts = value.split(",") if isinstance(value, str) else value
    if len(texts) > MAX_PAGE_SIZE:
        raise PydanticCustomError(
            "too_long",
            "{count} ids, but at most {most} are allowed: create an export of listed ids instead",
            {"count": len(texts), "most": MAX_PAGE_SIZE},
        )
    return [text.strip() if isinstance(text, str) else text for text in texts]


Ids = Annotated[Texts, BeforeValidator(_ids)]


class JobSearch(Strict):
    """Validates the vendor's filters; null counts as an absent filter.

    `ids` and `offices` are comma-separated texts or lists of texts; a flag is a boolean, "true" or
    "false".
    """

    ids: Ids = None
    remote_id: Text = None
    code: Text = None
    status: Text = Field(
        None, description="OPEN, CLOSED or another status, possibly defined by the connector."
    )
    offices: Ids = None
    modified_after: Annotated[Text, BeforeValidator(_moment), Shown("time")] = Field(
        None, description="An ISO 8601 date and time; in UTC without a time zone."
    )
    expand: Text = None
    include_raw_data: Flag = None
    include_custom_fields: Flag = None

    def canonical(self) -> dict[str, str]:
        """Returns the query parameters of a request, all as text, without absent filters."""
        given = {
            "ids": ",".join(dict.fromkeys(as_list(self.ids))),
            "remote_id": self.remote_id,
            "code": self.code,
            "status": self.status,
            "offices": ",".join(dict.fromkeys(as_list(self.offices))),
            "modified_after": self.modified_after,
            "expand": self.expand,
            "include_raw_data": "true" if self.include_raw_data else None,
            "include_custom_fields": "true" if self.include_custom_fields else None,
        }
        return {name: value for name, value in given.items() if value}


class BindbeeConfig(HttpConfig):
    """The jobs of one Bindbee connector."""

    documented_columns: ClassVar[tuple[str, ...]] = COLUMNS
    documented_types: ClassVar[Mapping[str, str]] = TYPES
    filters: ClassVar[tuple[Filter, ...]] = describe(JobSearch)

    type: Literal["bindbee"] = "bindbee"
    connector_token: Annotated[HeaderSecret, Field(min_length=1)]
    """Token of the end customer whose jobs are read."""
    rate: RateLimit | None = Rate(200, 60)
    """Rate limit of all workers together; default: the vendor's."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_max_in_flight(cls, value: Any) -> Any:
        if isinstance(value, dict) and "max_in_flight" in value:
            raise ValueError(
                "max_in_flight has no effect with type bindbee, whose pages are read one after the "
                "other: leave it out"
            )
        return value

    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        return BindbeeSource(self, clock, budget)


class BindbeeSource:
    """Reads the jobs of one connector: `[sources.NAME]` with type "bindbee"."""

    read_ahead = 1

    def __init__(self, config: BindbeeConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.names or COLUMNS
        # The vendor guarantees no order, and a sync during an export rewrites jobs, so a job that
        # was read may come again on a later page.
        self.identity: str | None = "id"
        self.tolerated_drift = config.tolerated_drift
        self.lookup_size = MAX_PAGE_SIZE
        self._page_size = min(config.page_size, MAX_PAGE_SIZE)
        self._upstream = config.connect(
            {
                "authorization": f"Bearer {config.api_key}",
                "x-connector-token": config.connector_token,
            },
            clock,
            budget,
        )
        self._read = reader(_Answer, "items", self.identity)

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Checks a caller's filters and returns them in the form that is stored and sent upstream.

        Raises QueryError for unknown or wrong filters, and for the page size, which the export
        itself chooses.
        """
        query = validate(JobSearch, raw).canonical()
        return Search(query=query, echo=query)

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Returns the cursor of the first page, with the size of all pages.

        All pages have the same size, chosen so that they together read as few rows above the sum of
        offset and limit as possible.
        """
        size = self._page_size
        if limit is not None:
            pages = -(-(limit + offset) // size)
            size = -(-(limit + offset) // pages)
        return msgspec.to_builtins(_Place(cursor=None, size=size, skip=offset))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page at `cursor`.

        The last page is the page whose next cursor is null; a page without rows is not the end.
        """
        at = msgspec.convert(cursor, _Place)
        place = {} if at.cursor is None else {"cursor": at.cursor}
        answer = self._ask({**query, "page_size": at.size, **place}, self._upstream.deadline())
        following = _Place(answer.cursor, at.size, max(at.skip - len(answer.items), 0))
        return Page(
            rows=answer.items[at.skip :],
            next=msgspec.to_builtins(following) if answer.cursor is not None else None,
            total=None,
        )

    def predict_next(self, cursor: Cursor) -> Cursor | None:  # noqa: ARG002
        """Returns None, because each page itself contains the cursor of the next page."""
        return None

    def count(self, query: Mapping[str, Any]) -> int | None:  # noqa: ARG002
        """Returns None, because the vendor announces no totals."""
        return None

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """Returns the jobs with these ids, by id.

        Sends one request, and further requests if the upstream splits the list into pages.
        """
        wanted = {id_.casefold(): id_ for id_ in ids if _UUID.fullmatch(id_.casefold())}
        found: dict[str, Row] = {}
        asked = {"ids": ",".join(wanted), "page_size": max(len(wanted), 1)}
        deadline, seen = self._upstream.deadline(), set[str]()
        while wanted:
            answer = self._ask(asked, deadline)
            for row in answer.items:
                id_ = (text_of(row, "id") or "").casefold()
                if id_ not in wanted:
                    raise SourceUntrue(
                        f"upstream returned the job {id_!r}, which was not requested"
                    )
                found[wanted[id_]] = row
            if answer.cursor is None:
                break
            if answer.cursor in seen:
                raise SourceUntrue(
                    f"upstream returned the cursor {answer.cursor!r} twice for a list of ids"
                )
            seen.add(answer.cursor)
            asked["cursor"] = answer.cursor
        return found

    def close(self) -> None:
        self._upstream.close()

    def _ask(self, parameters: Mapping[str, Any], deadline: float) -> _Answer:
        def read(body: bytes) -> _Answer:
            answer = self._read(body)
            if answer.page_size != len(answer.items):
                raise SourceUntrue(
                    f"{len(answer.items)} items, but a page_size of {answer.page_size}"
                )
            if answer.cursor is not None and answer.cursor == parameters.get("cursor"):
                raise SourceUntrue(
                    f"the next cursor {answer.cursor!r}, which is the cursor of this page"
                )
            return answer

        path = f"{PATH}?{urlencode(parameters, safe=',[]')}"
        return self._upstream.request("GET", path, read, deadline=deadline)

"""A source that reads the Coresignal base jobs API: searches for ids, then fetches records."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlencode

import msgspec
import structlog

from exporter.clock import Clock
from exporter.contracts.coresignal import FILTERS, MAX_ID_DIGITS, MAX_IDS, JobFilters
from exporter.contracts.described import Filter
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget
from exporter.errors import (
    FieldProblem,
    PageTooLarge,
    QueryError,
    SourceRefused,
    SourceUntrue,
    problem,
)
from exporter.sources.base import Page, Search, Source
from exporter.sources.checking import validate
from exporter.sources.config import HttpConfig, InFlight
from exporter.sources.http.charsets import enclosed
from exporter.sources.http.json_pages import python_reader

log = structlog.get_logger()

# fmt: off
COLUMNS = (
    "id", "created", "last_updated", "time_posted", "title", "description", "seniority",
    "employment_type", "location", "country", "url", "hash", "company_id", "company_name",
    "company_url", "external_url", "application_active", "deleted", "salary", "applicants_count",
    "professional_network_job_id", "job_industry_collection", "job_functions_collection",
    "last_updated_ux", "redirected_url", "redirected_url_hash",
)
# fmt: on
"""The fields of a record, as the vendor documents them."""
TYPES: Mapping[str, str] = {
    **dict.fromkeys(COLUMNS, "text"),
    **dict.fromkeys(("id", "company_id", "application_active", "deleted"), "int"),
    **dict.fromkeys(("job_industry_collection", "job_functions_collection"), "json"),
}
"""Types of the fields: its times have no offset, and its flags are 0 and 1."""

SEARCH, DSL, COLLECT = (
    "/v2/job_base/search/filter",
    "/v2/job_base/search/es_dsl",
    "/v2/job_base/collect",
)
_MAX_RECORDS_PER_CONNECTION = 10
"""Number of records that one connection fetches for one page, one after the other.

Even if each record takes six seconds, ten records arrive within the page timeout.
"""


class _Ids(msgspec.Struct):
    ids: list[Annotated[int, msgspec.Meta(ge=1)]]


class _Records(msgspec.Struct):
    records: list[msgspec.Raw]


class _Identified(msgspec.Struct):
    id: int


_identified = python_reader(_Identified, "")


class _Cursor(msgspec.Struct):
    size: int
    after: str | None = None
    """The `after` value that upstream gave for this page; None for the first page."""
    read: int = 0
    """Number of ids on the pages before this page."""
    skip: int = 0
    """Number of ids, from this page on, that the caller's offset still skips."""
    left: int | None = None
    """Number of records that are still wanted; None without a limit."""


class _IdPage(msgspec.Struct):
    ids: list[int]
    following: str | None
    total: int


class CoresignalConfig(HttpConfig):
    """A Coresignal-compatible API of base jobs."""

    documented_columns: ClassVar[tuple[str, ...]] = COLUMNS
    documented_types: ClassVar[Mapping[str, str]] = TYPES
    filters: ClassVar[tuple[Filter, ...]] = FILTERS

    type: Literal["coresignal"] = "coresignal"
    max_in_flight: InFlight = 8
    """Maximum number of records that one worker requests at the same time."""

    def feature(self, search: Mapping[str, Any]) -> str:  # noqa: ARG002
        return "bulk"

    def make(self, clock: Clock, budget: Budget = UNLIMITED) -> Source:
        return CoresignalSource(self, clock, budget)


class CoresignalSource:
    """Reads a search of a Coresignal-compatible upstream.

    Configured by `[sources.NAME]` with type "coresignal". The vendor returns one record per request
    and charges one credit for each; at most `max_in_flight` such requests run at the same time.
    Other upstreams, such as the reference board, return many records in one request. The source
    detects this once, by a request with an empty list of ids.
    """

    identity: str | None = "id"
    """The field by which an upstream is detected whose pages begin again."""
    read_ahead = 1

    def __init__(self, config: CoresignalConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.names or COLUMNS
        self.tolerated_drift = config.tolerated_drift
        self._clock = clock
        self._page_size = min(config.page_size, MAX_IDS)
        self._in_flight = config.max_in_flight
        self._upstream = config.connect({"apikey": config.api_key}, clock, budget)
        self._has_bulk_collect: bool | None = None
        """Whether the upstream returns many records in one request; None if unknown."""
        self.lookup_size = MAX_IDS
        self._threads: ThreadPoolExecutor | None = None
        self._read_ids = python_reader(_Ids, "")
        self._read_records = python_reader(_Records, "records")

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """Validates the vendor's filters and returns their canonical form.

        A limit is not one of the filters. Also accepts `{"es_dsl": {"query": …}}`: this
        Elasticsearch query is sent upstream unchanged and validated there.
        """
        if "es_dsl" in raw:
            return _dsl(raw)
        query = validate(JobFilters, raw).canonical()
        return Search(query=query, echo=query)

    def search_may_block(self, raw: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return False

    def start(self, limit: int | None, offset: int) -> Cursor:
        """Returns the cursor of the first page; no records are fetched before `offset`."""
        return msgspec.to_builtins(_Cursor(size=self._page_size, skip=offset, left=limit))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """Returns the page of the search at `cursor`, with the records of its ids.

        An id whose record no longer exists is listed in `Page.unknown`. If the records do not
        arrive in time, the page and all following pages are made smaller. Pages before the offset
        have no rows, because their ids are skipped; this costs no credits.

        The last page is the one after which the upstream names no further page. The number of ids
        read by then must equal the announced total. A difference of at most `tolerated_drift` is
        accepted as a change of the list; the total of the last page is then the number of ids read.
        """
        at = msgspec.convert(cursor, _Cursor)
        deadline = self._upstream.deadline()
        self._detect_bulk_collect(deadline)
        size, guessed = min(at.size, self.lookup_size), False
        paid: dict[int, Row] = {}
        while True:
            try:
                return self._page(query, at, size, deadline, paid)
            except PageTooLarge as error:
                # If the size is only a possible reason, one smaller size is tried and no more.
                if size == 1 or (error.guess and guessed):
                    raise
                guessed, size = True, size // 2
                log.warning("source.page_shrunk", smaller=size, reason=str(error))

    def _page(
        self,
        query: Mapping[str, Any],
        at: _Cursor,
        size: int,
        deadline: float,
        paid: dict[int, Row],
    ) -> Page:
        wanted = min(at.skip, MAX_IDS) or min(size, at.left or size)
        found = self._search(query, at, wanted, deadline)
        ids = [] if at.skip else found.ids
        records = self._collect(ids, deadline, paid, can_shrink=size > 1)
        following = _Cursor(
            size=size,
            after=found.following,
            read=at.read + len(found.ids),
            skip=max(at.skip - len(found.ids), 0),
            left=None if at.left is None else at.left - len(records),
        )
        more = found.following is not None
        return Page(
            rows=[records[one] for one in ids if one in records],
            next=msgspec.to_builtins(following) if more else None,
            total=found.total if more else following.read,
            unknown=[str(one) for one in ids if one not in records],
        )

    def _search(self, query: Mapping[str, Any], at: _Cursor, size: int, deadline: float) -> _IdPage:
        """Returns one page of ids. Raises SourceUntrue if the page contradicts itself."""
        parameters = {"items_per_page": size, **({} if at.after is None else {"after": at.after})}

        def read(body: bytes, headers: Mapping[str, str]) -> _IdPage:
            found = _IdPage(
                self._read_ids(enclosed(b'{"ids":', body, b"}")).ids,
                headers.get("x-next-page-after", "").strip() or None,
                _total(headers),
            )
            self._check(found, at, size)
            return found

        path, body = (DSL, query["es_dsl"]) if "es_dsl" in query else (SEARCH, query)
        path = f"{path}?{urlencode(parameters)}"
        return self._upstream.request_with_headers("POST", path, read, json=body, deadline=deadline)

    def _check(self, found: _IdPage, at: _Cursor, size: int) -> None:
        ids, total, read = found.ids, found.total, at.read + len(found.ids)
        if len(ids) > size:
            raise SourceUntrue(f"{len(ids)} ids, but at most {size} were requested")
        if len(set(ids)) < len(ids):
            raise SourceUntrue("the same id twice on one page")
        if found.following is not None and (found.following == at.after or not ids):
            raise SourceUntrue(
                f"{len(ids)} ids and a next page {found.following!r}, which is this page again"
            )
        # The most ids that may be added or removed during the export.
        most = int(self.tolerated_drift * total)
        if read > total + most or (found.following is None and read < total - most):
            end = "the last page" if found.following is None else "a page"
            raise SourceUntrue(f"{end} that ends after {read} ids, but x-total-results is {total}")

    def predict_next(self, cursor: Cursor) -> Cursor | None:  # noqa: ARG002
        """Returns None, because each page itself contains the cursor of the next page."""
        return None

    def count(self, query: Mapping[str, Any]) -> int:
        """Returns the total that a search announces; the vendor does not charge for searches."""
        first = _Cursor(size=1)
        return self._search(query, first, first.size, self._upstream.deadline()).total

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """Returns the records with these ids, by id.

        An id that is not a number cannot exist and is left out without a request.
        """
        deadline = self._upstream.deadline()
        self._detect_bulk_collect(deadline)
        numbers = {
            one: int(one)
            for one in ids
            if one.isascii() and one.isdigit() and len(one) <= MAX_ID_DIGITS
        }
        distinct = list(dict.fromkeys(numbers.values()))
        found = self._collect(distinct, deadline, {}, can_shrink=False)
        return {one: found[number] for one, number in numbers.items() if number in found}

    def _detect_bulk_collect(self, deadline: float) -> None:
        """Detects, at the first call, whether the upstream returns many records in one request.

        If it does not, `lookup_size` is lowered.
        """
        if self._has_bulk_collect is not None:
            return
        try:
            self._upstream.request("POST", COLLECT, bytes, json={"ids": []}, deadline=deadline)
        except SourceRefused as error:
            if error.status not in (404, 405):
                raise
            self._check_address(deadline)
            self.lookup_size = _MAX_RECORDS_PER_CONNECTION * self._in_flight
            self._has_bulk_collect = False
        else:
            self._has_bulk_collect = True

    def _check_address(self, deadline: float) -> None:
        """Raises SourceRefused if `base_url` is wrong.

        With a wrong address every request gets a 404, so every id would seem unknown.
        """
        try:
            self._search({}, _Cursor(size=1), 1, deadline)
        except SourceRefused as error:
            if error.status == 404:
                raise

    def _collect(
        self, ids: list[int], deadline: float, paid: dict[int, Row], *, can_shrink: bool
    ) -> Mapping[int, Row]:
        """Returns the records of the ids, by id; ids that the upstream does not have are left out.

        Records that are fetched one by one are added to `paid` as soon as they arrive, and records
        in `paid` are not requested again.
        """
        if not ids:
            return {}
        if not self._has_bulk_collect:
            self._collect_one_by_one(
                [one for one in ids if one not in paid], deadline, paid, can_shrink=can_shrink
            )
            return {one: paid[one] for one in ids if one in paid}
        return self._upstream.request(
            "POST",
            COLLECT,
            lambda body: _checked_records(
                self._read_records(enclosed(b'{"records":', body, b"}")).records, ids
            ),
            json={"ids": ids},
            deadline=deadline,
            can_shrink=can_shrink,
        )

    def _collect_one_by_one(
        self, ids: list[int], deadline: float, paid: dict[int, Row], *, can_shrink: bool
    ) -> None:
        """Collects the records of `ids` into `paid`, one request each, in threads.

        With `can_shrink`, requests start in the first half of the remaining time only, so that the
        other half is left for a smaller page. Records in `paid` are not requested again.
        """
        now = self._clock.monotonic()
        last_start = now + (deadline - now) / 2 if can_shrink else deadline
        given_up = threading.Event()

        def one(wanted: int) -> None:
            if given_up.is_set():
                return
            try:
                self._check_time(last_start, len(ids))
                row = self._collect_one(wanted, deadline)
            except BaseException:
                given_up.set()
                raise
            if row is not None:
                paid[wanted] = row

        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._in_flight, "coresignal")
        # All requests are awaited before an error is raised, so that paid records are kept.
        under_way = [self._threads.submit(one, wanted) for wanted in ids]
        wait(under_way)
        for each in under_way:
            each.result()

    def _check_time(self, last_start: float, records: int) -> None:
        if self._clock.monotonic() >= last_start:
            raise PageTooLarge(f"{records} records, one request each, did not arrive in time")

    def _collect_one(self, wanted: int, deadline: float) -> Row | None:
        def read(body: bytes) -> Row:
            found = _checked_records(
                self._read_records(enclosed(b'{"records":[', body, b"]}")).records, [wanted]
            )
            if not found:
                raise SourceUntrue("no record")
            return found[wanted]

        try:
            return self._upstream.request("GET", f"{COLLECT}/{wanted}", read, deadline=deadline)
        except SourceRefused as error:
            if error.status == 404:
                return None
            raise

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._upstream.close()


def _total(headers: Mapping[str, str]) -> int:
    said = headers.get("x-total-results", "")
    if not (said.isascii() and said.isdigit()):
        raise SourceUntrue(f"ids with an x-total-results that is not a number: {said[:40]!r}")
    return int(said)


def _checked_records(records: Sequence[Row], ids: Sequence[int]) -> dict[int, Row]:
    """Returns the records by id. Raises SourceUntrue for a repeated or unrequested record."""
    asked = set(ids)
    found: dict[int, Row] = {}
    for record in records:
        identity = _identified(bytes(record)).id
        if identity not in asked or identity in found:
            raise SourceUntrue(f"the record {identity}, which was not requested or came twice")
        found[identity] = record
    return found


def _dsl(raw: Mapping[str, Any]) -> Search:
    asked = raw["es_dsl"]
    problems: list[FieldProblem] = [
        problem((name,), "send es_dsl alone, without filters", "extra_forbidden")
        for name in raw
        if name != "es_dsl"
    ]
    if not isinstance(asked, Mapping) or not isinstance(asked.get("query"), Mapping):
        text = 'an Elasticsearch request must be an object with a "query" object'
        problems.append(problem(("es_dsl",), text, "dict_type"))
    elif unknown := sorted(map(str, asked.keys() - {"query"})):
        text = f"only `query` is accepted here, not {', '.join(unknown)[:200]}"
        problems.append(problem(("es_dsl",), text))
    if problems:
        raise QueryError(problems)
    query = {"es_dsl": dict(asked)}
    return Search(query=query, echo=query)

"""Reading the Coresignal base jobs API: searches give ids, which are then collected."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import msgspec
import structlog

from exporter.clock import Clock
from exporter.config import SourceConfig
from exporter.contracts.coresignal import MAX_ID_DIGITS, MAX_IDS, JobFilters
from exporter.core.checkpoints import Cursor, Row
from exporter.core.rates import UNLIMITED, Budget
from exporter.errors import FieldProblem, PageTooLarge, QueryError, SourceRefused, SourceUntrue
from exporter.sources.base import Page, Search
from exporter.sources.checking import validate
from exporter.sources.http.client import Upstream
from exporter.sources.http.json_pages import reader

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
"""The record as the vendor documents it."""

SEARCH, DSL, COLLECT = (
    "/v2/job_base/search/filter",
    "/v2/job_base/search/es_dsl",
    "/v2/job_base/collect",
)
_MAX_RECORDS_PER_CONNECTION = 10
"""Records that one connection fetches, one after the other, for one page: at six seconds each they
still come in time."""


class _Ids(msgspec.Struct):
    ids: list[Annotated[int, msgspec.Meta(ge=1)]]


class _Records(msgspec.Struct):
    records: list[msgspec.Raw]


class _Identified(msgspec.Struct):
    id: int


_identified = reader(_Identified, "")


class _Cursor(msgspec.Struct):
    size: int
    after: str | None = None
    """What upstream said to send for this page; None asks for the first."""
    read: int = 0
    """Ids that came before this page."""
    skip: int = 0
    """Of the next ids, those that the caller did not ask for."""
    left: int | None = None
    """Records that the caller still wants, if not all."""


class _IdPage(msgspec.Struct):
    ids: list[int]
    following: str | None
    total: int


class CoresignalSource:
    """A search of a Coresignal-compatible upstream: `[sources.NAME]` with type "coresignal".

    The vendor gives records one by one, and takes a credit for each; `max_in_flight` of them are
    asked for at once. Our board also gives many in one answer: whether an upstream does is asked
    once, with an empty list.
    """

    identity: str | None = None
    """A search page begins behind the last id of the one before, so no row is on two pages."""
    read_ahead = 1

    def __init__(self, config: SourceConfig, clock: Clock, budget: Budget = UNLIMITED) -> None:
        self.columns = config.columns or COLUMNS
        self.tolerated_drift = config.tolerated_drift
        self._clock = clock
        self._page_size = min(config.page_size, MAX_IDS)
        self._in_flight = config.max_in_flight
        self._upstream = Upstream(
            config.base_url,
            {"apikey": config.api_key},
            clock,
            budget=budget,
            timeout=config.page_timeout.total_seconds(),
        )
        self._has_bulk_collect: bool | None = None
        """Whether upstream collects many ids at once; None: not asked yet."""
        self.lookup_size = MAX_IDS
        self._threads: ThreadPoolExecutor | None = None
        self._read_ids = reader(_Ids, "")
        self._read_records = reader(_Records, "records")

    def search(self, raw: Mapping[str, Any], now: datetime, *, user_id: str) -> Search:  # noqa: ARG002
        """The vendor's filters made canonical; how many records are wanted is none of them.

        Or `{"es_dsl": {"query": …}}`, which goes upstream as it is: what it may say is upstream's.
        """
        if "es_dsl" in raw:
            return _dsl(raw)
        query = validate(JobFilters, raw).canonical()
        return Search(query=query, echo=query)

    def start(self, limit: int | None, offset: int) -> Cursor:
        """The first page: no record is collected that the caller did not ask for."""
        return msgspec.to_builtins(_Cursor(size=self._page_size, skip=offset, left=limit))

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        """One page of the search, and the records of its ids.

        A posting that is gone when its record is asked for is told as unknown. If the records do
        not come in time, fewer are asked for, and so on all pages that follow. While the first
        ids are passed over, which costs nothing, pages are empty.

        The end is a search page that names no other. It must come when the announced total is
        reached; where it comes earlier or later by no more than `tolerated_drift`, the list has
        changed meanwhile, and the total is what was read.
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
                # What may have another reason than the size is tried with one other size only.
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
        """One page of ids, if what it says can be true."""
        parameters = {"items_per_page": size, **({} if at.after is None else {"after": at.after})}

        def read(body: bytes, headers: Mapping[str, str]) -> _IdPage:
            found = _IdPage(
                self._read_ids(b'{"ids":' + body + b"}").ids,
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
            raise SourceUntrue(f"{len(ids)} ids where {size} were asked for")
        if len(set(ids)) < len(ids):
            raise SourceUntrue("an id that stands twice on one page")
        if found.following is not None and (found.following == at.after or not ids):
            raise SourceUntrue(
                f"a next page {found.following!r} that would be this one again, of {len(ids)} ids"
            )
        # As much as rows may come and go while a list is read.
        most = int(self.tolerated_drift * total)
        if read > total + most or (found.following is None and read < total - most):
            end = "the last page" if found.following is None else "a page"
            raise SourceUntrue(
                f"{end} that ends after {read} ids, where x-total-results is {total}"
            )

    def predict_next(self, cursor: Cursor) -> Cursor | None:  # noqa: ARG002
        """None: only a page tells what follows it."""
        return None

    def count(self, query: Mapping[str, Any]) -> int:
        """What the search says; searches are free."""
        first = _Cursor(size=1)
        return self._search(query, first, first.size, self._upstream.deadline()).total

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:  # noqa: ARG002
        """The records of these ids; what is no number is no id."""
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
        """Find out whether upstream gives many records at once."""
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
        """Raise SourceRefused if base_url leads nowhere: each id would seem to be unknown there."""
        try:
            self._search({}, _Cursor(size=1), 1, deadline)
        except SourceRefused as error:
            if error.status == 404:
                raise

    def _collect(
        self, ids: list[int], deadline: float, paid: dict[int, Row], *, can_shrink: bool
    ) -> Mapping[int, Row]:
        """The records of those ids that upstream has; each that comes alone is put to the `paid`
        ones at once, and none of these is asked for again."""
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
                self._read_records(b'{"records":' + body + b"}").records, ids
            ),
            json={"ids": ids},
            deadline=deadline,
            can_shrink=can_shrink,
        )

    def _collect_one_by_one(
        self, ids: list[int], deadline: float, paid: dict[int, Row], *, can_shrink: bool
    ) -> None:
        """Half of the time is for these; fewer have their turn in the rest."""
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
        # All are waited for: what made one give up is raised here, and what was paid is kept.
        under_way = [self._threads.submit(one, wanted) for wanted in ids]
        wait(under_way)
        for each in under_way:
            each.result()

    def _check_time(self, last_start: float, records: int) -> None:
        if self._clock.monotonic() >= last_start:
            raise PageTooLarge(f"{records} records, one by one, did not come in time")

    def _collect_one(self, wanted: int, deadline: float) -> Row | None:
        def read(body: bytes) -> Row:
            told = _checked_records(
                self._read_records(b'{"records":[' + body + b"]}").records, [wanted]
            )
            if not told:
                raise SourceUntrue("no record")
            return told[wanted]

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
        raise SourceUntrue(f"ids, and no number as their x-total-results, but {said[:40]!r}")
    return int(said)


def _checked_records(records: Sequence[Row], ids: Sequence[int]) -> dict[int, Row]:
    """The records by id, if each is one that was asked for, and none comes twice."""
    asked = set(ids)
    found: dict[int, Row] = {}
    for record in records:
        identity = _identified(bytes(record)).id
        if identity not in asked or identity in found:
            raise SourceUntrue(f"the record {identity}, which was not asked for or came twice")
        found[identity] = record
    return found


def _dsl(raw: Mapping[str, Any]) -> Search:
    asked = raw["es_dsl"]
    problems: list[FieldProblem] = [
        {"loc": (name,), "msg": "give es_dsl alone, without filters", "type": "extra_forbidden"}
        for name in raw
        if name != "es_dsl"
    ]
    if not isinstance(asked, Mapping) or not isinstance(asked.get("query"), Mapping):
        text = 'an Elasticsearch query is an object with a "query" inside'
        problems.append({"loc": ("es_dsl",), "msg": text, "type": "dict_type"})
    elif unknown := sorted(map(str, asked.keys() - {"query"})):
        text = f"of an Elasticsearch request only query is taken, not {', '.join(unknown)[:200]}"
        problems.append({"loc": ("es_dsl",), "msg": text, "type": "value_error"})
    if problems:
        raise QueryError(problems)
    query = {"es_dsl": dict(asked)}
    return Search(query=query, echo=query)

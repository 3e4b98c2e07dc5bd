"""The Qwestly source: the requests that it sends, and the answers that it accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from exporter.clock import FakeClock
from exporter.core.exports import Outcome
from exporter.core.rates import MemoryBudgets, Rate
from exporter.errors import QueryError, SourceRefused, SourceUnavailable, SourceUntrue
from exporter.sources.qwestly import COLUMNS, QwestlyConfig, QwestlySource
from tests import boards
from tests.harness import Bench
from tests.upstreams import Answer, Asked, Upstream, reply, serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PATH = "/api/external/search/jobs"
FIRST = {"page": 1, "size": 4, "skip": 0}
NOT_FOUND = reply(404, {"error": "Job not found"})


def source(url: str = "http://127.0.0.1:9", **more: Any) -> QwestlySource:
    settings = {"page_size": 4, **more}
    config = QwestlyConfig(base_url=url, api_key="sk_1", **settings)
    return QwestlySource(config, FakeClock())


@contextmanager
def reading(*answers: Any, **more: Any) -> Iterator[tuple[QwestlySource, Upstream]]:
    with serving(*answers) as upstream:
        one = source(upstream.url, **more)
        try:
            yield one, upstream
        finally:
            one.close()


def said(jobs: Any, total: Any = 9, page: int = 1, limit: int = 4, *, success: Any = True) -> bytes:
    pagination = {"totalCount": total, "totalPages": 0, "currentPage": page, "limit": limit}
    return reply(200, {"success": success, "data": jobs, "pagination": pagination})


def asked_for(asked: Asked) -> tuple[str, dict[str, str]]:
    method, target, _ = asked.line.split(" ")
    assert method == "GET"
    url = urlsplit(target)
    return url.path, dict(parse_qsl(url.query, strict_parsing=True))


def listing(total: int) -> Any:
    """Returns the answers of an upstream with `total` jobs."""

    def answer(asked: Asked) -> Answer:
        _, sent = asked_for(asked)
        page, limit = int(sent["page"]), int(sent["limit"])
        found = range((page - 1) * limit, min(page * limit, total))
        return said([{"_id": f"{one:024x}"} for one in found], total, page, limit)

    return answer


def walk(one: QwestlySource, query: dict[str, Any]) -> list[int]:
    cursor, found = one.start(None, 0), []
    while cursor is not None:
        page = one.fetch(query, cursor)
        found += [int(json.loads(bytes(row))["_id"], 16) for row in page.rows]
        cursor = page.next
    return found


JOBS = [{"_id": "a"}, {"_id": "b"}, {"_id": "c"}, {"_id": "d"}]


@pytest.mark.external
def test_a_page_is_asked_for_as_the_vendor_documents_it() -> None:
    # Given
    raw = {"search": "C++ & Köln", "status": "filled", "company_id": "ABCDEF" * 4}
    with reading(listing(9)) as (one, upstream):
        # When
        page = one.fetch(one.search(raw, NOW, user_id="u1").query, one.start(None, 0))
    # Then
    (asked,) = upstream.asked
    assert asked_for(asked) == (
        PATH,
        {**raw, "company_id": "abcdef" * 4, "page": "1", "limit": "4"},
    )
    assert asked.headers["authorization"] == "Bearer sk_1"
    assert (len(page.rows), page.total) == (4, 9)
    assert page.next == {"page": 2, "size": 4, "skip": 0, "follows": True}


@pytest.mark.external
def test_the_page_past_the_end_is_requested_too() -> None:
    # Given
    with reading(listing(8)) as (one, upstream):
        # When
        found = walk(one, {})
    # Then
    assert found == list(range(8))
    assert [asked_for(asked)[1]["page"] for asked in upstream.asked] == ["1", "2", "3"]


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "claim"),
    [
        (said(JOBS[:3]), "3 rows on page 1, but its total_count of 9 implies 4"),
        (said([]), "0 rows on page 1, but its total_count of 9 implies 4"),
        (said(JOBS, 3), "4 rows on page 1, but its total_count of 3 implies 3"),
        (said(JOBS, page=2), "page 2 of 4 rows, but page 1 of 4 rows was requested"),
        (said(JOBS[:2], limit=2), "page 1 of 2 rows, but page 1 of 4 rows was requested"),
        (said(JOBS, -1), "`int` >= 0 - at `$.pagination.totalCount`"),
        (said(JOBS, None), "got `null` - at `$.pagination.totalCount`"),
        (said(None), "got `null` - at `$.data`"),
        (said(JOBS, success=False), "success: false"),
        (said(JOBS, success=1), "got `int` - at `$.success`"),
        (reply(200, {"data": [], "pagination": {}}), "missing required field"),
        (reply(200, {"success": True, "data": []}), "missing required field `pagination`"),
        (reply(200, "null"), "got `null`"),
    ],
)
def test_a_page_that_contradicts_itself_is_asked_for_again_and_never_used(
    answer: bytes, claim: str
) -> None:
    # Given
    with reading(answer) as (one, upstream), pytest.raises(SourceUntrue) as untrue:
        # When
        one.fetch({}, FIRST)
    # Then
    assert claim in str(untrue.value)
    assert len(upstream.asked) > 1


@pytest.mark.external
def test_a_page_that_is_too_large_is_read_as_smaller_pages() -> None:
    # Given: an upstream that fails for pages of more than two jobs
    true = listing(9)

    def answer(asked: Asked) -> Answer:
        too_much = int(asked_for(asked)[1]["limit"]) > 2
        return reply(413, {"error": "too much"}) if too_much else true(asked)

    with reading(answer) as (one, _):
        # When
        found = walk(one, {})
    # Then
    assert found == list(range(9))


@pytest.mark.external
def test_the_total_of_a_page_of_one_job_is_the_count() -> None:
    # Given
    with reading(listing(9)) as (one, upstream):
        # When
        counted = one.count({"search": "welder"})
    # Then
    assert counted == 9
    assert asked_for(upstream.asked[0]) == (PATH, {"search": "welder", "page": "1", "limit": "1"})


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        ({}, {}),
        ({"status": None, "search": "a b"}, {"search": "a b"}),
        ({"company_id": "507F1F77BCF86CD799439011"}, {"company_id": "507f1f77bcf86cd799439011"}),
        ({"job_family": "design", "location_type": "in-person", "status": "draft"},
         {"status": "draft", "job_family": "design", "location_type": "in-person"}),
    ],
)  # fmt: skip
def test_a_search_is_stored_as_the_parameters_that_are_sent(
    raw: dict[str, Any], query: dict[str, str]
) -> None:
    # When
    search = source().search(raw, NOW, user_id="u1")
    # Then
    assert (search.query, search.echo, search.limit, search.offset) == (query, query, None, 0)
    assert source().search(query, NOW, user_id="u1").query == query


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({"query": "x"}, ["query"]),
        ({"page": 2, "limit": 50}, ["page", "limit"]),
        ({"company_id": "acme"}, ["company_id"]),
        (
            {"company_id": 7, "search": " ", "status": ["active"]},
            ["company_id", "search", "status"],
        ),
        ({"search": "\ud83d"}, ["search"]),
    ],
)
def test_each_wrong_field_of_a_search_is_named(raw: dict[str, Any], where: list[str]) -> None:
    # When
    with pytest.raises(QueryError) as wrong:
        source().search(raw, NOW, user_id="u1")
    # Then
    assert {tuple(problem["loc"]) for problem in wrong.value.problems} == {(one,) for one in where}
    assert all(problem["msg"] and problem["type"] for problem in wrong.value.problems)


def single(asked: Asked) -> Answer:
    """Answers as an upstream that has every job whose id does not begin with f."""
    job_id = asked_for(asked)[0].removeprefix(f"{PATH}/")
    if job_id.startswith("f"):
        return NOT_FOUND
    # A number that Python accepts and msgspec refuses.
    return reply(200, f'{{"success":true,"data":{{"_id":"{job_id}","n":NaN, "x":1.10}}}}')


@pytest.mark.external
def test_jobs_are_looked_up_by_one_request_each_and_unknown_ids_left_out() -> None:
    # Given
    known, unknown = [f"{one:024x}" for one in range(9)], ["f" * 24, "F" * 24]
    impossible = ["civil", "", "..", "a/b", f"{1:023x}"]
    upper = "507F1F77BCF86CD799439011"
    with reading(single) as (one, upstream):
        # When
        found = one.lookup([*impossible, *unknown, *known, upper], {})
    # Then: unchanged bytes, and no request for ids that no job can have
    assert list(found) == [*known, upper]
    assert bytes(found[upper]) == b'{"_id":"507f1f77bcf86cd799439011","n":NaN, "x":1.10}'
    assert len(upstream.asked) == len(unknown) + len(known) + 1


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "error", "claim"),
    [
        (reply(404, "<h1>nothing here</h1>"), SourceRefused, "nothing here"),
        (reply(404, {"detail": "Not Found"}), SourceRefused, "Not Found"),
        (reply(400, {"error": "no"}), SourceRefused, "answered 400"),
        (reply(401, "null"), SourceRefused, "answered 401"),
        (reply(500, {"error": "x", "details": "y"}), SourceUnavailable, "answered 500"),
        (reply(200, {"success": True, "data": {"_id": "b" * 24}}), SourceUntrue, "is not the job"),
        (reply(200, {"success": True, "data": None}), SourceUntrue, "is not the job"),
        (reply(200, {"success": True, "data": []}), SourceUntrue, "is not the job"),
        (reply(200, {"success": False, "data": {"_id": "a" * 24}}), SourceUntrue, "is not the job"),
        (reply(200, {"data": {"_id": "a" * 24}}), SourceUntrue, "missing required field"),
    ],
)
def test_only_the_vendors_own_404_says_that_a_job_is_unknown(
    answer: bytes, error: type[Exception], claim: str
) -> None:
    # Given: a 404 of a wrong address or of a proxy, which would make every id unknown
    with reading(answer) as (one, _), pytest.raises(error, match=claim):
        # When / Then
        one.lookup(["a" * 24], {})


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (None, (100, 8)),
        (Rate(100, 1), (100, 8)),
        (Rate(2, 1), (20, 4)),
        (Rate(100, 60), (16, 3)),
        (Rate(1, 60), (1, 1)),
    ],
)
def test_no_more_lookups_are_taken_than_a_rate_lets_through_soon(
    rate: Rate | None, expected: tuple[int, int]
) -> None:
    # When
    one = source(rate=rate, max_in_flight=8)
    # Then
    assert (one.lookup_size, one.read_ahead) == expected


@pytest.mark.external
def test_a_lookup_of_its_full_size_comes_to_its_end_within_a_slow_rate() -> None:
    # Given
    clock = FakeClock()
    with serving(single) as upstream:
        rate = Rate(2, 1)
        config = QwestlyConfig(base_url=upstream.url, api_key="k")
        config = config.model_copy(update={"rate": rate})
        one = QwestlySource(config, clock, MemoryBudgets(clock).open("q", rate))
        wanted = [f"{number:024x}" for number in range(one.lookup_size)]
        # When
        found = one.lookup(wanted, {})
        one.close()
    # Then
    assert list(found) == wanted


def test_columns_are_the_contracts_in_its_order_unless_configured() -> None:
    # When / Then
    assert source().columns == COLUMNS
    assert (COLUMNS[0], COLUMNS[-1], len(set(COLUMNS))) == ("_id", "updated_at", 30)
    assert source(columns=("_id", "title")).columns == ("_id", "title")


def test_pages_are_as_large_as_the_vendor_allows() -> None:
    # When
    cursor = source(page_size=5_000).start(None, 0)
    # Then
    assert cursor["size"] == 200


@pytest.mark.external
def test_an_export_holds_every_job_of_a_board_that_misbehaves(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": f"job {number}"} for number in range(95)])
    # Without false totals that no page contradicts: these fail the export.
    spec = "429=9%,503=9%,reset=9%,truncate=9%,html=9%,shape=9%,empty=9%,short=9%"
    bench = Bench([], format="json")
    with boards.serving(path, spec) as url:
        config = QwestlyConfig(base_url=url, api_key=boards.KEY, page_size=7)
        bench.source = config.make(bench.clock)
        # When
        bench.run()
        bench.source.close()
    # Then
    assert bench.export.result is not None
    proven = bench.export.result.completeness
    assert (proven.outcome, proven.exported, proven.expected) == (Outcome.COMPLETE, 95, 95)
    jobs = [json.loads(line) for line in bench.file().splitlines()]
    assert {job["source_id"] for job in jobs} == {f"job {number}" for number in range(95)}

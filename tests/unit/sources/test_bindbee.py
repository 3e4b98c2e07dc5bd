"""The Bindbee source: the requests that it sends, and the answers that it accepts."""

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
from exporter.core.checkpoints import Checkpoint, Row
from exporter.core.exports import EndReason, Outcome
from exporter.errors import QueryError, SourceRefused, SourceUntrue
from exporter.run.page_reader import PageReader
from exporter.sources.bindbee import COLUMNS, BindbeeConfig, BindbeeSource
from tests import boards
from tests.harness import Bench
from tests.upstreams import Answer, Asked, Upstream, reply, serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDS = [f"00000000-0000-4000-8000-{number:012x}" for number in range(300)]
BEGIN = {"cursor": None, "size": 4, "skip": 0}


def source(url: str = "http://127.0.0.1:9", **more: Any) -> BindbeeSource:
    settings = {"page_size": 4, **more}
    config = BindbeeConfig(base_url=url, api_key="sk_1", connector_token="token_1", **settings)
    return BindbeeSource(config, FakeClock())


@contextmanager
def reading(*answers: Any, **more: Any) -> Iterator[tuple[BindbeeSource, Upstream]]:
    with serving(*answers) as upstream:
        one = source(upstream.url, **more)
        try:
            yield one, upstream
        finally:
            one.close()


def said(ids: list[str], cursor: str | None = None, page_size: int | None = None) -> bytes:
    return reply(
        200,
        {
            "cursor": cursor,
            "page_size": len(ids) if page_size is None else page_size,
            "items": [{"id": one} for one in ids],
        },
    )


def parameters(asked: Asked) -> dict[str, str]:
    method, target, _ = asked.line.split(" ")
    url = urlsplit(target)
    assert (method, url.path) == ("GET", "/api/ats/v1/jobs")
    return dict(parse_qsl(url.query, strict_parsing=True))


def rows(one: BindbeeSource, query: dict[str, Any]) -> list[str]:
    cursor, found = one.start(None, 0), []
    while cursor is not None:
        page = one.fetch(query, cursor)
        found += [json.loads(bytes(row))["id"] for row in page.rows]
        cursor = page.next
    return found


@pytest.mark.external
def test_every_page_is_asked_for_with_all_parameters_alike() -> None:
    # Given
    raw = {"status": "IN REVIEW & more", "expand": "offices[id,name],recruiters", "ids": IDS[:2]}
    with reading(said(IDS[:2], "c 1"), said([], "c/2"), said(IDS[2:3])) as (one, upstream):
        query = one.search(raw, NOW, user_id="u1").query
        # When
        found = rows(one, query)
    # Then
    assert found == IDS[:3]
    same = {**raw, "ids": f"{IDS[0]},{IDS[1]}", "page_size": "4"}
    assert [parameters(asked) for asked in upstream.asked] == [
        same,
        {**same, "cursor": "c 1"},
        {**same, "cursor": "c/2"},
    ]
    assert {asked.headers["authorization"] for asked in upstream.asked} == {"Bearer sk_1"}
    assert {asked.headers["x-connector-token"] for asked in upstream.asked} == {"token_1"}


@pytest.mark.external
def test_only_a_null_cursor_is_the_end() -> None:
    # Given: short and empty pages, and a full last page
    answers = [said([], "a"), said(IDS[:1], "b"), said([], "c"), said(IDS[1:5])]
    with reading(*answers) as (one, _):
        pages, cursor = [], one.start(None, 0)
        # When
        while cursor is not None:
            pages.append(one.fetch({}, cursor))
            cursor = pages[-1].next
    # Then
    assert [len(page.rows) for page in pages] == [0, 1, 0, 4]
    assert {page.total for page in pages} == {None}


@pytest.mark.external
@pytest.mark.parametrize(
    ("body", "claim"),
    [
        ({"page_size": 0, "items": []}, "missing required field `cursor`"),
        ({"cursor": "", "page_size": 0, "items": []}, "length >= 1 - at `$.cursor`"),
        ({"cursor": 7, "page_size": 0, "items": []}, "got `int` - at `$.cursor`"),
        ({"cursor": None, "items": []}, "missing required field `page_size`"),
        ({"cursor": None, "page_size": 1, "items": []}, "0 items, but a page_size of 1"),
        ({"cursor": None, "page_size": 4, "items": [{}]}, "1 items, but a page_size of 4"),
        ({"cursor": None, "page_size": 0, "items": None}, "got `null` - at `$.items`"),
        (
            {"cursor": "same", "page_size": 0, "items": []},
            "'same', which is the cursor of this page",
        ),
        ({"detail": "ok"}, "missing required field"),
    ],
)
def test_a_page_that_contradicts_itself_is_asked_for_again_and_never_used(
    body: dict[str, Any], claim: str
) -> None:
    # Given
    at = {**BEGIN, "cursor": "same"}
    with reading(reply(200, body)) as (one, upstream):
        # When
        with pytest.raises(SourceUntrue) as untrue:
            one.fetch({}, at)
        # Then
        assert claim in str(untrue.value)
        assert len(upstream.asked) > 1
        upstream.asked.clear()
        upstream.answers[:] = [reply(200, body), said(IDS[:1], "next")]
        assert len(one.fetch({}, at).rows) == 1


@pytest.mark.external
def test_after_a_429_the_same_cursor_is_asked_for_again_when_upstream_says() -> None:
    # Given
    slow = reply(429, {"detail": "Rate limit exceeded"}, Retry_After="2")
    clock = FakeClock()
    with serving(said(IDS[:1], "a"), slow, said(IDS[1:2])) as upstream:
        config = BindbeeConfig(base_url=upstream.url, api_key="k", connector_token="t")
        one = BindbeeSource(config, clock)
        # When
        found = rows(one, {"status": "OPEN"})
        one.close()
    # Then
    assert found == IDS[:2]
    assert parameters(upstream.asked[1]) == parameters(upstream.asked[2])
    assert clock.monotonic() >= 2


@pytest.mark.external
def test_a_wrong_connector_token_is_reported_in_upstreams_words_and_never_shown() -> None:
    # Given
    refusal = reply(403, {"detail": "token_1 is for HRIS"})
    with reading(refusal) as (one, _), pytest.raises(SourceRefused) as refused:
        # When
        one.fetch({"remote_id": "7"}, BEGIN)
    # Then
    assert "is for HRIS" in str(refused.value)
    assert "token_1" not in str(refused.value)
    assert "remote_id" not in str(refused.value)


@pytest.mark.external
def test_a_cycle_of_cursors_is_an_error() -> None:
    # Given: cursors a, b, c, a, b, c and so on, each with rows
    circle = {None: "a", "a": "b", "b": "c", "c": "a"}

    def answer(asked: Asked) -> Answer:
        return said(IDS[:1], circle[parameters(asked).get("cursor")])

    with reading(answer) as (one, upstream):
        spec = Bench([]).spec
        at = Checkpoint(cursor=one.start(None, 0))
        walk = PageReader(spec, at, identity=one.identity, tolerated_drift=0)
        # When
        with pytest.raises(SourceUntrue, match="form a cycle"):
            while not walk.ended:
                walk.accept(one.fetch({}, walk.at.cursor))
    # Then
    assert len(upstream.asked) < 12


@pytest.mark.external
def test_a_job_that_a_sync_moves_behind_the_cursor_is_written_once() -> None:
    # Given
    with reading(said(IDS[:2], "a"), said([IDS[0], IDS[2]])) as (one, _):
        walk = PageReader(
            Bench([]).spec,
            Checkpoint(cursor=one.start(None, 0)),
            identity=one.identity,
            tolerated_drift=0,
        )
        # When
        found: list[Row] = []
        while not walk.ended:
            found += walk.accept(one.fetch({}, walk.at.cursor))
    # Then
    assert [json.loads(bytes(row))["id"] for row in found] == IDS[:3]
    proven = walk.completeness()
    assert (proven.outcome, proven.end_reason) == (Outcome.COMPLETE, EndReason.NULL_CURSOR)
    assert proven.duplicates_removed == 1


@pytest.mark.parametrize(
    ("limit", "size"), [(None, 200), (1, 1), (200, 200), (201, 101), (500, 167), (10**30, 200)]
)
def test_pages_are_as_large_as_the_vendor_allows_and_just_cover_the_limit(
    limit: int | None, size: int
) -> None:
    # When
    cursor = source(page_size=5_000).start(limit, 0)
    # Then
    assert cursor == {"cursor": None, "size": size, "skip": 0}


@pytest.mark.parametrize(
    ("raw", "query"),
    [
        ({}, {}),
        ({"status": None, "ids": [], "include_raw_data": False}, {}),
        ({"ids": " a, b,a"}, {"ids": "a,b"}),
        ({"offices": ["x", "y"]}, {"offices": "x,y"}),
        ({"include_raw_data": "TRUE", "include_custom_fields": True},
         {"include_raw_data": "true", "include_custom_fields": "true"}),
        ({"modified_after": "2024-02-21T21:22:12.993Z"},
         {"modified_after": "2024-02-21T21:22:12.993000Z"}),
        ({"modified_after": "2024-02-21"}, {"modified_after": "2024-02-21T00:00:00.000000Z"}),
        ({"modified_after": "2024-02-21T00:30:00+02:00"},
         {"modified_after": "2024-02-20T22:30:00.000000Z"}),
        ({"status": "-", "code": "DEV-01", "remote_id": "7"},
         {"remote_id": "7", "code": "DEV-01", "status": "-"}),
    ],
)  # fmt: skip
def test_a_search_is_stored_as_the_parameters_that_are_sent(
    raw: dict[str, Any], query: dict[str, str]
) -> None:
    # When
    search = source().search(raw, NOW, user_id="u1")
    # Then: checking the result again changes nothing, as in a retry
    assert (search.query, search.echo, search.limit, search.offset) == (query, query, None, 0)
    assert source().search(query, NOW, user_id="u1").query == query


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ({"stauts": "OPEN"}, [("stauts",)]),
        ({"cursor": "a", "page_size": 5}, [("cursor",), ("page_size",)]),
        ({"status": 1, "code": "", "remote_id": ["x"]}, [("status",), ("code",), ("remote_id",)]),
        ({"ids": "a,,b"}, [("ids",)]),
        ({"ids": ["a", 1]}, [("ids",)]),
        ({"ids": 7, "offices": {"a": 1}}, [("ids",), ("offices",)]),
        ({"offices": ",".join(IDS[:201])}, [("offices",)]),
        ({"modified_after": "yesterday"}, [("modified_after",)]),
        ({"modified_after": 1700000000}, [("modified_after",)]),
        ({"modified_after": "0001-01-01T00:00:00+10:00"}, [("modified_after",)]),
        ({"include_raw_data": "perhaps", "expand": "\ud83d"}, [("include_raw_data",), ("expand",)]),
    ],
)
def test_each_wrong_field_of_a_search_is_named(
    raw: dict[str, Any], where: list[tuple[str, ...]]
) -> None:
    # When
    with pytest.raises(QueryError) as wrong:
        source().search(raw, NOW, user_id="u1")
    # Then
    assert {tuple(problem["loc"]) for problem in wrong.value.problems} == set(where)
    assert all(problem["msg"] and problem["type"] for problem in wrong.value.problems)


@pytest.mark.external
def test_two_hundred_ids_are_looked_up_by_one_request() -> None:
    # Given
    with reading(said(IDS[:150])) as (one, upstream):
        # When
        found = one.lookup([IDS[0].upper(), *IDS[1:200]], {})
    # Then
    assert list(found) == [IDS[0].upper(), *IDS[1:150]]
    (asked,) = upstream.asked
    assert parameters(asked) == {"ids": ",".join(IDS[:200]), "page_size": "200"}
    assert len(asked.line) < 8_000
    assert one.lookup_size == 200


@pytest.mark.external
def test_ids_that_no_job_can_have_are_not_requested() -> None:
    # Given
    with reading(said([])) as (one, upstream):
        # When
        found = one.lookup(["civil", "", f"{IDS[0]},{IDS[1]}"], {})
    # Then
    assert (found, upstream.asked) == ({}, [])


@pytest.mark.external
def test_a_lookup_that_comes_in_several_pages_is_read_to_its_end() -> None:
    # Given
    with reading(said(IDS[:2], "a"), said([], "b"), said(IDS[2:3])) as (one, upstream):
        # When
        found = one.lookup(IDS[:4], {})
    # Then
    assert list(found) == IDS[:3]
    assert [parameters(asked).get("cursor") for asked in upstream.asked] == [None, "a", "b"]
    assert {parameters(asked)["ids"] for asked in upstream.asked} == {",".join(IDS[:4])}


@pytest.mark.external
@pytest.mark.parametrize(
    ("answers", "claim"),
    [
        ([said([IDS[9]])], "returned the job"),
        ([said(IDS[:1], "a"), said([], "b"), said([], "a")], "twice for a list"),
        ([reply(200, {"cursor": None, "page_size": 1, "items": [{"ID": 1}]})], "returned the job"),
    ],
)
def test_a_lookup_that_cannot_be_the_answer_is_an_error(answers: list[bytes], claim: str) -> None:
    # Given
    with reading(*answers) as (one, _), pytest.raises(SourceUntrue, match=claim):
        # When / Then
        one.lookup(IDS[:2], {})


def test_columns_are_the_contracts_in_its_order_unless_configured() -> None:
    # When / Then
    assert source().columns == COLUMNS
    assert (COLUMNS[0], COLUMNS[7], len(set(COLUMNS))) == ("id", "status", 17)
    assert source(columns=("id", "name")).columns == ("id", "name")


def test_all_workers_together_stay_within_the_vendors_rate() -> None:
    # When
    rate = BindbeeConfig(base_url="http://h", connector_token="t").rate
    # Then
    assert rate is not None
    assert (rate.requests, rate.seconds) == (200, 60)


@pytest.mark.external
def test_an_export_holds_every_job_of_a_board_that_misbehaves(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": f"job {number}"} for number in range(95)])
    spec = "429=8%,503=8%,reset=8%,truncate=8%,html=8%,empty=8%,short=8%,total=8%,cursor=8%"
    bench = Bench([], format="json")
    with boards.serving(path, spec, bindbee_rate=10**6) as url:
        config = BindbeeConfig(
            base_url=url,
            api_key=boards.KEY,
            connector_token=boards.KEY,
            page_size=7,
        )
        bench.source = config.make(bench.clock)
        # When
        bench.run()
        bench.source.close()
    # Then
    assert bench.export.result is not None
    proven = bench.export.result.completeness
    assert (proven.outcome, proven.exported) == (Outcome.COMPLETE, 95)
    jobs = [json.loads(line) for line in bench.file().splitlines()]
    assert {job["remote_id"] for job in jobs} == {f"job {number}" for number in range(95)}
    assert len({job["id"] for job in jobs}) == 95

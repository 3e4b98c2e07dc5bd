"""The Coresignal source: its requests, the answers that it accepts, and its filters."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.clock import FakeClock
from exporter.contracts.coresignal import JobFilters
from exporter.errors import QueryError, SourceRefused, SourceUnavailable, SourceUntrue
from exporter.sources.coresignal import COLUMNS, CoresignalConfig, CoresignalSource
from exporter.sources.http.client import MAX_TRIES
from tests.upstreams import Answer, Asked, Upstream, reply, serving

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Vendor:
    """An upstream with the records 1 to `total`, sorted by a time that is equal for all."""

    def __init__(self, total: int, *, many: bool = False) -> None:
        self.ids = list(range(1, total + 1))
        self.gone: set[int] = set()
        """Ids that searches return although their records are gone."""
        self.many = many
        self.lock = threading.Lock()
        self.collected: list[int] = []

    def __call__(self, asked: Asked) -> Answer:
        method, target, _ = asked.line.split(" ")
        url = urlsplit(target)
        if url.path.startswith("/v2/job_base/search/"):
            query = {name: value[0] for name, value in parse_qs(url.query).items()}
            return self.search(int(query["items_per_page"]), query.get("after"))
        if (method, url.path) == ("POST", "/v2/job_base/collect"):
            if not self.many:
                return reply(404, {"detail": "Not Found"})
            wanted = asked.json["ids"]
            self.collected += wanted
            return listed([{"id": one} for one in wanted if self.knows(one)])
        one = int(url.path.rpartition("/")[2])
        with self.lock:
            self.collected.append(one)
        if not self.knows(one):
            return reply(404, {"detail": "No such record"})
        return reply(200, {"id": one})

    def knows(self, one: int) -> bool:
        return one in self.ids and one not in self.gone

    def search(self, size: int, after: str | None) -> bytes:
        begin = 0
        if after is not None:
            moment, _, last = after.rpartition(",")
            assert moment == '"2025-03-19 13:39:50"'
            begin = self.ids.index(int(last)) + 1
        page = self.ids[begin : begin + size]
        more = begin + size < len(self.ids)
        return searched(page, len(self.ids), page[-1] if more else None)


def listed(records: list[Any], **headers: Any) -> bytes:
    return reply(200, json.dumps(records), **headers)


def searched(ids: list[Any], total: object, last: int | None = None) -> bytes:
    headers = {"x_total_results": str(total)}
    if last is not None:
        headers["x_next_page_after"] = f'"2025-03-19 13:39:50",{last}'
    return listed(ids, **headers)


def source(url: str = "http://127.0.0.1:9", **more: Any) -> CoresignalSource:
    given = {"page_size": 4, "max_in_flight": 1, **more}
    config = CoresignalConfig(base_url=url, api_key="key_1", **given)
    return CoresignalSource(config, FakeClock())


@contextmanager
def reading(
    *answers: Answer | Callable[[Asked], Answer], **more: Any
) -> Iterator[tuple[CoresignalSource, Upstream]]:
    with serving(*answers) as upstream:
        one = source(upstream.url, **more)
        try:
            yield one, upstream
        finally:
            one.close()


def ids(rows: Any) -> list[int]:
    return [json.loads(bytes(row))["id"] for row in rows]


def everything(one: CoresignalSource, limit: int | None = None) -> list[list[int]]:
    cursor = one.start(limit, 0)
    found: list[list[int]] = []
    while cursor is not None and (limit is None or sum(map(len, found)) < limit):
        page = one.fetch({}, cursor)
        found.append(ids(page.rows))
        cursor = page.next
    return found


@pytest.mark.external
def test_a_search_is_asked_for_as_the_vendor_documents_it() -> None:
    # Given
    with reading(Vendor(9)) as (one, upstream):
        # When
        first = one.fetch({"title": "Welder"}, one.start(None, 0))
        one.fetch({"title": "Welder"}, first.next)
    # Then: the `after` value of upstream is sent back unchanged
    searches = [asked for asked in upstream.asked if "/search/" in asked.line]
    assert searches[1].line == "POST /v2/job_base/search/filter?items_per_page=4 HTTP/1.1"
    assert searches[1].headers["apikey"] == "key_1"
    assert searches[1].json == {"title": "Welder"}
    assert searches[2].line == (
        "POST /v2/job_base/search/filter?items_per_page=4"
        "&after=%222025-03-19+13%3A39%3A50%22%2C4 HTTP/1.1"
    )
    assert upstream.asked[3].line == "GET /v2/job_base/collect/1 HTTP/1.1"
    assert ids(first.rows) == [1, 2, 3, 4]
    assert first.total == 9


@pytest.mark.external
def test_an_elasticsearch_query_goes_upstream_as_it_is() -> None:
    # Given
    dsl = {"query": {"match": {"title": "Welder"}}}
    with reading(Vendor(9)) as (one, upstream):
        search = one.search({"es_dsl": dsl}, NOW, user_id="u1")
        # When
        first = one.fetch(search.query, one.start(None, 0))
    # Then
    asked = next(asked for asked in upstream.asked if "/es_dsl" in asked.line)
    assert asked.line == "POST /v2/job_base/search/es_dsl?items_per_page=4 HTTP/1.1"
    assert asked.json == dsl
    assert ids(first.rows) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("raw", "loc"),
    [
        ({"es_dsl": {}}, ("es_dsl",)),
        ({"es_dsl": []}, ("es_dsl",)),
        ({"es_dsl": {"query": "title:welder"}}, ("es_dsl",)),
        ({"es_dsl": {"query": {}, "size": 10}}, ("es_dsl",)),
        ({"es_dsl": {"query": {}}, "title": "Welder"}, ("title",)),
    ],
)
def test_an_elasticsearch_query_of_another_shape_is_named(
    raw: dict[str, Any], loc: tuple[str, ...]
) -> None:
    # When
    with pytest.raises(QueryError) as refused:
        source().search(raw, NOW, user_id="u1")
    # Then
    assert [problem["loc"] for problem in refused.value.problems] == [loc]


@pytest.mark.external
@pytest.mark.parametrize("many", [True, False])
def test_records_come_in_the_order_of_the_search_each_once(many: bool) -> None:
    # Given
    vendor = Vendor(10, many=many)
    with reading(vendor, max_in_flight=1 if many else 8) as (one, _):
        # When
        found = everything(one)
    # Then
    assert found == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert sorted(vendor.collected) == list(range(1, 11))


@pytest.mark.external
def test_bulk_collection_is_detected_once() -> None:
    # Given
    with reading(Vendor(10, many=True)) as (one, upstream):
        # When
        everything(one)
        one.lookup(["1"], {})
    # Then
    collects = [asked.json for asked in upstream.asked if "/collect " in asked.line]
    assert collects == [
        {"ids": []}, {"ids": [1, 2, 3, 4]}, {"ids": [5, 6, 7, 8]}, {"ids": [9, 10]}, {"ids": [1]},
    ]  # fmt: skip


@pytest.mark.external
def test_no_record_is_collected_beyond_the_limit() -> None:
    # Given: each record costs a credit
    vendor = Vendor(10)
    with reading(vendor) as (one, _):
        # When
        found = everything(one, limit=6)
    # Then
    assert found == [[1, 2, 3, 4], [5, 6]]
    assert vendor.collected == [1, 2, 3, 4, 5, 6]


@pytest.mark.external
def test_a_record_that_is_gone_is_reported_as_unknown_and_another_takes_its_place() -> None:
    # Given
    vendor = Vendor(10)
    vendor.gone = {2, 3}
    with reading(vendor) as (one, _):
        # When
        first = one.fetch({}, one.start(5, 0))
        second = one.fetch({}, first.next)
    # Then
    assert ids(first.rows) == [1, 4]
    assert first.unknown == ["2", "3"]
    assert ids(second.rows) == [5, 6, 7]


@pytest.mark.external
def test_ids_before_the_offset_are_skipped_without_collecting_them() -> None:
    # Given
    vendor = Vendor(10)
    with reading(vendor) as (one, upstream):
        # When
        skipped = one.fetch({}, one.start(2, 7))
        page = one.fetch({}, skipped.next)
    # Then
    assert (list(skipped.rows), ids(page.rows)) == ([], [8, 9])
    assert vendor.collected == [8, 9]
    assert sum("/search/" in asked.line for asked in upstream.asked) == 3


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "claim"),
    [
        (searched([1, 2, 3, 4], 9), "the last page that ends after 4 ids"),
        (searched([], 9), "the last page that ends after 0 ids"),
        (searched([1, 2, 3, 4], 2), "the last page that ends after 4 ids"),
        (searched([1, 2, 3, 4], 3, 4), "a page that ends after 4 ids"),
        (searched([1, 2, 3, 4, 5], 9, 5), "5 ids, but at most 4 were requested"),
        (searched([1, 2, 2], 9, 2), "the same id twice"),
        (searched([], 9, 4), "which is this page again"),
        (searched([1, "2"], 9, 2), "not the requested page"),
        (searched([1, 2.5], 9, 2), "not the requested page"),
        (searched([0], 9, 2), "not the requested page"),
        (searched([1], "many"), "x-total-results that is not a number: 'many'"),
        (listed([1]), "x-total-results that is not a number: ''"),
        (reply(200, {"ids": [1]}, x_total_results="1"), "not the requested page"),
    ],
)
def test_a_search_page_that_contradicts_itself_is_refused(answer: bytes, claim: str) -> None:
    # Given
    def upstream(asked: Asked) -> Answer:
        return answer if "/search/" in asked.line else listed([])

    with reading(upstream) as (one, _), pytest.raises(SourceUntrue, match=claim):
        # When
        one.fetch({}, one.start(None, 0))


@pytest.mark.external
def test_a_page_that_names_itself_as_the_next_is_refused() -> None:
    # Given
    vendor = Vendor(9, many=True)
    with reading(vendor) as (one, _):
        first = one.fetch({}, one.start(None, 0))
        vendor.search = lambda *_: searched([5], 9, 4)  # type: ignore[method-assign]
        # When
        with pytest.raises(SourceUntrue, match="which is this page again"):
            one.fetch({}, first.next)


@pytest.mark.external
def test_a_list_that_changed_by_less_than_tolerated_ends_with_what_was_read() -> None:
    # Given: one of the rows already read is deleted
    vendor = Vendor(8, many=True)
    with reading(vendor, tolerated_drift=0.2) as (one, _):
        first = one.fetch({}, one.start(None, 0))
        vendor.ids.remove(1)
        # When
        second = one.fetch({}, first.next)
    # Then: a total of 7 would contradict the 8 rows read
    assert (first.total, second.total, second.next) == (8, 8, None)


@pytest.mark.external
@pytest.mark.parametrize(
    ("answer", "claim"),
    [
        (listed([{"id": 1}, {"id": 7}]), "the record 7, which was not requested"),
        (listed([{"id": 1}, {"id": 1}]), "the record 1, which .* came twice"),
        (listed([{"title": "x"}]), "missing required field `id`"),
        (listed([5]), "not the requested page"),
        (reply(200, {"records": []}), "not the requested page"),
    ],
)
def test_records_that_were_not_requested_are_refused(answer: bytes, claim: str) -> None:
    # Given
    def upstream(asked: Asked) -> Answer:
        if "/search/" in asked.line:
            return searched([1, 2], 2)
        return answer if asked.json["ids"] else listed([])

    with reading(upstream) as (one, _), pytest.raises(SourceUntrue, match=claim):
        # When
        one.fetch({}, one.start(None, 0))


@pytest.mark.external
def test_another_record_than_the_requested_one_is_refused() -> None:
    # Given
    def upstream(asked: Asked) -> Answer:
        if "/search/" in asked.line:
            return searched([1], 1)
        return reply(200, {"id": 2}) if "/collect/" in asked.line else reply(405)

    with reading(upstream) as (one, _), pytest.raises(SourceUntrue, match="the record 2"):
        # When
        one.fetch({}, one.start(None, 0))


@pytest.mark.external
def test_a_record_with_control_characters_comes_as_it_is() -> None:
    # Given: a control character, which JSON does not allow and of which the vendor warns
    record = b'{"id": 1, "description": "tab\there", "fte": 1.10}'

    def upstream(asked: Asked) -> Answer:
        if "/search/" in asked.line:
            return searched([1], 1)
        return reply(200, record) if "/collect/" in asked.line else reply(404)

    with reading(upstream) as (one, _):
        # When
        page = one.fetch({}, one.start(None, 0))
    # Then
    assert [bytes(row) for row in page.rows] == [record]


@pytest.mark.external
def test_records_that_do_not_come_in_time_are_asked_for_in_smaller_pages_from_then_on() -> None:
    # Given
    vendor = Vendor(10, many=True)

    def upstream(asked: Asked) -> Answer:
        several = "/collect " in asked.line and len(asked.json["ids"]) > 2
        return reply(504) if several else vendor(asked)

    with reading(upstream) as (one, _):
        # When
        found = everything(one)
    # Then
    assert found == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]]


@pytest.mark.external
def test_records_one_by_one_that_take_too_long_make_a_smaller_page_and_are_paid_once() -> None:
    # Given: each record takes a quarter of the time of a page
    vendor, clock = Vendor(10), FakeClock()

    def upstream(asked: Asked) -> Answer:
        if "/collect/" in asked.line:
            clock.advance(15)
        return vendor(asked)

    with serving(upstream) as served:
        config = CoresignalConfig(base_url=served.url, api_key="k", page_size=4, max_in_flight=1)
        one = CoresignalSource(config, clock)
        # When
        page = one.fetch({}, one.start(None, 0))
        one.close()
    # Then: half of the time was spent on a page of four
    assert ids(page.rows) == [1, 2]
    assert page.next["size"] == 2
    assert vendor.collected == [1, 2]


@pytest.mark.external
def test_records_looked_up_one_by_one_end_at_the_deadline_of_a_page() -> None:
    # Given
    vendor, clock = Vendor(10), FakeClock()

    def upstream(asked: Asked) -> Answer:
        if "/collect/" in asked.line:
            clock.advance(25)
        return vendor(asked)

    with serving(upstream) as served:
        config = CoresignalConfig(base_url=served.url, api_key="k", max_in_flight=1)
        one = CoresignalSource(config, clock)
        # When
        with pytest.raises(SourceUnavailable):
            one.lookup([str(number) for number in range(1, 11)], {})
        one.close()
    # Then
    assert len(vendor.collected) <= 3


@pytest.mark.external
def test_an_error_of_one_record_fails_the_page() -> None:
    # Given
    vendor = Vendor(4)

    def upstream(asked: Asked) -> Answer:
        return reply(402, {"detail": "no credits"}) if "/collect/3" in asked.line else vendor(asked)

    reader = reading(upstream, max_in_flight=2)
    with reader as (one, _), pytest.raises(SourceRefused, match="no credits"):
        # When
        one.fetch({}, one.start(None, 0))


@pytest.mark.external
def test_an_untrue_search_is_asked_for_again() -> None:
    # Given
    vendor = Vendor(2, many=True)
    searches = []

    def upstream(asked: Asked) -> Answer:
        if "/search/" in asked.line:
            searches.append(asked)
            if len(searches) < MAX_TRIES:
                return searched([1], 2)
        return vendor(asked)

    with reading(upstream) as (one, _):
        # When
        page = one.fetch({}, one.start(None, 0))
    # Then
    assert ids(page.rows) == [1, 2]


@pytest.mark.external
def test_a_count_takes_one_search_and_no_record() -> None:
    # Given
    vendor = Vendor(9)
    with reading(vendor) as (one, upstream):
        # When
        counted = one.count({"title": "Welder"})
    # Then
    assert counted == 9
    (asked,) = upstream.asked
    assert asked.line == "POST /v2/job_base/search/filter?items_per_page=1 HTTP/1.1"


@pytest.mark.external
@pytest.mark.parametrize("many", [True, False])
def test_a_text_that_is_not_an_id_is_unknown(many: bool) -> None:
    # Given
    vendor = Vendor(9, many=many)
    with reading(vendor) as (one, _):
        # When
        found = one.lookup(["7", "x", "", "-1", "１", "3", "9" * 30, "10"], {})
    # Then
    assert {name: ids([row]) for name, row in found.items()} == {"7": [7], "3": [3]}
    assert sorted(vendor.collected) == [3, 7, 10]


@pytest.mark.external
def test_the_lookup_size_shrinks_without_bulk_collection() -> None:
    # Given
    with reading(Vendor(9), max_in_flight=3) as (one, _):
        before = one.lookup_size
        # When
        one.lookup(["1"], {})
        # Then
        assert (before, one.lookup_size) == (1000, 30)


@pytest.mark.external
def test_a_wrong_address_is_an_error_where_every_id_would_seem_unknown() -> None:
    # Given
    nowhere = reading(reply(404, {"detail": "Not Found"}))
    with nowhere as (one, _), pytest.raises(SourceRefused, match="answered 404"):
        # When
        one.lookup(["1", "2"], {})


def test_the_columns_are_the_fields_of_a_record() -> None:
    # Then
    assert source().columns == COLUMNS
    assert source(columns=("id", "title")).columns == ("id", "title")


def test_a_search_is_stored_with_its_given_filters_only() -> None:
    # Given
    raw = {
        "industry": None,
        "title": '"Data Analyst" OR nurse',
        "deleted": False,
        "created_at_gte": "2024-02-29 00:00:01",
        "company_linkedin_url": "https://example.com/c",
        "company_id": 7,
    }
    # When
    found = source().search(raw, NOW, user_id="u1")
    # Then
    assert (
        found.query
        == found.echo
        == {
            "created_at_gte": "2024-02-29 00:00:01",
            "title": '"Data Analyst" OR nurse',
            "company_id": 7,
            "company_professional_network_url": "https://example.com/c",
            "deleted": False,
        }
    )
    assert source().search(found.query, NOW, user_id="u1") == found
    assert found.limit is None


@pytest.mark.parametrize(
    ("raw", "loc"),
    [
        ({"titel": "x"}, "titel"),
        ({"limit": 5}, "limit"),
        ({"title": ""}, "title"),
        ({"title": ["x"]}, "title"),
        ({"company_id": "7"}, "company_id"),
        ({"company_id": True}, "company_id"),
        ({"company_id": 2**63}, "company_id"),
        ({"deleted": 1}, "deleted"),
        ({"deleted": "true"}, "deleted"),
        ({"created_at_gte": "2024-01-01"}, "created_at_gte"),
        ({"created_at_lte": "2023-02-29 00:00:00"}, "created_at_lte"),
        ({"last_updated_gte": "2023-2-2 1:00:00"}, "last_updated_gte"),
        ({"last_updated_lte": 5}, "last_updated_lte"),
    ],
)
def test_a_wrong_filter_is_named(raw: dict[str, Any], loc: str) -> None:
    # When
    with pytest.raises(QueryError) as error:
        source().search(raw, NOW, user_id="u1")
    # Then
    assert [list(problem["loc"]) for problem in error.value.problems] == [[loc]]


def test_the_refusal_of_an_unknown_filter_lists_the_known_filters() -> None:
    # When
    with pytest.raises(QueryError) as error:
        source().search({"colour": "red", "deleted": 1}, NOW, user_id="u1")
    # Then: a known filter with a wrong value keeps the model's own text
    unknown, wrong = sorted(error.value.problems, key=lambda problem: str(problem["loc"]))
    assert (unknown["loc"], unknown["type"]) == (("colour",), "extra_forbidden")
    assert unknown["msg"] == f"unknown filter; known: {', '.join(JobFilters.model_fields)}"
    assert wrong == {
        "loc": ("deleted",),
        "msg": "Input should be a valid boolean",
        "type": "bool_type",
    }


def test_two_spellings_of_one_filter_must_agree() -> None:
    # Given
    raw = {"company_linkedin_url": "a", "company_professional_network_url": "b"}
    # When
    with pytest.raises(QueryError, match="two spellings of one filter"):
        source().search(raw, NOW, user_id="u1")

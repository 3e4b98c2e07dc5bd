"""The Coresignal contract over the wire: data requests by filters and by ids, and their files."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
import redis
from msgspec.structs import replace

from exporter.api import coresignal, data_requests, downloads
from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.config import SourceConfig
from exporter.errors import StorageUnavailable
from exporter.exports import Export, State
from exporter.formats import registry
from exporter.local.redis import RedisServer
from exporter.pipeline import run_slice
from exporter.plans import Plan
from exporter.sources.hirebase import HirebaseSource
from exporter.sources.memory import MemorySource
from exporter.storage.base import PART_SIZE_MIN
from exporter.storage.memory import MemoryStorage
from exporter.store.keys import KeyRing
from exporter.store.memory import MemoryStore
from tests.harness import LIMITS
from tests.integration.api_server import (
    KEYS_DATABASE,
    LEASE,
    PUBLIC_URL,
    Server,
    Service,
    make_engine,
)

V1 = "/v1/professional_network/job/bulk_collect"
V2 = "/v2/data_requests/job_base"
ROOTS = (V1, V2, "/v2/data_requests/job_multi_source", f"/cdapi{V1}", f"/cdapi{V2}")
PENDING = {"message": "Data request is still being processed", "data_request_files": []}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server().running() as running:
        yield running


@pytest.fixture
def api(server: Server, redis_server: RedisServer) -> Iterator[Service]:
    """An API whose Coresignal source is a list, see `holding`."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        clock = FakeClock()
        storage = MemoryStorage(clock)
        source = SourceConfig(type="coresignal", base_url="http://127.0.0.1:9", api_key="unused")
        engine = make_engine(clock, MemoryStore(clock), storage, coresignal=source)
        keys = KeyRing(client)
        ann, bob = keys.create("ann"), keys.create("bob")
        server.app = create_app(engine, keys)
        with httpx.Client(base_url=server.url, headers={"apikey": ann}) as http:
            service = Service(http, engine, clock, storage, keys, ann, bob)
            holding(service, 3)
            yield service


def holding(api: Service, rows: int) -> None:
    """Let the source have so many postings, with the ids 1, 2, 3 …"""
    postings = [b'{"_id":"%d","title":"Welder \\u2028 %d"}' % (n, n) for n in range(1, rows + 1)]
    api.engine._sources["coresignal"] = MemorySource(
        postings, page_size=1_000, columns=("_id", "title")
    )


def create(api: Service, root: str = V2, **body: Any) -> httpx.Response:
    return api.http.post(f"{root}/filter", json={"filters": {"title": "Welder"}, **body})


def work(api: Service, export_id: str) -> Export:
    """Do what a worker does with this export, until it has ended."""
    while True:
        claimed_at = api.clock.monotonic()
        claim = api.engine.store.claim("worker-test-1", lease=LEASE)
        assert claim is not None
        spec = claim.export.spec
        run_slice(
            claim,
            source=api.engine.reader(claim.export),
            encoder=registry.make(spec.format, spec.dialect, spec.columns),
            storage=api.storage,
            store=api.engine.store,
            clock=api.clock,
            limits=replace(LIMITS, part_size=PART_SIZE_MIN),
            claimed_at=claimed_at,
        )
        export = api.engine.store.get(export_id)
        assert export is not None
        if export.terminal:
            return export
        api.clock.advance(61)
        api.engine.store.sweep()


def collected(api: Service, answer: httpx.Response, place: str = "/v2/data_requests") -> str:
    """Where the files of a data request stand, once a worker is through with it."""
    assert answer.status_code == 201, answer.text
    export_id = answer.json()["request_id"]
    assert work(api, export_id).state is State.FINISHED
    return f"{place}/{export_id}/files"


def upload(api: Service, content: bytes, root: str = V2, **fields: str) -> httpx.Response:
    files = {"ids_file": ("ids.csv", content, "text/csv")}
    return api.http.post(f"{root}/id_file", files=files, data=fields)


def check_flat(answer: httpx.Response, status: int, text: str = "") -> str:
    """The error's text, after checking that it is of the contract's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["detail"]
    assert isinstance(body["detail"], str)
    assert text in body["detail"]
    return str(body["detail"])


def is_empty(api: Service) -> bool:
    return not api.engine.store.list("ann", limit=1).exports and not list(api.storage.objects(""))


# -- creating ----------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ROOTS)
def test_a_data_request_is_accepted_on_every_path_of_the_contract(api: Service, root: str) -> None:
    # When
    answer = create(api, root, limit=7, webhook_url="https://me.test/hook", data_format="json")

    # Then
    assert answer.status_code == 201
    assert list(answer.json()) == ["request_id"]
    export_id = answer.json()["request_id"]
    place = "/v1/bulk_collect" if "/v1/" in root else "/v2/data_requests"
    assert answer.headers["Location"] == f"{place}/{export_id}/files"
    export = api.engine.store.get(export_id)
    assert export is not None
    spec = export.spec
    assert (spec.query, spec.limit, spec.source) == ({"title": "Welder"}, 7, "coresignal")
    assert (spec.format, spec.compression, spec.rows_per_file) == ("json", "gzip", 10_000)
    assert spec.keep_seconds == timedelta(days=30).total_seconds()
    for base in ("", "/cdapi"):
        polled = api.http.get(base + answer.headers["Location"])
        assert (polled.status_code, polled.json()) == (202, PENDING)
        assert int(polled.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "header",
    [("apikey", "{}"), ("Authorization", "Bearer {}"), ("X-API-Key", "{}")],
    ids=lambda header: header[0],
)
def test_the_key_is_taken_from_each_header_that_clients_send(
    api: Service, header: tuple[str, str]
) -> None:
    # Given
    name, value = header
    with httpx.Client(base_url=api.http.base_url) as stranger:
        # When
        answer = stranger.post(
            f"{V2}/filter", json={"filters": {}}, headers={name: value.format(api.bob)}
        )
        refused = stranger.post(f"{V2}/filter", json={"filters": {}}, headers={name: "Bearer no"})
        keyless = stranger.get("/v1/bulk_collect/some-id/files")

    # Then
    assert answer.status_code == 201
    check_flat(refused, 401)
    check_flat(keyless, 401, "apikey")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "filters"),
        ({"filters": []}, "filters"),
        ({"filters": {}, "limit": 0}, "limit"),
        ({"filters": {}, "limit": "5"}, "limit"),
        ({"filters": {}, "limit": True}, "limit"),
        ({"filters": {}, "webhook_url": "ftp://me.test"}, "webhook_url"),
        ({"filters": {}, "webhook_url": "https://"}, "webhook_url"),
        ({"filters": {}, "webhook_url": "https://me.test/a b"}, "webhook_url"),
        ({"filters": {}, "webhook_url": "https://me.test:99999"}, "webhook_url"),
        ({"filters": {}, "data_format": "csv"}, "data_format"),
        ({"filters": {}, "serach": 1}, "serach"),
    ],
)
@pytest.mark.parametrize("root", [V1, V2])
def test_a_wrong_field_is_named_in_one_text(
    api: Service, root: str, body: dict[str, Any], said: str
) -> None:
    # When
    answer = api.http.post(f"{root}/filter", json=body)

    # Then
    check_flat(answer, 422, said)
    assert is_empty(api)


@pytest.mark.parametrize("url", [None, "", " "])
def test_a_blank_webhook_url_is_none_because_templates_leave_it_blank(
    api: Service, url: str | None
) -> None:
    # When
    answer = create(api, webhook_url=url)

    # Then
    assert answer.status_code == 201


def test_what_is_no_json_of_the_right_type_and_length_is_refused_in_the_contracts_shape(
    api: Service,
) -> None:
    for root in (V1, V2, f"/cdapi{V2}"):
        # When
        cut = api.http.post(f"{root}/filter", content=b'{"filters": ')
        form = api.http.post(f"{root}/filter", data={"filters": "x"})
        long = api.http.post(f"{root}/filter", content=b" " * 1_100_000)
        method = api.http.put(f"{root}/filter", json={})
        nowhere = api.http.get(f"{root}/nothing/of/that/kind")

        # Then
        check_flat(cut, 400, "no JSON")
        check_flat(form, 415, "application/json")
        check_flat(long, 413)
        check_flat(method, 405)
        assert method.headers["Allow"] == "POST"
        check_flat(nowhere, 404)
    assert is_empty(api)


def test_an_elasticsearch_query_that_the_source_does_not_take_is_refused_with_a_reason(
    api: Service,
) -> None:
    # Given: a source of another kind, of which only the words are asked
    other = SourceConfig(type="hirebase", base_url="http://127.0.0.1:9")
    api.engine._sources["coresignal"] = HirebaseSource(other, FakeClock())
    query = {"query": {"match": {"title": "welder"}}}
    for body in ({"es_dsl_query": query}, query):
        # When
        answer = api.http.post(f"{V2}/es_dsl", json=body)

        # Then
        check_flat(answer, 422, "no Elasticsearch")
    assert is_empty(api)


def test_an_unknown_filter_is_named(api: Service) -> None:
    # Given: the real source, of which only the words are asked
    del api.engine._sources["coresignal"]

    # When
    wrong = create(api, filters={"colour": "red"})

    # Then
    check_flat(wrong, 422, "body.filters.colour")
    assert is_empty(api)


def test_an_elasticsearch_query_reaches_a_source_that_takes_it(api: Service) -> None:
    # Given
    inner = {"match": {"title": "welder"}}

    # When
    bare = api.http.post(f"{V2}/es_dsl", json={"query": inner, "limit": 3})
    same = api.http.post(f"{V2}/es_dsl", json={"es_dsl_query": {"query": inner}, "limit": 3})
    both = api.http.post(f"{V2}/es_dsl", json={"query": inner, "es_dsl_query": {"query": inner}})
    neither = api.http.post(f"{V2}/es_dsl", json={"limit": 3})
    long = api.http.post(f"{V2}/es_dsl", json={"query": {"match": {"title": "x" * 15_000}}})

    # Then
    export = api.engine.store.get(bare.json()["request_id"])
    assert export is not None
    assert export.spec.query == {"es_dsl": {"query": inner}}
    check_flat(same, 409)
    check_flat(both, 422, "one of them")
    check_flat(neither, 422, "one of them")
    check_flat(long, 422, "15000")


# -- the same once more ------------------------------------------------------------------------


def test_a_search_that_is_under_way_is_not_started_again_and_the_first_is_named(
    api: Service,
) -> None:
    # Given
    first = create(api).json()["request_id"]

    # When
    again = create(api)
    other_limit = create(api, limit=5)
    other_filter = create(api, filters={"title": "Painter"})
    other_contract = create(api, V1)
    other_user = api.http.post(
        f"{V2}/filter", json={"filters": {"title": "Welder"}}, headers={"apikey": api.bob}
    )

    # Then
    assert again.status_code == 409
    assert again.json() == {"detail": "Identical data request is already in progress."}
    assert again.headers["X-Data-Request-Id"] == first
    assert again.headers["Location"] == f"/v2/data_requests/{first}/files"
    for answer in (other_limit, other_filter, other_contract, other_user):
        assert answer.status_code == 201


def test_a_search_that_has_ended_may_be_collected_again_any_number_of_times(api: Service) -> None:
    # Given
    seen = set()
    for turn in range(4):
        # When
        answer = create(api)
        while_under_way = create(api)

        # Then
        export_id = answer.json()["request_id"]
        seen.add(export_id)
        assert while_under_way.headers["X-Data-Request-Id"] == export_id
        if turn % 2:
            api.engine.cancel("ann", export_id)
        else:
            work(api, export_id)
    # Given: one that was deleted
    api.engine.delete("ann", export_id)

    # When
    after = create(api)

    # Then
    assert after.status_code == 201
    assert len(seen | {after.json()["request_id"]}) == 5


def test_of_many_at_once_exactly_one_is_the_first(api: Service) -> None:
    # When
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: create(api), range(24)))

    # Then
    created = [answer for answer in answers if answer.status_code == 201]
    (export_id,) = (answer.json()["request_id"] for answer in created)
    for answer in answers:
        if answer is not created[0]:
            assert answer.status_code == 409
            assert answer.headers["X-Data-Request-Id"] == export_id


def test_an_idempotency_key_replays_and_decides_instead_of_the_search(api: Service) -> None:
    # Given
    body = {"filters": {"title": "Welder"}}
    first = api.http.post(f"{V2}/filter", json=body, headers={"Idempotency-Key": "a"})

    # When
    replay = api.http.post(f"{V2}/filter", json=body, headers={"Idempotency-Key": "a"})
    meant = api.http.post(f"{V2}/filter", json=body, headers={"Idempotency-Key": "b"})
    reused = api.http.post(f"{V2}/filter", json={"filters": {}}, headers={"Idempotency-Key": "a"})
    file = {"ids_file": b"1\n2\n"}
    ids = [
        api.http.post(f"{V2}/id_file", files=file, headers={"Idempotency-Key": "c"})
        for _ in range(2)
    ]
    others = api.http.post(
        f"{V2}/id_file", files={"ids_file": b"1\n3\n"}, headers={"Idempotency-Key": "c"}
    )

    # Then
    assert replay.status_code == 201
    assert replay.json() == first.json()
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert meant.status_code == 201
    assert meant.json() != first.json()
    check_flat(reused, 422, "Idempotency-Key")
    assert ids[0].json() == ids[1].json()
    check_flat(others, 422, "Idempotency-Key")


# -- collecting --------------------------------------------------------------------------------


def test_the_older_paths_split_any_number_of_records_into_files_of_10000(api: Service) -> None:
    # Given
    holding(api, 25_000)

    # When
    place = collected(api, create(api, V1), "/v1/bulk_collect")
    listed = api.http.get(place)

    # Then
    assert listed.status_code == 200
    assert list(listed.json()) == ["data_request_files"]
    names = listed.json()["data_request_files"]
    export_id = place.split("/")[-2]
    assert names == [f"part-{n:05d}-{export_id}-h000.json.gz" for n in range(3)]
    identities: list[str] = []
    for name, rows in zip(names, (10_000, 10_000, 5_000), strict=True):
        answer = api.http.get(f"{place}/{name}", headers={"Accept": "application/gzip"})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/gzip"
        assert "Content-Encoding" not in answer.headers
        assert "Transfer-Encoding" not in answer.headers
        assert int(answer.headers["Content-Length"]) == len(answer.content)
        assert answer.headers["Accept-Ranges"] == "bytes"
        assert f'filename="{name}"' in answer.headers["Content-Disposition"]
        lines = gzip.decompress(answer.content).decode().split("\n")
        assert lines.pop() == ""
        assert len(lines) == rows
        identities += [json.loads(line)["_id"] for line in lines]
    assert identities == [str(n) for n in range(1, 25_001)]


@pytest.mark.parametrize(
    ("matching", "limit", "collectable"),
    [(10_000, None, True), (10_001, None, False), (10_001, 20_000, False), (10_500, 10_000, True)],
)
def test_the_current_paths_give_at_most_10000_matches_and_say_so_when_collecting(
    api: Service, matching: int, limit: int | None, collectable: bool
) -> None:
    # Given
    holding(api, matching)

    # When
    place = collected(api, create(api, limit=limit))
    listed = api.http.get(place)

    # Then
    if collectable:
        assert len(listed.json()["data_request_files"]) == 1
    else:
        for path in (place, place.replace("/v2/data_requests", "/v1/bulk_collect")):
            check_flat(
                api.http.get(path), 422, "Request matched too many IDs. Maximum is 10,000 IDs"
            )
        export_id = place.split("/")[-2]
        check_flat(api.http.get(f"{place}/part-00000-{export_id}-h000.json.gz"), 422)


def test_nothing_matched_is_told_when_collecting(api: Service) -> None:
    # Given
    holding(api, 0)

    # When
    place = collected(api, create(api))

    # Then
    check_flat(api.http.get(place), 422, "did not find any matching IDs")


def test_what_will_never_have_files_is_told_and_not_polled_for_ever(api: Service) -> None:
    # Given
    canceled, failed, expired = (
        create(api, filters={"title": title}).json()["request_id"]
        for title in ("canceled", "failed", "expired")
    )
    api.engine.cancel("ann", canceled)
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    assert claim.export.id == failed
    api.engine.store.end(
        failed,
        claim.fence,
        State.FAILED,
        error="the source refused",
        keep_record=timedelta(days=60),
    )
    work(api, expired)
    kept = api.http.get(f"/v2/data_requests/{expired}/files")

    # When
    api.clock.advance(timedelta(days=29, hours=23).total_seconds())
    last_day = api.http.get(f"/v2/data_requests/{expired}/files")
    answers = {
        export_id: api.http.get(f"/v2/data_requests/{export_id}/files")
        for export_id in (canceled, failed)
    }
    api.clock.advance(timedelta(hours=2).total_seconds())

    # Then
    assert kept.status_code == last_day.status_code == 200
    check_flat(answers[canceled], 404, "canceled")
    check_flat(answers[failed], 422, "the source refused")
    check_flat(api.http.get(f"/v2/data_requests/{expired}/files"), 404)


def test_nobody_elses_data_request_is_seen_and_no_other_file_is_served(api: Service) -> None:
    # Given
    place = collected(api, create(api))
    (name,) = api.http.get(place).json()["data_request_files"]
    waiting = create(api, filters={}).json()["request_id"]

    # When
    with httpx.Client(base_url=api.http.base_url, headers={"apikey": api.bob}) as bob:
        answers = [
            bob.get(place),
            bob.get(f"{place}/{name}"),
            bob.get(f"/v1/bulk_collect/{waiting}/files"),
        ]
    answers += [
        api.http.get("/v2/data_requests/unknown/files"),
        api.http.get(f"{place}/part-00001-x.json.gz"),
        api.http.get(f"{place}/..%2f{name}"),
        api.http.get(f"/v2/data_requests/{waiting}/files/{name}"),
    ]

    # Then
    for answer in answers:
        check_flat(answer, 404)


def test_an_export_of_another_surface_is_collected_here_as_one_file(api: Service) -> None:
    # Given
    body = {"source": "coresignal", "query": {}, "format": "csv"}
    export_id = api.http.post("/v1/exports", json=body).json()["id"]
    work(api, export_id)

    # When
    (name,) = api.http.get(f"/v2/data_requests/{export_id}/files").json()["data_request_files"]
    answer = api.http.get(f"/v2/data_requests/{export_id}/files/{name}")

    # Then
    assert name.endswith(".csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.text.startswith("_id,title\r\n1,")


def test_a_redirect_leads_to_the_file_store_where_the_file_stands_alone(api: Service) -> None:
    # Given
    alone = collected(api, create(api))
    holding(api, 10_001)
    split = collected(api, create(api, V1), "/v1/bulk_collect")

    # When
    (name,) = api.http.get(alone).json()["data_request_files"]
    redirected = api.http.get(f"{alone}/{name}?redirect=true")
    names = api.http.get(split).json()["data_request_files"]
    streamed = api.http.get(f"{split}/{names[0]}?redirect=true")

    # Then
    assert redirected.status_code == 302
    status, headers, body = api.storage.fetch(redirected.headers["Location"])
    assert (status, headers["content-type"]) == (200, "application/gzip")
    assert body == api.http.get(f"{alone}/{name}").content
    assert streamed.status_code == 200
    check_flat(api.http.get(f"{alone}/{name}?redirect=perhaps"), 422, "redirect")


# -- a file on its way -------------------------------------------------------------------------


@pytest.fixture
def whole(api: Service, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bytes]:
    """The path of a file that begins and ends within its object, and its bytes."""
    monkeypatch.setattr(data_requests, "ROWS_PER_FILE", 200)
    holding(api, 450)
    place = collected(api, create(api, V1), "/v1/bulk_collect")
    name = api.http.get(place).json()["data_request_files"][1]
    return f"{place}/{name}", api.http.get(f"{place}/{name}").content


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=0-999999999", 0, None),
        ("bytes=-999999999", 0, None),
        ("Bytes=5-9", 5, 10),
    ],
)
def test_a_range_is_exactly_those_bytes(
    api: Service, whole: tuple[str, bytes], asked: str, begin: int, end: int | None
) -> None:
    # Given
    path, content = whole

    # When
    answer = api.http.get(path, headers={"Range": asked})

    # Then
    wanted = content[begin:end]
    start = content.index(wanted) if begin else 0
    assert answer.status_code == 206
    assert answer.content == wanted
    assert int(answer.headers["Content-Length"]) == len(wanted)
    stop = start + len(wanted) - 1
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop}/{len(content)}"
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    "asked", ["bytes=9-5", "bytes=0-1,5-9", "bytes=", "bytes=-", "lines=0-1", "bytes=a-b", "0-1"]
)
def test_a_range_that_is_not_understood_gets_the_whole_file(
    api: Service, whole: tuple[str, bytes], asked: str
) -> None:
    # Given
    path, content = whole

    # When
    answer = api.http.get(path, headers={"Range": asked})

    # Then
    assert answer.status_code == 200
    assert answer.content == content


@pytest.mark.parametrize("asked", ["bytes={size}-", "bytes=99999999999-", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused_with_the_size(
    api: Service, whole: tuple[str, bytes], asked: str
) -> None:
    # Given
    path, content = whole

    # When
    answer = api.http.get(path, headers={"Range": asked.format(size=len(content))})

    # Then
    check_flat(answer, 416, str(len(content)))
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_a_download_that_broke_off_goes_on_where_it_stopped_if_the_file_is_the_same(
    api: Service, whole: tuple[str, bytes]
) -> None:
    # Given
    path, content = whole
    tag = api.http.head(path).headers["ETag"]
    sibling = path.replace("part-00001", "part-00000")

    # When
    rest = api.http.get(path, headers={"Range": "bytes=100-", "If-Range": tag})
    changed = api.http.get(path, headers={"Range": "bytes=100-", "If-Range": '"other"'})
    dated = api.http.get(
        path, headers={"Range": "bytes=100-", "If-Range": "Fri, 01 Jan 2027 00:00:00 GMT"}
    )

    # Then
    assert (rest.status_code, content[:100] + rest.content) == (206, content)
    assert (changed.status_code, changed.content) == (200, content)
    assert (dated.status_code, dated.content) == (200, content)
    assert api.http.head(sibling).headers["ETag"] != tag


def test_head_tells_all_of_a_file_but_its_bytes_and_a_known_file_is_not_sent_again(
    api: Service, whole: tuple[str, bytes]
) -> None:
    # Given
    path, content = whole

    # When
    head = api.http.head(path)
    known = api.http.get(path, headers={"If-None-Match": f'"x", W/{head.headers["ETag"]}'})
    unknown = api.http.get(path, headers={"If-None-Match": '"x"'})

    # Then
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["Content-Length"]) == len(content)
    assert head.headers["Content-Type"] == "application/gzip"
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["ETag"] == head.headers["ETag"]
    assert unknown.content == content


class Pieces:
    """A stream of pieces of the store that tells what becomes of it."""

    def __init__(self, count: int, fails: Exception | None = None) -> None:
        self.left = count
        self.closed = threading.Event()
        self._fails = fails

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> bytes:
        if self.left == 0 and self._fails is not None:
            raise self._fails
        if self.left == 0:
            raise StopIteration
        self.left -= 1
        return b"x" * 65_536

    def close(self) -> None:
        self.closed.set()


def streaming(
    api: Service, monkeypatch: pytest.MonkeyPatch, pieces: Pieces, size: int | None = None
) -> str:
    """The path of a file that consists of these pieces."""
    place = collected(api, create(api))
    (name,) = api.http.get(place).json()["data_request_files"]
    real = coresignal._stretches
    whole_size = pieces.left * 65_536 if size is None else size

    def longer(export: Export) -> Any:
        (stretch,), unknown = real(export)
        return [stretch._replace(size=whole_size)], unknown

    monkeypatch.setattr(coresignal, "_stretches", longer)
    monkeypatch.setattr(api.storage, "stream", lambda key, start, end: pieces)
    return f"{place}/{name}"


@pytest.mark.parametrize(
    "fails", [StorageUnavailable("S3 went away"), None], ids=["error", "early-end"]
)
def test_what_breaks_off_in_the_middle_never_looks_whole(
    api: Service, monkeypatch: pytest.MonkeyPatch, fails: Exception | None
) -> None:
    # Given
    pieces = Pieces(3, fails)
    path = streaming(api, monkeypatch, pieces, size=5 * 65_536)

    # When
    with pytest.raises(httpx.RemoteProtocolError):
        api.http.get(path)

    # Then
    assert pieces.closed.wait(5)


def test_a_store_that_does_not_answer_is_told_before_the_first_byte(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    path = streaming(api, monkeypatch, Pieces(1))

    def away(key: str, start: int, end: int) -> Iterator[bytes]:
        raise StorageUnavailable("S3 does not answer")

    monkeypatch.setattr(api.storage, "stream", away)

    # When
    answer = api.http.get(path)

    # Then
    check_flat(answer, 503, "file store")
    assert "Retry-After" in answer.headers


def test_a_caller_who_leaves_gives_the_stores_connection_back(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    pieces = Pieces(10_000)
    path = streaming(api, monkeypatch, pieces)

    # When
    with api.http.stream("GET", path) as answer:
        next(answer.iter_raw())

    # Then
    assert pieces.closed.wait(5)
    assert pieces.left > 9_000


def test_a_caller_who_takes_nothing_is_cut_off_and_costs_no_memory_meanwhile(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.3)
    pieces = Pieces(10_000)
    path = streaming(api, monkeypatch, pieces)

    # When: nothing is read beyond the head of the answer
    with api.http.stream("GET", path):
        cut_off = pieces.closed.wait(10)

    # Then: what was read ahead is what sockets hold
    assert cut_off
    assert pieces.left > 9_000


# -- by ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"3\n1\n4711\n",
        b"3\r\n1\r\n4711\r\n",
        b"\xef\xbb\xbf3\n1\n4711",
        b"3\n1\n4711\n\n\r\n  \n",
        b" 3\n1 \n\t4711\n",
    ],
    ids=["lf", "crlf", "bom", "blank-end", "blanks"],
)
def test_ids_of_a_file_are_collected_in_its_order_and_unknown_ones_are_listed_apart(
    api: Service, content: bytes
) -> None:
    # When
    answer = upload(api, content, data_format="json", webhook_url="")
    place = collected(api, answer)

    # Then
    listed = api.http.get(place).json()
    assert list(listed) == ["data_request_files", "unknown_ids_file"]
    (name,) = listed["data_request_files"]
    lines = gzip.decompress(api.http.get(f"{place}/{name}").content).decode().split("\n")
    assert [json.loads(line)["_id"] for line in lines if line] == ["3", "1"]
    unknown = api.http.get(f"{place}/{listed['unknown_ids_file']}")
    assert unknown.headers["Content-Type"] == "application/gzip"
    assert gzip.decompress(unknown.content) == b"4711\n"


def test_ids_of_which_none_exists_are_told_when_collecting(api: Service) -> None:
    # When
    place = collected(api, upload(api, b"98\n99\n"))
    text = check_flat(api.http.get(place), 422, "did not find any matching IDs")

    # Then
    name = next(word for word in text.split() if word.startswith("unknown-ids")).rstrip(".")
    assert gzip.decompress(api.http.get(f"{place}/{name}").content) == b"98\n99\n"


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"id\n1\n2\n", 400, "line 1 of the list of ids is 'id'"),
        (b"1\n2,3\n", 400, "line 2 of the list of ids is '2,3'"),
        (b"1,2,3", 400, "line 1 of the list of ids is '1,2,3'"),
        (b"1\n\n2\n", 400, "line 2 of the list of ids is ''"),
        (b'"1"\n', 400, "line 1"),
        (b"1\n-2\n", 400, "line 2"),
        (b"1\n1_000\n", 400, "line 2"),
        (b"1\n2.0\n", 400, "line 2"),
        ("1\n٢\n".encode(), 400, "line 2"),
        ("1\n2\n".encode("utf-16"), 400, "line 1"),
        (b"1\r2\r3\r", 400, "line 1"),
        (b"1\n" + b"9" * 19, 400, "line 2"),
        (b"1\n" + b"x" * 5_000_000, 400, "line 2"),
        (b"7\n8\n07\n", 422, "id 7 is listed twice"),
        (b"", 422, "empty"),
        (b"\n\n", 422, "empty"),
        (
            b"\n".join(b"%d" % n for n in range(10_001)),
            400,
            "File contains too many IDs. Maximum is 10,000 IDs",
        ),
    ],
)  # fmt: skip
def test_a_list_of_ids_that_is_not_understood_entirely_is_not_taken_at_all(
    api: Service, content: bytes, status: int, said: str
) -> None:
    # When
    answer = upload(api, content)

    # Then
    text = check_flat(answer, status, said)
    assert len(text) < 300
    assert is_empty(api)


def test_the_older_path_takes_more_ids_than_10000(api: Service) -> None:
    # Given
    content = b"\n".join(b"%d" % n for n in range(10_001))

    # When
    answer = upload(api, content, V1)

    # Then
    assert answer.status_code == 201
    export = api.engine.store.get(answer.json()["request_id"])
    assert export is not None
    assert (export.spec.ids, export.spec.limit) == (10_001, None)


def _form(*parts: tuple[str, bytes], end: bytes = b"--\r\n") -> bytes:
    heads = (f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n' for name, _ in parts)
    return (
        b"".join(
            head.encode() + content + b"\r\n"
            for head, (_, content) in zip(heads, parts, strict=True)
        )
        + b"--x"
        + end
    )


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (_form(("ids_file", b"1\n2\n"))[:-4], 400, "stops before its last boundary"),
        (_form(("ids_file", b"1\n2\n"))[:-20], 400, "stops before its last boundary"),
        (b"", 400, "stops before"),
        (b"1\n2\n", 400, "no multipart"),
        (_form(("ids_file", b"1\n"), ("ids_file", b"2\n")), 422, "ids_file: it is given twice"),
        (_form(("ids", b"1\n")), 422, "known: ids_file, webhook_url, webhook_events, data_format"),
        (_form(("data_format", b"json")), 422, "empty"),
        (_form(("ids_file", b"1\n"), ("data_format", b"csv")), 422, "data_format"),
        (_form(("webhook_url", b"nowhere"), ("ids_file", b"1\n")), 422, "webhook_url"),
        (_form(("webhook_url", b"x" * 5_000), ("ids_file", b"1\n")), 422, "webhook_url"),
        (_form(("ids_file", b"".join(b"%018d\n" % n for n in range(900_000)))), 413, "16777216"),
    ],
    ids=["cut", "cut-in-list", "nothing", "no-form", "twice", "unknown-field", "no-file",
         "format", "webhook", "endless-field", "too-long"],
)  # fmt: skip
def test_a_form_that_is_malformed_or_cut_off_is_refused(
    api: Service, body: bytes, status: int, said: str
) -> None:
    # When
    answer = api.http.post(
        f"{V1}/id_file", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )

    # Then
    check_flat(answer, status, said)
    assert is_empty(api)


def test_a_list_of_ids_in_a_field_without_a_file_name_is_one_too(api: Service) -> None:
    # When
    answer = api.http.post(
        f"{V2}/id_file",
        content=_form(("ids_file", b"1\n2\n")),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )

    # Then
    assert answer.status_code == 201


def test_another_content_type_than_a_form_is_refused_with_what_to_send(api: Service) -> None:
    # When
    answers = [
        api.http.post(f"{V2}/id_file", content=b"1\n2\n", headers={"Content-Type": "text/csv"}),
        api.http.post(f"{V2}/id_file", json={"ids": [1]}),
    ]

    # Then
    for answer in answers:
        check_flat(answer, 415, "multipart/form-data")


IDS: Sequence[tuple[str, Callable[[httpx.Client], httpx.Response]]] = [
    ("json", lambda http: http.post(f"{V2}/ids", json={"ids": [3, 1], "limit": 5})),
    ("json-texts", lambda http: http.post(f"{V2}/ids", json={"ids": ["3", "1"]})),
    ("form", lambda http: http.post(f"{V2}/ids", data={"ids": "3,1", "limit": "5"})),
    ("form-repeated", lambda http: http.post(f"{V2}/ids", data={"ids": ["3", "1"]})),
    ("multipart", lambda http: http.post(f"{V2}/ids", files={"ids": (None, b"[3, 1]")})),
    ("multipart-lines", lambda http: http.post(f"{V2}/ids", files={"ids": (None, b"3\n1\n")})),
    (
        "multipart-repeated",
        lambda http: http.post(f"{V2}/ids", files=[("ids", (None, b"3")), ("ids", (None, b"1"))]),
    ),
]


@pytest.mark.parametrize("way", [way for _, way in IDS], ids=[name for name, _ in IDS])
def test_ids_are_taken_in_every_shape_that_the_vendors_documentation_shows(
    api: Service, way: Callable[[httpx.Client], httpx.Response]
) -> None:
    # When
    place = collected(api, way(api.http))

    # Then
    (name,) = api.http.get(place).json()["data_request_files"]
    lines = gzip.decompress(api.http.get(f"{place}/{name}").content).splitlines()
    assert [json.loads(line)["_id"] for line in lines] == ["3", "1"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"ids": []}, 422, "empty"),
        ({"ids": [1, "x"]}, 422, "ids"),
        ({"ids": [1, True]}, 422, "ids"),
        ({"ids": [1, 2.0]}, 422, "ids"),
        ({"ids": [1, None]}, 422, "ids"),
        ({"ids": [1, -2]}, 422, "ids"),
        ({"ids": [1, 2**63]}, 422, "ids"),
        ({"ids": "1,2"}, 422, "ids"),
        ({"ids": [5, "05"]}, 422, "id 5 is listed twice"),
        ({"ids": [1], "limit": 0}, 422, "limit"),
        (
            {"ids": list(range(10_001))},
            400,
            "File contains too many IDs. Maximum is 10,000 IDs",
        ),
    ],
)
def test_wrong_ids_are_refused(api: Service, body: dict[str, Any], status: int, said: str) -> None:
    # When
    answer = api.http.post(f"{V2}/ids", json=body)

    # Then
    check_flat(answer, status, said)
    assert is_empty(api)


# -- what a key may do -------------------------------------------------------------------------


def test_a_key_whose_plan_lacks_bulk_collection_is_refused(api: Service) -> None:
    # Given
    key = api.keys.create("cid", plan=Plan(key_id=None, features=frozenset({"export"})))
    headers = {"apikey": key}

    with httpx.Client(base_url=api.http.base_url, headers=headers) as cid:
        # When
        answers = [
            cid.post(f"{V2}/filter", json={"filters": {}}),
            cid.post(f"{V1}/id_file", files={"ids_file": b"1\n"}),
        ]

    # Then
    for answer in answers:
        check_flat(answer, 403, "bulk")


def metered(api: Service, credits_left: int) -> httpx.Client:
    """A client whose key may spend so many credits."""
    key = api.keys.create("cid", balance=credits_left)
    found = api.keys.find(key)
    assert found is not None
    assert isinstance(api.engine.store, MemoryStore)
    api.engine.store.accounts.open(found.id, credits_left)
    return httpx.Client(base_url=api.http.base_url, headers={"apikey": key})


def test_too_few_credits_are_told_in_the_vendors_words(api: Service) -> None:
    # Given
    holding(api, 50)

    with metered(api, 10) as cid:
        # When
        answers = [
            cid.post(f"{V2}/filter", json={"filters": {}}),
            cid.post(f"{V1}/filter", json={"filters": {}}),
            cid.post(f"{V2}/ids", json={"ids": list(range(11))}),
        ]
        within = cid.post(f"{V2}/filter", json={"filters": {}, "limit": 10})

    # Then
    for answer in answers:
        assert answer.status_code == 402
        assert answer.json() == {"detail": "Insufficient credits"}
    assert within.status_code == 201


def test_a_metered_key_sets_aside_what_matches_and_not_the_most_that_may(api: Service) -> None:
    # Given
    holding(api, 50)
    with metered(api, 60) as cid:
        # When
        answer = cid.post(f"{V2}/filter", json={"filters": {}})
        again = cid.post(f"{V2}/filter", json={"filters": {}})
        holding(api, 10_001)
        too_many = cid.post(f"{V2}/filter", json={"filters": {"title": "Painter"}})

    # Then
    export = api.engine.store.get(answer.json()["request_id"])
    assert export is not None
    assert (export.spec.reserved, export.spec.limit) == (50, 50)
    check_flat(again, 409)
    check_flat(too_many, 422, "Maximum is 10,000 IDs")


def test_the_surface_says_where_it_is_served(api: Service) -> None:
    # When
    export_id = create(api).json()["request_id"]
    export = api.http.get(f"/v1/exports/{export_id}").json()

    # Then
    assert export["links"]["self"].startswith(PUBLIC_URL)
    assert export["surface"] == "coresignal-v2"

"""Data requests by filters and queries: what is accepted, and how the rest is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest

from exporter.clock import FakeClock
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from tests.integration.api_server import PUBLIC_URL, Service
from tests.integration.coresignal.desk import V1, V2, check_flat, create, is_empty
from tests.integration.coresignal.test_plans import metered

ROOTS = (V1, V2, "/v2/data_requests/job_multi_source", f"/cdapi{V1}", f"/cdapi{V2}")
PENDING = {"message": "Data request is still being processed", "data_request_files": []}


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
        check_flat(cut, 400, "not valid JSON")
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
    other = HirebaseConfig(base_url="http://127.0.0.1:9")
    api.engine.sources.opened["coresignal"] = HirebaseSource(other, FakeClock())
    query = {"query": {"match": {"title": "welder"}}}
    for body in ({"es_dsl_query": query}, query):
        # When
        answer = api.http.post(f"{V2}/es_dsl", json=body)

        # Then
        check_flat(answer, 422, "does not support Elasticsearch")
    assert is_empty(api)


@pytest.mark.parametrize("root", ROOTS)
def test_an_unknown_filter_is_refused_with_the_known_filters(api: Service, root: str) -> None:
    # Given: the real source; checking a search sends no request
    del api.engine.sources.opened["coresignal"]

    # When
    wrong = create(api, root, filters={"colour": "red"})

    # Then
    said = check_flat(wrong, 422, "body.filters.colour: unknown filter; known: created_at_gte, ")
    assert said.endswith(", country, industry")
    assert is_empty(api)


def test_an_unknown_filter_is_refused_alike_wherever_filters_are_checked(api: Service) -> None:
    # Given: with an Idempotency-Key, the estimate of a metered key and the creation check them
    del api.engine.sources.opened["coresignal"]
    headers = {"Idempotency-Key": "first"}
    body = {"filters": {"colour": "red"}}

    # When
    with metered(api, 10) as cid:
        estimated = cid.post(f"{V2}/filter", json=body, headers=headers)
    created = api.http.post(f"{V2}/filter", json=body, headers=headers)
    native = api.http.post(
        "/v1/exports", json={"source": "coresignal", "query": body["filters"], "format": "csv"}
    )

    # Then
    known = "unknown filter; known: created_at_gte, "
    for answer in (estimated, created):
        check_flat(answer, 422, f"body.filters.colour: {known}")
    (problem,) = native.json()["errors"]
    assert native.status_code == 422
    assert problem["pointer"] == "/query/colour"
    assert problem["detail"].startswith(known)
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
    check_flat(both, 422, "either es_dsl_query or query")
    check_flat(neither, 422, "either es_dsl_query or query")
    check_flat(long, 422, "15000")


def test_the_surface_says_where_it_is_served(api: Service) -> None:
    # When
    export_id = create(api).json()["request_id"]
    export = api.http.get(f"/v1/exports/{export_id}").json()

    # Then
    assert export["links"]["self"].startswith(PUBLIC_URL)
    assert export["surface"] == "coresignal-v2"

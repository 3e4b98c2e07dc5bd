"""Nothing that a caller sends is ignored in silence, on any operation of the API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from exporter.api.events import streams
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.hirebase import HirebaseConfig
from tests.attack import operations as described
from tests.attack.operations import Operation
from tests.integration.api_server import CREATED, Service

UNKNOWN = "zz_unknown"
IDS = dict.fromkeys(
    ("export_id", "task_id", "request_id"), "3e208353-0000-4000-8000-00000000000a"
) | {"endpoint_id": "we_0a", "delivery_id": "msg_0a.we_0a", "name": "board"}


@pytest.fixture(autouse=True)
def collectable(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the Coresignal contract a source, of which only the words are asked."""
    monkeypatch.setattr(streams, "MAX_LIFE_SECONDS", 0.05)
    source = CoresignalConfig(base_url="http://127.0.0.1:9")
    cast("dict[str, Any]", api.engine.config.sources)["coresignal"] = source


def operations(api: Service) -> list[Operation]:
    document = api.http.get("/openapi.json").json()
    return described.read(document, "https://hooks.example.com/")


def is_native(operation: Operation) -> bool:
    foreign = ("/v1/professional_network/", "/v1/bulk_collect/")
    return operation.path.startswith("/v1/") and not operation.path.startswith(foreign)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects within a body, the body included."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from objects(inner)


def test_an_unknown_query_parameter_is_an_error_or_is_named_on_every_operation(
    api: Service,
) -> None:
    for operation in operations(api):
        # When
        headers, body = operation.body()
        answer = api.http.request(
            operation.method,
            operation.at(IDS),
            params={UNKNOWN: "x"},
            headers=dict(headers),
            content=body,
        )

        # Then
        told = answer.headers.get("X-Ignored-Parameters")
        if is_native(operation):
            assert answer.status_code == 422, operation
            (entry,) = answer.json()["errors"]
            assert entry["parameter"] == UNKNOWN, operation
        elif operation.path == "/api/export":
            assert answer.status_code == 400
            assert UNKNOWN in answer.text
        else:
            assert told == UNKNOWN, operation


def test_a_repeated_query_parameter_is_an_error_or_is_named(api: Service) -> None:
    # When
    ours = api.http.get("/v1/exports?limit=1&limit=2")
    foreign = api.http.get("/v2/tasks?limit=1&limit=2")

    # Then
    assert ours.status_code == 422
    assert ours.json()["errors"][0]["parameter"] == "limit"
    assert foreign.status_code == 200
    assert foreign.headers["X-Ignored-Parameters"] == "limit"


def test_all_wrong_query_parameters_are_named_at_once_with_the_known_ones(api: Service) -> None:
    # When
    answer = api.http.get("/v1/exports?limt=5&limit=x&stat=failed")

    # Then
    wrong = {entry["parameter"]: entry["detail"] for entry in answer.json()["errors"]}
    assert wrong.keys() == {"limt", "limit", "stat"}
    assert "did you mean limit?" in wrong["limt"]
    assert "known: limit, cursor" in wrong["stat"]


def test_thousands_of_unknown_parameters_get_a_short_answer(api: Service) -> None:
    # Given
    query = "&".join(f"name{number}=x" for number in range(5_000))

    # When
    ours, foreign = api.http.get(f"/v1/exports?{query}"), api.http.get(f"/v2/tasks?{query}")

    # Then
    assert ours.status_code == 422
    assert len(ours.json()["errors"]) == 100
    assert len(foreign.headers["X-Ignored-Parameters"]) < 2_500


def test_a_name_of_a_parameter_cannot_add_a_header(api: Service) -> None:
    # When
    answer = api.http.get("/v2/tasks?a%0D%0Ax-evil:%201=2&%F0%9F%A6%8A=1")

    # Then
    assert answer.headers["X-Ignored-Parameters"] == "a%0D%0Ax-evil%3A%201, %F0%9F%A6%8A"
    assert "x-evil" not in answer.headers


def test_an_unknown_field_is_an_error_that_names_it_in_every_body(api: Service) -> None:
    for operation in operations(api):
        for place in range(len(list(objects(operation.example)))):
            # Given
            example = json.loads(json.dumps(operation.example))
            list(objects(example))[place][UNKNOWN] = "x"

            # When
            headers, body = operation.body(example)
            answer = api.http.request(
                operation.method, operation.at(IDS), headers=dict(headers), content=body
            )

            # Then
            if "es_dsl" in operation.path:
                continue  # an Elasticsearch query is checked by the upstream
            assert 400 <= answer.status_code < 500, (operation, answer.text)
            assert UNKNOWN in answer.text, (operation, answer.text)


def test_a_body_of_an_operation_without_one_is_an_error_or_is_named(api: Service) -> None:
    for operation in operations(api):
        if operation.media_type is not None:
            continue
        # When
        sent, empty = (
            api.http.request(
                operation.method, operation.at(IDS), content=body, headers={"X-API-Key": api.bob}
            )
            for body in (b'{"reason": "late"}', b"{}")
        )

        # Then
        if is_native(operation):
            assert sent.status_code == 422, operation
            assert "takes no body" in sent.json()["detail"]
            assert empty.status_code != 422, operation
        elif operation.path != "/api/export":
            assert sent.headers["X-Ignored-Parameters"] == "body", operation


def test_a_documented_header_without_effect_is_named_on_every_operation(api: Service) -> None:
    # Given
    documented = {name for one in operations(api) for name in one.named("header")}
    assert "Idempotency-Key" in documented
    for operation in operations(api):
        # When
        headers, body = operation.body()
        answer = api.http.request(
            operation.method,
            operation.at(IDS),
            headers={**dict(headers), **dict.fromkeys(documented, "k1")},
            content=body,
        )

        # Then
        named = answer.headers.get("X-Ignored-Parameters", "").lower().split(", ")
        wanted = documented - set(operation.named("header"))
        assert set(named) == {name.lower() for name in wanted}, operation


def test_a_head_is_answered_like_a_get_without_its_body_on_every_path(api: Service) -> None:
    # Given
    created = api.http.post("/v1/exports", json={"source": "board", "query": {}, "format": "csv"})
    ids: Mapping[str, str] = {**IDS, "export_id": created.json()["id"]}
    varying = {"date", "x-request-id", "x-ratelimit-remaining", "content-length"}
    paths = {one.at(ids) for one in operations(api) if one.method == "GET"}
    for path in sorted({*paths, "/metrics", "/docs", "/openapi.json", "/nothing"}):
        # When
        get, head = api.http.get(path), api.http.head(path)

        # Then
        assert head.status_code == get.status_code, path
        assert head.content == b""
        is_stream = get.headers["content-type"].startswith("text/event-stream")
        framing = {"content-length", "transfer-encoding"} if is_stream else set()
        assert head.headers.keys() - framing == get.headers.keys() - framing, path
        for name in head.headers.keys() - varying - framing:
            assert head.headers[name] == get.headers[name], (path, name)
        if path not in ("/metrics", "/v2/tasks") and not is_stream:
            assert abs(int(head.headers["content-length"]) - len(get.content)) < 5, path


def test_a_head_on_a_path_without_get_is_refused(api: Service) -> None:
    # When
    answer = api.http.head("/v1/exports/estimate")

    # Then
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


def test_every_path_with_an_id_takes_it_in_capitals(api: Service) -> None:
    # Given
    body = {"source": "board", "query": {}, "format": "csv"}
    url = "https://93.184.215.14/hook"
    endpoint = api.http.post("/v1/webhook-endpoints", json={"url": url}).json()["id"]
    for operation in operations(api):
        if not operation.own_ids or operation.own_ids == ["delivery_id"]:
            continue
        export = api.http.post("/v1/exports", json=body).json()["id"]
        ids = dict.fromkeys(operation.own_ids, export) | {"endpoint_id": endpoint}

        # When
        upper = {name: one.upper() for name, one in ids.items()}
        headers, content = operation.body()
        answer = api.http.request(
            operation.method, operation.at(upper), headers=dict(headers), content=content
        )

        # Then
        assert "no export of yours" not in answer.text, operation
        assert "no webhook endpoint of yours" not in answer.text, operation
        assert "no data request of yours" not in answer.text, operation
        if operation.path == "/v1/webhook-endpoints/{endpoint_id}" and operation.method == "DELETE":
            endpoint = api.http.post("/v1/webhook-endpoints", json={"url": url}).json()["id"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/jobs/neural-search"),
        ("POST", "/v2/jobs/vsearch"),
        ("POST", "/v2/jobs/insights"),
        ("POST", "/v2/jobs/salary-benchmark"),
        ("PUT", "/v2/jobs/contacts"),
        ("POST", "/v2/tasks/recent"),
        ("POST", "/v1/exports/bulk"),
        ("PATCH", "/v1/webhook-endpoints/all"),
        ("POST", "/v1/webhook-deliveries/recover"),
    ],
)
def test_a_path_that_does_not_exist_is_404_although_an_id_could_be_in_its_place(
    api: Service, method: str, path: str
) -> None:
    # When
    answer = api.http.request(method, path, json={})

    # Then
    assert answer.status_code == 404, answer.text
    assert path in answer.text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v2/jobs/search", "POST"),
        ("/v2/jobs/export", "POST"),
        ("/v2/jobs/estimate", "POST"),
        ("/v1/exports/estimate", "POST"),
    ],
)
def test_a_get_of_an_operation_is_405_and_not_looked_up_as_an_id(
    api: Service, path: str, allowed: str
) -> None:
    # When
    answer = api.http.get(path)

    # Then
    assert answer.status_code == 405, answer.text
    assert answer.headers["Allow"] == allowed


MISSPELT = ["_id", "job_titel", "salary_rnge.min"]


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_column_that_the_source_does_not_have_is_an_error_with_the_similar_ones(
    api: Service,
    format: str,  # noqa: A002
) -> None:
    # Given
    path, body = CREATED["native"]

    # When
    answer = api.http.post(path, json={**body, "format": format, "columns": MISSPELT})

    # Then
    assert answer.status_code == 422
    first, second = answer.json()["errors"]
    assert (first["pointer"], second["pointer"]) == ("/columns/1", "/columns/2")
    assert "unknown column 'job_titel': did you mean 'job_title'" in first["detail"]
    assert "did you mean 'salary_range' or" in second["detail"]
    assert "has _id, company_name," in second["detail"]


def test_columns_of_the_vendor_and_of_the_settings_are_accepted(api: Service) -> None:
    # Given: the settings choose some columns and name one that the vendor does not document
    own = HirebaseConfig(base_url="http://127.0.0.1:9", columns=("_id", "new_field"))
    cast("dict[str, Any]", api.engine.config.sources)["own"] = own
    columns = ["_id", "new_field", "description", "company_data"]

    # When
    answer = api.http.post(
        "/v1/exports", json={"source": "own", "query": {}, "format": "csv", "columns": columns}
    )

    # Then
    assert answer.status_code == 202, answer.text
    assert answer.json()["columns"] == columns


def test_many_unknown_columns_get_a_short_answer(api: Service) -> None:
    # Given
    columns = [f"job_title_{number}" for number in range(1_000)]

    # When
    answer = api.http.post("/v1/exports", json={**CREATED["native"][1], "columns": columns})

    # Then
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert len(answer.content) < 30_000

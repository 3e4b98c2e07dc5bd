"""All wrong fields of a request are named at once, in the error shape of the surface."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest

from exporter.local import sample
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.sql.config import SqlConfig
from tests.integration.api_server import Service

NATIVE_FIELDS: dict[str, Any] = {
    "source": "board",
    "query": {"colour": "red", "yoe": "two"},
    "format": "xml",
    "columns": ["_id", "job_titel"],
    "limit": 0,
    "compression": "rar",
    "priority": 17,
    "file_name": "a/b.csv",
    "webhook_url": "ftp://x",
    "webhook_events": ["export.gone"],
}
NAMED = [
    *("/webhook_url", "/webhook_events", "/format", "/compression", "/priority", "/limit"),
    *("/columns/1", "/file_name", "/query/colour", "/query/yoe"),
]


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return [entry["pointer"] for entry in answer.json()["errors"]]


def places(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 422, answer.text
    return ["/".join(map(str, entry["loc"])) for entry in answer.json()["detail"]]


def test_all_wrong_fields_of_an_export_are_named_at_once(api: Service) -> None:
    # When
    answer = api.http.post("/v1/exports", json=NATIVE_FIELDS)

    # Then
    assert sorted(pointers(answer)) == sorted(NAMED)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"nope": 1}, "/nope"),
        ({"csv_safe": "yes"}, "/csv_safe"),
        ({"format": 5}, "/format"),
        ({"priority": "5"}, "/priority"),
        ({"webhook_events": "all"}, "/webhook_events"),
    ],
)
def test_a_field_of_a_wrong_type_does_not_hide_the_others(
    api: Service, wrong: dict[str, Any], expected: str
) -> None:
    # When
    answer = api.http.post("/v1/exports", json={**NATIVE_FIELDS, **wrong})

    # Then
    found = pointers(answer)
    hidden = {"/webhook_url", "/webhook_events"} if expected == "/webhook_events" else set()
    assert sorted(found) == sorted({*NAMED, expected} - hidden | ({expected} & hidden))


@pytest.mark.parametrize("missing", ["source", "query", "format"])
def test_a_missing_field_does_not_hide_the_others(api: Service, missing: str) -> None:
    # Given
    fields = {name: value for name, value in NATIVE_FIELDS.items() if name != missing}

    # When
    found = pointers(api.http.post("/v1/exports", json=fields))

    # Then
    assert found[0] == f"/{missing}"
    assert {"/priority", "/limit", "/webhook_url", "/compression"} <= set(found)
    assert ("/query/colour" in found) is (missing == "format")
    assert len(found) == len(set(found))


def test_all_wrong_fields_of_a_task_are_named_at_once(api: Service) -> None:
    # Given
    fields = {name: NATIVE_FIELDS[name] for name in ("columns", "priority", "webhook_url")}
    body = {**fields, "search": {"colour": "red", "yoe": "two"}, "format": "xml", "nope": 1}

    # When
    answer = api.http.post("/v2/jobs/export", json=body)

    # Then
    assert set(places(answer)) == {
        "body/nope",
        "body/webhook_url",
        "body/format",
        "body/priority",
        "body/columns/1",
        "body/search/colour",
        "body/search/yoe",
    }


@pytest.mark.parametrize("search", [{"limit": 500, "page": 0}, {"limit": 500, "colour": "red"}])
def test_all_wrong_fields_of_a_search_are_named_at_once(
    api: Service, search: dict[str, Any]
) -> None:
    # When
    answer = api.http.post("/v2/jobs/search", json=search)

    # Then
    other = next(name for name in search if name != "limit")
    assert set(places(answer)) == {"body/limit", f"body/{other}"}


def test_all_wrong_fields_of_an_export_of_expired_postings_are_named_at_once(
    api: Service,
) -> None:
    # Given
    body = {"since": "soon", "notify": True, "limit": 0, "webhook_url": "ftp://x", "nope": 1}

    # When
    answer = api.http.post("/v2/jobs/expired-jobs/export", json=body)
    listed = api.http.get("/v2/jobs/expired-jobs?since=soon&page=0&limit=500")

    # Then
    assert set(places(answer)) == {f"body/{name}" for name in body}
    assert set(places(listed)) == {"query/since", "query/page", "query/limit"}


def test_all_wrong_fields_of_an_estimate_are_named_at_once(api: Service) -> None:
    # When
    answer = api.http.post(
        "/v1/exports/estimate",
        json={"source": "board", "query": {"colour": 1}, "limit": 0, "nope": 1},
    )

    # Then
    assert set(pointers(answer)) == {"/query/colour", "/limit", "/nope"}


def test_all_wrong_fields_of_a_webhook_endpoint_are_named_at_once(api: Service) -> None:
    # When
    body = {"url": "ftp://x", "events": ["export.gone"], "ordered": "yes", "nope": 1}
    answer = api.http.post("/v1/webhook-endpoints", json=body)

    # Then
    assert set(pointers(answer)) == {f"/{name}" for name in body}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("filter", {"filters": {"colour": 1, "deleted": "no"}, "limit": 0}),
        ("filter", {"filters": {"colour": 1, "deleted": "no"}}),
        ("es_dsl", {"es_dsl_query": {}, "limit": 0}),
        ("ids", {"ids": [1, "x"], "limit": 0}),
    ],
)
def test_all_wrong_fields_of_a_data_request_are_named_in_its_text(
    api: Service, path: str, body: dict[str, Any]
) -> None:
    # Given
    source = CoresignalConfig(base_url="http://127.0.0.1:9")
    cast("dict[str, Any]", api.engine.config.sources)["coresignal"] = source
    wrong = {"webhook_url": "ftp://x", "webhook_events": ["export.gone"]}

    # When
    answer = api.http.post(f"/v2/data_requests/job_base/{path}", json={**body, **wrong})

    # Then
    assert answer.status_code == 422
    text = answer.json()["detail"]
    named = {"webhook_url", "webhook_events", *body.keys() - {"filters", "es_dsl_query"}}
    named |= {"filters.colour", "filters.deleted"} if "filters" in body else set()
    for name in named:
        assert f"body.{name}: " in text, (name, text)


def test_all_wrong_parameters_of_a_pipeline_export_are_named_at_once(
    api: Service, tmp_path: Any
) -> None:
    # Given
    sample.create(tmp_path / "jobs.sqlite", "ann")
    table = SqlConfig(url=f"sqlite:///{tmp_path}/jobs.sqlite")
    cast("dict[str, Any]", api.engine.config.sources)["pipeline"] = table
    query = "format=xml&csv_safe=maybe&from=soon&status=lost&nope=1&webhook_url=ftp://x"

    for prefer in ("", "respond-async"):
        # When
        answer = api.http.get(f"/api/export?{query}", headers={"Prefer": prefer})

        # Then
        assert answer.status_code == 400
        named = {entry["field"].partition(".")[0] for entry in answer.json()["errors"]}
        assert named == {"format", "csv_safe", "from", "status", "nope", "webhook_url"}
    api.engine.source("pipeline").close()


def test_an_answer_lists_a_bounded_number_of_wrong_fields(api: Service) -> None:
    # Given
    many = {f"f{number}": 1 for number in range(150)}

    # When
    ours = api.http.post("/v1/exports", json={**NATIVE_FIELDS, "query": many})
    text = api.http.post("/v2/data_requests/job_base/filter", json={"filters": {}, **many})

    # Then
    assert len(pointers(ours)) == 100
    assert text.json()["detail"].endswith("; and 130 more")

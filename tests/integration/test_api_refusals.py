"""What the API refuses, in which shape, and that nothing is left behind by it."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

import httpx
import pytest

from exporter.api.bodies import MAX_BODY_BYTES
from tests.integration.api_server import (
    CREATED,
    POLLED,
    Service,
    captured_logs,
)

SURFACES = ("hirebase", "native")
JSON = {"Content-Type": "application/json"}


def check_shape(surface: str, answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error's body, after checking that it is of its surface's shape."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    if surface == "native":
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert body["status"] == status
        assert body["request_id"] == answer.headers["X-Request-Id"]
        assert {"type", "title", "detail", "code"} <= set(body)
    else:
        assert answer.headers["Content-Type"] == "application/json"
        assert list(body) == ["detail"]
    return body


def is_empty(api: Service) -> bool:
    """Whether neither user has any export."""
    store = api.engine.store
    return not any(store.list(user, limit=1).exports for user in ("ann", "bob"))


class Bad(NamedTuple):
    """One thing wrong with a body: how to break a right one, and the field that is named."""

    case: str
    changes: dict[str, Any]
    field: tuple[str | int, ...]
    """Below the body, in the vendor's words."""
    only: tuple[str, ...] = SURFACES


ABSENT = object()
BAD = [
    Bad("no filters at all", {"search": ABSENT}, ("search",)),
    Bad("filters are a list", {"search": []}, ("search",)),
    Bad("filters are null", {"search": None}, ("search",)),
    Bad("unknown filter", {"search": {"colour": "red"}}, ("search", "colour")),
    Bad("filter of a wrong type", {"search": {"yoe": "two"}}, ("search", "yoe")),
    Bad("range upside down", {"search": {"yoe": {"min": 9, "max": 1}}}, ("search", "yoe")),
    Bad("impossible day", {"search": {"date_posted": "2026-02-30"}}, ("search", "date_posted")),
    Bad("zero records", {"search": {"limit": 0}}, ("search", "limit")),
    Bad("half a record", {"search": {"limit": 1.5}}, ("search", "limit")),
    Bad("two spellings", {"search": {"job_type": "a", "job_types": "b"}}, ("search",)),
    Bad("no format", {"format": ABSENT}, ("format",)),
    Bad("unknown format", {"format": "xlsx"}, ("format",)),
    Bad("format is a number", {"format": 5}, ("format",)),
    Bad("format in capitals", {"format": "CSV"}, ("format",)),
    Bad("endless format", {"format": "x" * 101}, ("format",)),
    Bad("priority too high", {"priority": 10}, ("priority",)),
    Bad("priority below 0", {"priority": -1}, ("priority",)),
    Bad("priority is a text", {"priority": "5"}, ("priority",)),
    Bad("priority is a flag", {"priority": True}, ("priority",)),
    Bad("priority beyond 64 bits", {"priority": 2**70}, ("priority",)),
    Bad("no columns", {"columns": []}, ("columns",)),
    Bad("columns are one text", {"columns": "_id"}, ("columns",)),
    Bad("nameless column", {"columns": ["_id", ""]}, ("columns", 1)),
    Bad("column is a number", {"columns": ["_id", 7]}, ("columns", 1)),
    Bad("column twice", {"columns": ["_id", "_id"]}, ("columns", 1)),
    Bad("guard is a text", {"csv_safe": "yes"}, ("csv_safe",)),
    Bad("unknown field", {"serach": {}}, ("serach",)),
    Bad("field with a slash", {"a/b~c": 1}, ("a/b~c",)),
    Bad("field of the other surface", {"source": "board"}, ("source",), ("hirebase",)),
    Bad("zero limit", {"limit": 0}, ("limit",), ("native",)),
    Bad("no source", {"source": ABSENT}, ("source",), ("native",)),
    Bad("unknown source", {"source": "moon"}, ("source",), ("native",)),
]


@pytest.mark.parametrize(
    ("surface", "bad"),
    [
        pytest.param(surface, bad, id=f"{surface}-{bad.case}".replace(" ", "-"))
        for bad in BAD
        for surface in bad.only
    ],
)
def test_a_wrong_field_is_named_in_the_surfaces_own_shape_and_nothing_is_recorded(
    api: Service, surface: str, bad: Bad
) -> None:
    # Given
    path, body = CREATED[surface]
    renamed = {"search": "query"} if surface == "native" else {}
    asked = {**body, **{renamed.get(name, name): value for name, value in bad.changes.items()}}
    asked = {name: value for name, value in asked.items() if value is not ABSENT}

    # When
    answer = api.http.post(path, json=asked)

    # Then
    error = check_shape(surface, answer, 422)
    place = [renamed.get(str(bad.field[0]), bad.field[0]), *bad.field[1:]]
    if surface == "hirebase":
        assert all(set(entry) == {"loc", "msg", "type"} for entry in error["detail"])
        named = [entry["loc"][: len(place) + 1] for entry in error["detail"]]
        assert ["body", *place] in named
    else:
        pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in place)
        assert error["code"] == "invalid_request"
        assert any(entry["pointer"].startswith(pointer) for entry in error["errors"])
        assert all(entry["detail"] and entry["code"] for entry in error["errors"])
    assert is_empty(api)


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000], ids=["cut", "deep"])
@pytest.mark.parametrize(("surface", "status"), [("hirebase", 422), ("native", 400)], ids=SURFACES)
def test_a_body_that_is_no_json_is_refused(
    api: Service, surface: str, status: int, text: bytes
) -> None:
    # When
    answer = api.http.post(CREATED[surface][0], content=text, headers=JSON)

    # Then
    error = check_shape(surface, answer, status)
    if surface == "hirebase":
        (entry,) = error["detail"]
        assert entry["loc"][0] == "body"
        assert entry["type"] == "json_invalid"
    else:
        assert error["code"] == "json_invalid"
    assert is_empty(api)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("text", [b"[]", b"null", b'"csv"', b"5"])
def test_json_that_is_no_object_is_refused(api: Service, surface: str, text: bytes) -> None:
    # When
    answer = api.http.post(CREATED[surface][0], content=text, headers=JSON)

    # Then
    error = check_shape(surface, answer, 422)
    assert "object" in json.dumps(error)
    assert is_empty(api)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_body_without_a_content_type_is_read_as_json(api: Service, surface: str) -> None:
    # Given
    path, body = CREATED[surface]

    # When
    answer = api.http.post(path, content=json.dumps(body))

    # Then
    assert answer.status_code == 202


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_a_body_over_a_mebibyte_is_refused(api: Service, surface: str, announced: bool) -> None:
    # Given
    path, body = CREATED[surface]
    text = json.dumps(body).encode().ljust(MAX_BODY_BYTES + 1)
    fits = text[:MAX_BODY_BYTES]

    # When
    refused = api.http.post(
        path, content=text if announced else iter([text[:900_000], text[900_000:]]), headers=JSON
    )

    # Then
    error = check_shape(surface, refused, 413)
    assert str(MAX_BODY_BYTES) in error["detail"]
    assert is_empty(api)
    assert api.http.post(path, content=fits, headers=JSON).status_code == 202


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=-5", "limit"),
        ("limit=many", "limit"),
        ("cursor=garbage", "cursor"),
        ("cursor=" + "x" * 5_000, "cursor"),
    ],
)
def test_a_wrong_page_of_a_list_is_refused_naming_the_parameter(
    api: Service, surface: str, query: str, field: str
) -> None:
    # When
    answer = api.http.get(f"{POLLED[surface]}?{query}")

    # Then
    error = check_shape(surface, answer, 422)
    if surface == "hirebase":
        assert error["detail"][0]["loc"] == ["query", field]
    else:
        assert error["errors"][0]["parameter"] == field


@pytest.mark.parametrize(
    ("surface", "path"), [("hirebase", "/v2/nothing"), ("native", "/v1/nothing"), ("hirebase", "/")]
)
def test_an_unknown_path_is_404_in_the_shape_of_its_prefix(
    api: Service, surface: str, path: str
) -> None:
    # When
    answer = api.http.get(path)

    # Then
    error = check_shape(surface, answer, 404)
    assert path in error["detail"]


@pytest.mark.parametrize(
    ("surface", "method", "path", "allowed"),
    [
        ("hirebase", "PUT", "/v2/jobs/export", "POST"),
        ("hirebase", "DELETE", "/v2/tasks", "GET, HEAD"),
        ("native", "DELETE", "/v1/exports", "GET, HEAD, POST"),
        ("native", "PATCH", "/v1/exports/id-1", "DELETE, GET, HEAD"),
        ("native", "GET", "/v1/exports/some-id/cancel", "POST"),
    ],
)
def test_a_wrong_method_is_405_and_learns_all_that_are_right(
    api: Service, surface: str, method: str, path: str, allowed: str
) -> None:
    # When
    answer = api.http.request(method, path)

    # Then
    check_shape(surface, answer, 405)
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("surface", SURFACES)
def test_a_failure_of_ours_is_500_that_tells_the_caller_nothing_and_the_log_all(
    api: Service, surface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def broken(export_id: str) -> None:
        raise ZeroDivisionError("the secret of the house")

    monkeypatch.setattr(api.engine.store, "show", broken)

    # When
    with captured_logs() as lines:
        answer = api.http.get(f"{POLLED[surface]}/any", headers={"X-Request-Id": "trace-1"})

    # Then
    check_shape(surface, answer, 500)
    assert "secret" not in answer.text
    assert answer.headers["X-Request-Id"] == "trace-1"
    (line,) = (entry for entry in lines if entry["event"] == "api.unexpected")
    assert line["request_id"] == "trace-1"
    assert "the secret of the house" in line["traceback"]
    assert api.ann not in str(lines)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("trace-1:a.b/c=", True), ("x" * 129, False), ("two words", False), ("<script>", False)],
)
def test_a_request_id_is_kept_if_it_is_a_plain_token_and_replaced_otherwise(
    api: Service, sent: str, kept: bool
) -> None:
    # When
    answers = [
        api.http.get(path, headers={"X-Request-Id": sent}).headers["X-Request-Id"]
        for path in ("/v2/tasks", "/v1/nothing", "/health/live")
    ]

    # Then
    assert [answer == sent for answer in answers] == [kept] * 3
    assert all(answers)


def test_a_caller_who_leaves_in_the_middle_of_a_body_leaves_nothing_behind(api: Service) -> None:
    # Given
    host, port = api.http.base_url.host, api.http.base_url.port
    head = (
        f"POST /v2/jobs/export HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {api.ann}\r\n"
        "Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    )

    # When
    with captured_logs() as lines, socket.create_connection((host, port or 0)) as connection:
        connection.sendall(head.encode() + b'{"search": {}, "format": "csv"}')
        connection.close()
        # The next answer comes from the same loop, after it has seen the one who left.
        alive = api.http.get("/v2/tasks")

    # Then
    assert alive.json()["tasks"] == []
    assert is_empty(api)
    assert "api.unexpected" not in [line["event"] for line in lines]

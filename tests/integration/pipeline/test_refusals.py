"""What the pipeline contract refuses, and in which words."""

from __future__ import annotations

import socket
import time
from typing import Any

import httpx
import pytest

from tests.integration.api_server import captured_logs
from tests.integration.pipeline.desk import PATH, Make, Service, flat


@pytest.mark.parametrize(
    ("params", "field", "value", "said"),
    [
        ({"format": "xlsx"}, "format", "xlsx", "give json or csv"),
        ({"format": ""}, "format", "", "give json or csv"),
        ({"format": ["csv", "json"]}, "format", "json", "more than once"),
        ({"status": "hired"}, "status", "hired", "known: saved, applied"),
        ({"source": "indeed"}, "source", "indeed", "known: brightermonday"),
        ({"from": "soon"}, "from", "soon", "2026-03-01T12:00:00Z"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "to", "2026-03-01", "not later"),
        ({"stauts": "saved"}, "stauts", "saved", "unknown parameter; known: format, from, to,"),
    ],
)
@pytest.mark.parametrize("prefer", [{}, {"Prefer": "respond-async"}])
def test_a_wrong_parameter_is_a_400_that_names_it(
    api: Service,
    prefer: dict[str, str],
    params: dict[str, Any],
    field: str,
    value: str,
    said: str,
) -> None:
    # When
    answer = api.http.get(PATH, params=params, headers=prefer)

    # Then
    assert answer.status_code == 400
    body = flat(answer)
    assert body["code"] == "VALIDATION_ERROR"
    (entry,) = body["errors"]
    assert (entry["field"], entry["value"]) == (field, value)
    assert said in entry["message"]
    assert said in body["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer exp_wrong"}])
def test_nobody_gets_jobs_without_a_key(api: Service, headers: dict[str, str]) -> None:
    # When
    answer = httpx.get(api.http.base_url.join(PATH), headers=headers)

    # Then
    assert answer.status_code == 401
    assert flat(answer)["code"] == "UNAUTHORIZED"


def test_the_usual_refusals_are_flat_as_well(api: Service) -> None:
    # Given
    reader = api.keys.create("ann", scopes=("read",))
    writer = api.keys.create("ann", scopes=("write",))

    # When
    wrong_method = api.http.post(PATH)
    nowhere = api.http.get("/api/exports")
    read_only = api.http.get(
        PATH, headers={"Authorization": f"Bearer {reader}", "Prefer": "respond-async"}
    )
    write_only = api.http.get(PATH, headers={"Authorization": f"Bearer {writer}"})

    # Then
    assert (wrong_method.status_code, flat(wrong_method)["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert (nowhere.status_code, flat(nowhere)["code"]) == (404, "NOT_FOUND")
    assert (read_only.status_code, flat(read_only)["code"]) == (403, "FORBIDDEN")
    assert (write_only.status_code, flat(write_only)["code"]) == (403, "FORBIDDEN")


def test_a_plan_without_the_feature_is_a_403(api: Service) -> None:
    # Given
    (key,) = api.keys.list()
    api.keys.set(key.id, features=["export"])

    # When
    answer = api.http.get(PATH)

    # Then
    assert (answer.status_code, flat(answer)["code"]) == (403, "NOT_IN_PLAN")


def test_the_eleventh_export_within_an_hour_is_refused_with_when_the_next_may_come(
    make: Make,
) -> None:
    # Given
    api = make("10/h")
    before = time.time()

    # When: a request that is refused counts, too
    answers = [api.http.get(PATH, params={"format": "csv"}) for _ in range(9)]
    answers.append(api.http.get(PATH, params={"format": "pdf"}))
    refused = api.http.get(PATH)
    other = api.http.get(PATH, headers={"Authorization": f"Bearer {api.keys.create('bob')}"})

    # Then
    assert [answer.status_code for answer in answers] == [200] * 9 + [400]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == [
        str(left) for left in range(9, -1, -1)
    ]
    for answer in (*answers, refused, other):
        assert answer.headers["X-RateLimit-Limit"] == "10"
        resets = int(answer.headers["X-RateLimit-Reset"]) / 1000
        assert before + 3500 < resets < time.time() + 3700
    assert refused.status_code == 429
    body = flat(refused)
    assert body["code"] == "RATE_LIMIT_EXCEEDED"
    assert set(body["details"]) == {"retryAfter", "limit", "remaining", "resetAt"}
    assert (body["details"]["limit"], body["details"]["remaining"]) == (10, 0)
    assert 3500 < body["details"]["retryAfter"] <= 3600
    assert refused.headers["Retry-After"] == str(body["details"]["retryAfter"])
    assert other.status_code == 200


def test_a_database_that_fails_before_the_first_byte_is_a_500_that_tells_nothing(
    api: Service,
) -> None:
    # Given
    api.file.rename(api.file.with_name("elsewhere"))

    # When
    with captured_logs() as lines:
        answer = api.http.get(PATH)

    # Then
    assert answer.status_code == 500
    body = flat(answer)
    assert body["code"] == "INTERNAL_ERROR"
    assert "sqlite" not in answer.text
    assert "X-RateLimit-Limit" in answer.headers
    (line,) = [line for line in lines if line["event"] == "pipeline.failed"]
    assert "unable to open database file" in line["reason"]
    assert api.idle()


def test_a_caller_of_http_1_0_is_refused_because_no_end_could_be_told(api: Service) -> None:
    # Given
    host, port = api.http.base_url.host, api.http.base_url.port
    head = f"GET {PATH} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {api.ann}\r\n\r\n"

    # When
    with socket.create_connection((host, port or 80), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    # Then
    assert b" 505 " in answer.split(b"\r\n", 1)[0]
    assert b"proxy_http_version 1.1" in answer

"""Each error says whether the same request may succeed later."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.api.request_context import retry_headers
from exporter.errors import StoreUnavailable
from tests.integration.api_server import CREATED, Service

PATHS = [
    "/v1/exports/none",
    "/v2/tasks/none",
    "/v2/data_requests/none",
    "/api/export?format=x",
    "/nothing",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_request_of_any_contract_says_that_repeating_it_is_useless(
    api: Service, path: str
) -> None:
    # When
    answers = [api.http.get(path), api.http.get(path, headers={"X-API-Key": "exp_wrong"})]
    # Then
    for answer in answers:
        assert 400 <= answer.status_code < 500
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after-ms" not in answer.headers


def test_success_says_nothing_of_retries(api: Service) -> None:
    # When
    path, body = CREATED["native"]
    answer = api.http.post(path, json=body)
    # Then: it has Retry-After for the next poll, which is no retry
    assert answer.status_code == 202
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/exports/none", "/v2/tasks/none"])
def test_an_unreachable_store_is_worth_a_retry(
    api: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("refused")

    monkeypatch.setattr(api.keys, "find_call", fail)
    # When
    answer = api.http.get(path)
    # Then
    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["retry-after-ms"] == answer.headers["retry-after"] + "000"


@pytest.mark.parametrize(
    ("status", "wait", "should_retry", "milliseconds"),
    [
        (429, b"7", b"true", b"7000"),
        (429, None, b"false", None),  # a used-up quota or balance
        (503, b"5", b"true", b"5000"),
        (500, None, b"true", None),
        (408, None, b"true", None),
        (409, None, b"false", None),
        (402, None, b"false", None),
        (505, None, b"false", None),
    ],
)
def test_the_verdict_follows_from_the_status_and_retry_after(
    status: int, wait: bytes | None, should_retry: bytes, milliseconds: bytes | None
) -> None:
    # When
    found = dict(retry_headers(status, [(b"retry-after", wait)] if wait else []))
    # Then
    assert found[b"x-should-retry"] == should_retry
    assert found.get(b"retry-after-ms") == milliseconds

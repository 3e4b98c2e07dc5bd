"""What a key's balance and plan allow, and what the answers tell of it."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.core.plans import Plan
from exporter.errors import SourceUnavailable
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.store import RedisStore
from tests.integration.api_server import Service
from tests.integration.hirebase_jobs.desk import DAY, EVERYTHING, ROWS


def key_of(api: Service, balance: int | None = None, *features: str) -> dict[str, str]:
    """The header of a new key with such a plan."""
    plan = Plan(key_id=None, features=frozenset(features) if features else None)
    return {"X-API-Key": api.keys.create("ann", plan=plan, balance=balance)}


def left(api: Service) -> int | None:
    """What the newest key may still spend."""
    return Credits(api.keys.client).balance(api.keys.list()[-1].id).left


def usage(headers: Any) -> dict[str, str]:
    prefix = "hirebase-usage-"
    return {name[len(prefix) :]: headers[name] for name in headers if name.startswith(prefix)}


def test_each_posting_is_paid_for_and_the_headers_tell_what_is_left(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 100)

    # When
    answer = jobs.http.post("/v2/jobs/search", json={**EVERYTHING, "limit": 30}, headers=header)

    # Then
    told = usage(answer.headers)
    start = told.pop("period-start")
    assert datetime.fromisoformat(start) <= datetime.now(UTC)
    assert told == {
        "feature": "jobs_api",
        "meter": "m_jobs_api_calls",
        "unit": "jobs",
        "included-limit": "100",
        "included-used": "30",
        "included-remaining": "70",
        "overage-used": "0",
        "overage-mode": "block",
        "total-used": "30",
        "period-end": "9999-12-31T23:59:59Z",
    }
    assert left(jobs) == 70


def test_what_is_free_takes_nothing_even_from_an_empty_balance(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 0)
    free: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v2/jobs/estimate", {"json": EVERYTHING}),
        ("GET", "/v2/jobs/expired-jobs", {"params": {"since": DAY}}),
        ("POST", "/v2/jobs/expired-jobs/export", {"json": {"since": DAY}}),
        ("GET", "/v2/billing/usage/summary", {}),
        ("GET", "/v2/tasks", {}),
    ]

    # When
    answers = [
        jobs.http.request(method, path, headers=header, **more) for method, path, more in free
    ]

    # Then
    assert [answer.status_code for answer in answers] == [200, 200, 202, 200, 200]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v2/jobs/search", {**EVERYTHING, "limit": 4}),
        ("POST", "/v2/jobs/export", {"search": {"limit": 4}, "format": "json"}),
    ],
)
def test_what_the_balance_does_not_hold_is_a_quota_and_no_rate(
    jobs: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    # Given
    jobs.engine.store = RedisStore(jobs.keys.client)
    header = key_of(jobs, 3)

    # When
    answer = jobs.http.request(method, path, json=body, headers=header)

    # Then
    assert answer.status_code == 429, answer.text
    assert answer.headers["X-Billing-Code"] == "limit_exceeded"
    assert "Retry-After" not in answer.headers
    assert "needs 4" in answer.json()["detail"]
    assert usage(answer.headers)["included-remaining"] == "3"
    assert left(jobs) == 3


def test_an_empty_balance_is_refused_in_the_vendors_words(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 2)
    body = {**EVERYTHING, "limit": 2}
    jobs.http.post("/v2/jobs/search", json=body, headers=header)

    # When
    answer = jobs.http.get("/v2/jobs/any", headers=header)

    # Then
    assert answer.status_code == 429
    assert answer.json() == {
        "detail": "You've reached your plan's included usage of 2 for this period."
    }


def test_a_posting_that_is_not_there_costs_nothing(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 1)

    # When
    answer = jobs.http.get("/v2/jobs/no-such-job", headers=header)

    # Then
    assert answer.status_code == 404
    assert left(jobs) == 1


def test_an_export_sets_its_records_aside_and_says_so(jobs: Service) -> None:
    # Given
    jobs.engine.store = RedisStore(jobs.keys.client)
    header = key_of(jobs, 500)

    # When
    body = {"search": EVERYTHING, "format": "json"}
    answer = jobs.http.post("/v2/jobs/export", json=body, headers=header)

    # Then
    assert answer.status_code == 202, answer.text
    told = usage(answer.headers)
    assert (told["meter"], told["included-limit"]) == ("m_exports", "500")
    assert told["included-remaining"] == str(500 - ROWS)


def test_a_key_without_a_balance_is_told_of_no_usage(jobs: Service) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/search", json=EVERYTHING)

    # Then
    assert usage(answer.headers) == {}


def test_the_summary_shows_the_whole_balance_on_each_meter(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 50, "search", "export")
    jobs.http.post("/v2/jobs/search", json={**EVERYTHING, "limit": 20}, headers=header)

    # When
    answer = jobs.http.get("/v2/billing/usage/summary", headers=header)
    unlimited = jobs.http.get("/v2/billing/usage/summary")

    # Then
    summary = answer.json()
    assert summary["plan_lookup_keys"] == ["export", "search"]
    assert [
        (row["event_name"], row["used"], row["included"], row["remaining"])
        for row in summary["meters"]
    ] == [("m_jobs_api_calls", 20, 50, 30), ("m_exports", 20, 50, 30)]
    assert {row["remaining"] for row in unlimited.json()["meters"]} == {None}


@pytest.mark.parametrize(
    ("feature", "method", "path", "body"),
    [
        ("search", "POST", "/v2/jobs/search", {}),
        ("search", "GET", "/v2/jobs/any", None),
        ("search", "GET", "/v2/hirebase/companies/a/jobs/b", None),
        ("expired", "GET", f"/v2/jobs/expired-jobs?since={DAY}", None),
        ("expired", "POST", "/v2/jobs/expired-jobs/export", {"since": DAY}),
        ("export", "POST", "/v2/jobs/export", {"search": {}, "format": "csv"}),
    ],
)
def test_what_a_plan_leaves_out_is_403(
    jobs: Service, feature: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    # Given
    header = key_of(jobs, None, "bulk")

    # When
    answer = jobs.http.request(method, path, json=body, headers=header)

    # Then
    assert answer.status_code == 403, answer.text
    assert f"does not include {feature!r}" in answer.json()["detail"]


def test_parallel_searches_read_no_more_than_the_key_can_pay(
    jobs: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given 100 credits, when 16 searches for 100 postings come at once, then one of them asks the
    source, and the others are answered with 429.
    """
    header = key_of(jobs, 100)
    source = jobs.engine.source("board")
    listing, asked = source.listing, []  # type: ignore[attr-defined]

    def slow(*arguments: Any) -> Any:
        asked.append(arguments)
        time.sleep(0.3)
        return listing(*arguments)

    monkeypatch.setattr(source, "listing", slow)

    def search(_: int) -> int:
        body = {**EVERYTHING, "limit": 100}
        return jobs.http.post("/v2/jobs/search", json=body, headers=header).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = Counter(pool.map(search, range(16)))
    assert statuses == {200: 1, 429: 15}
    assert len(asked) == 1
    assert left(jobs) == 0


def test_credits_for_postings_that_did_not_come_are_given_back(
    jobs: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a source that fails, when a metered key searches, then its balance stays the same."""
    header = key_of(jobs, 100)

    def fail(*_: Any) -> Any:
        raise SourceUnavailable("no answer")

    monkeypatch.setattr(jobs.engine.source("board"), "listing", fail)
    body = {**EVERYTHING, "limit": 30}
    answer = jobs.http.post("/v2/jobs/search", json=body, headers=header)
    assert answer.status_code == 503
    assert left(jobs) == 100
    balance = Credits(jobs.keys.client).balance(jobs.keys.list()[-1].id)
    assert (balance.used, balance.reserved) == (0, 0)

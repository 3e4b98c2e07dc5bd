"""Searches while the source has none, or an upstream or Redis is in trouble."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from exporter.config import Surfaces
from exporter.errors import StoreUnavailable
from exporter.sources.coresignal import CoresignalConfig
from tests import boards
from tests.integration.api_server import Service
from tests.integration.hirebase_jobs.desk import DAY, behind
from tests.upstreams import reply, serving


@pytest.mark.parametrize(
    ("said", "status", "header"),
    [
        (reply(429, {"detail": "slow"}, retry_after="120"), 429, ("Retry-After", "120")),
        (
            reply(429, {"detail": "plan used up"}, x_billing_code="limit_exceeded"),
            429,
            ("X-Billing-Code", "limit_exceeded"),
        ),
        (reply(503, {"detail": "away"}, retry_after="60"), 503, ("Retry-After", "60")),
        (reply(502, {"detail": "gateway"}), 503, ("Retry-After", "5")),
        (reply(401, {"detail": "who are you"}), 502, None),
        (reply(422, {"detail": "hide_seen_jobs cannot be done"}), 422, None),
        (reply(200, {"jobs": [], "total_count": 7}), 502, None),
    ],
)
@pytest.mark.parametrize("path", ["/v2/jobs/search", "/v2/jobs/estimate"])
def test_what_an_upstream_does_is_told_in_its_own_terms(
    api: Service, path: str, said: bytes, status: int, header: tuple[str, str] | None
) -> None:
    # Given
    with serving(said) as upstream:
        behind(api, upstream.url)

        # When
        answer = api.http.post(path, json={})
        api.engine.source("board").close()

    # Then
    if path.endswith("estimate") and b"total_count" in said:
        # A count past the end may well be empty.
        assert answer.json() == {"cost": 7}
        return
    assert answer.status_code == status, answer.text
    assert answer.headers.get("Retry-After") == (
        header[1] if header and header[0] == "Retry-After" else None
    )
    assert answer.headers.get("X-Billing-Code") == (
        header[1] if header and header[0] == "X-Billing-Code" else None
    )
    assert boards.KEY not in answer.text
    assert "127.0.0.1" not in answer.text


def test_a_search_of_a_source_that_has_none_is_404(api: Service) -> None:
    # Given
    rows = CoresignalConfig(base_url="http://127.0.0.1:9", api_key="unused")
    config = api.engine.config.model_copy(update={"surfaces": Surfaces(hirebase="rows")})
    api.engine.config = config
    config.sources["rows"] = rows

    # When
    answers = [
        api.http.post("/v2/jobs/search", json={}),
        api.http.get("/v2/jobs/data/industries"),
        api.http.get("/v2/jobs/expired-jobs", params={"since": DAY}),
        api.http.post("/v2/jobs/expired-jobs/export", json={"since": DAY}),
    ]

    # Then
    assert [answer.status_code for answer in answers] == [404] * 4
    assert "the source 'rows' cannot be searched" in answers[0].json()["detail"]


def test_while_an_upstream_hangs_tasks_are_polled_all_the_same(api: Service) -> None:
    # Given
    polled = threading.Event()

    def hangs(_: Any) -> bytes:
        polled.wait(20)
        return reply(200, {"jobs": [], "total_count": 0})

    created = api.http.post("/v2/jobs/export", json={"search": {}, "format": "json"}).json()
    with serving(hangs) as upstream, ThreadPoolExecutor(60) as callers:
        behind(api, upstream.url)
        api.engine.sources.opened.clear()
        waiting = [
            callers.submit(api.http.post, "/v2/jobs/search", json={}, timeout=60) for _ in range(60)
        ]
        time.sleep(0.5)

        # When
        begin = time.monotonic()
        poll = api.http.get(f"/v2/tasks/{created['id']}")
        took = time.monotonic() - begin
        polled.set()
        for one in waiting:
            one.cancel()
        api.engine.source("board").close()

    # Then
    assert poll.status_code == 200
    assert took < 2


def test_while_redis_is_away_searches_are_503(
    jobs: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def away(*_: Any) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr("exporter.store.redis.rate_limits.RateLimits.acquire_call", away)

    # When
    answer = jobs.http.post("/v2/jobs/search", json={})

    # Then
    assert answer.status_code == 503

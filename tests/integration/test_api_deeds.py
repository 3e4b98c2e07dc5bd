"""What a key may do, and how often, follows from what is asked for, never from the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.core.exports import State
from exporter.core.plans import Plan
from exporter.core.rates import Rate
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.sql.config import SqlConfig
from tests.integration.api_server import LEASE, Service

NATIVE = "/v1/exports"
EXPIRED = {"expired_since": "2026-03-01"}


@pytest.fixture
def api_of_all(api: Service, tmp_path: Path) -> Service:
    """Returns a service with a source for each feature; none of them can be reached."""
    vendor = CoresignalConfig(base_url="http://127.0.0.1:9", api_key="unused")
    rows = SqlConfig(url=f"sqlite:///{tmp_path / 'none.sqlite'}")
    api.engine.config.sources.update(coresignal=vendor, pipeline=rows)
    return api


def key_with(api: Service, *features: str, **plan: Any) -> dict[str, str]:
    chosen = frozenset(features) if features else None
    return {"X-API-Key": api.keys.create("cleo", plan=Plan(None, features=chosen, **plan))}


def fail(api: Service) -> None:
    """Claims an export and ends it as failed."""
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    assert api.engine.store.end(
        claim.export.id,
        claim.fence,
        State.FAILED,
        error="gone",
        keep_record=api.engine.settings.record_retention,
    )


@pytest.mark.parametrize(
    ("source", "query", "needed"),
    [
        ("pipeline", {}, "pipeline"),
        ("coresignal", {"title": "welder"}, "bulk"),
        ("board", EXPIRED, "expired"),
        ("board", {}, "export"),
    ],
)
@pytest.mark.parametrize("path", [NATIVE, "/v1/exports/estimate"])
def test_a_source_needs_its_feature_on_our_own_contract(
    api_of_all: Service, path: str, source: str, query: dict[str, Any], needed: str
) -> None:
    """Given a key with all features but one, when it names a source of that one, then 403."""
    others = {"export", "expired", "bulk", "pipeline"} - {needed}
    body = {"source": source, "query": query} | ({"format": "json"} if path == NATIVE else {})
    refused = api_of_all.http.post(path, json=body, headers=key_with(api_of_all, *others))
    assert refused.status_code == 403, refused.text
    assert refused.json()["code"] == "not_in_plan"
    assert repr(needed) in refused.json()["detail"]
    # And with that feature alone it is accepted; an estimate fails later, at the source.
    given = api_of_all.http.post(path, json=body, headers=key_with(api_of_all, needed))
    assert given.status_code == 202 if path == NATIVE else given.status_code != 403, given.text


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"priority_ceiling": 5}, "give at most 5"),
        ({"features": frozenset({"search"})}, "'export'"),
    ],
)
def test_a_retry_needs_what_a_creation_needs(api: Service, plan: dict[str, Any], said: str) -> None:
    """Given a failed export of priority 9, when a key with a smaller plan retries it, then 403."""
    body = {"source": "board", "query": {}, "format": "csv", "priority": 9}
    made = api.http.post(NATIVE, json=body, headers=key_with(api)).json()
    fail(api)
    other = {"X-API-Key": api.keys.create("cleo", plan=Plan(None, **plan))}
    refused = api.http.post(f"{NATIVE}/{made['id']}/retry", headers=other)
    assert refused.status_code == 403, refused.text
    assert said in refused.json()["detail"]
    assert api.http.post(f"{NATIVE}/{made['id']}/retry", headers=key_with(api)).status_code == 202


def test_expired_postings_are_free_on_every_contract(api: Service) -> None:
    """Given a metered key without credits, when it exports expired postings, then 202."""
    key = {"X-API-Key": api.keys.create("cleo", plan=Plan(None), balance=0)}
    body = {"source": "board", "query": EXPIRED, "format": "json"}
    assert api.http.post(NATIVE, json=body, headers=key).status_code == 202
    free = api.http.post("/v2/jobs/expired-jobs/export", json={"since": "2026-03-01"}, headers=key)
    assert free.status_code == 202


def bound(api: Service, **rates: Rate) -> None:
    api.engine.settings = api.engine.settings.model_copy(update=rates)


def test_creations_count_together_on_every_contract(api_of_all: Service) -> None:
    """Given a rate of three creations, when a key creates on three contracts and retries, then the
    fourth is refused with Retry-After in the shape of its contract, and another key goes on.
    """
    api = api_of_all
    bound(api, create_rate=Rate(3, 60))
    made = api.http.post(NATIVE, json={"source": "board", "query": {}, "format": "csv"}).json()
    fail(api)
    hirebase = {"search": {}, "format": "csv"}
    assert api.http.post("/v2/jobs/export", json=hirebase).status_code == 202
    bulk = "/v2/data_requests/job_base/filter"
    assert api.http.post(bulk, json={"filters": {"title": "x"}}).status_code == 201
    for path, body in {
        f"{NATIVE}/{made['id']}/retry": None,
        NATIVE: {"source": "board", "query": {}, "format": "csv"},
        "/v2/jobs/export": hirebase,
        "/v2/jobs/expired-jobs/export": {"since": "2026-03-01"},
        bulk: {"filters": {"title": "y"}},
    }.items():
        refused = api.http.post(path, json=body)
        assert refused.status_code == 429, (path, refused.text)
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert "the rate limit is 3/60s for this key (create_rate" in refused.json()["detail"]
    created = api.http.post("/v2/jobs/export", json=hirebase, headers={"X-API-Key": api.bob})
    assert created.status_code == 202


@pytest.mark.parametrize(
    ("rate", "method", "paths"),
    [
        ("list_rate", "GET", ["/v1/exports", "/v2/tasks"]),
        ("change_rate", "DELETE", ["/v1/exports/none", "/v2/tasks/none"]),
        ("change_rate", "POST", ["/v1/exports/none/cancel", "/v2/tasks/none/cancel"]),
        ("estimate_rate", "POST", ["/v1/exports/estimate", "/v2/jobs/estimate"]),
        ("preview_rate", "POST", ["/v1/sources/none/preview", "/v1/sources/other/preview"]),
    ],
)
def test_other_deeds_count_together_too(
    api: Service, rate: str, method: str, paths: list[str]
) -> None:
    bound(api, **{rate: Rate(2, 60)})
    statuses = [api.http.request(method, path, json={}).status_code for path in paths]
    assert 429 not in statuses
    for path in paths:
        refused = api.http.request(method, path, json={})
        assert refused.status_code == 429, (path, refused.text)
        assert int(refused.headers["Retry-After"]) > 0


def test_the_rate_of_the_pipeline_holds_on_our_own_contract(api_of_all: Service) -> None:
    """Given a rate of two exports of one's own rows, when a key uses both contracts, then the third
    is refused on both.
    """
    api = api_of_all
    bound(api, pipeline_rate=Rate(2, 3600))
    body = {"source": "pipeline", "query": {}, "format": "json"}
    assert api.http.post(NATIVE, json=body).status_code == 202
    assert api.http.get("/api/export").status_code != 429
    assert api.http.post(NATIVE, json=body).status_code == 429
    assert api.http.get("/api/export").status_code == 429
    # Other sources are not counted
    board = {"source": "board", "query": {}, "format": "csv"}
    assert api.http.post(NATIVE, json=board).status_code == 202


def test_a_rate_of_the_key_replaces_that_of_the_settings(api: Service) -> None:
    key = key_with(api, limits={"list_rate": Rate(1, 60), "hirebase_rate": Rate(2, 60)})
    assert api.http.get(NATIVE, headers=key).status_code == 200
    assert api.http.get(NATIVE, headers=key).status_code == 429
    polled = api.http.get("/v2/billing/usage/summary", headers=key)
    assert polled.headers["X-RateLimit-Limit"] == "2"


@pytest.mark.parametrize("path", ["/v1/exports/estimate", "/v2/jobs/estimate"])
def test_an_estimate_repeats_the_count_of_the_same_query_for_a_minute(
    api: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a source that counts, when one query is estimated in a loop, then it is asked once a
    minute, and another query is counted by itself.
    """
    asked: list[object] = []

    def count(query: object) -> int:
        asked.append(query)
        return 70 + len(asked)

    monkeypatch.setattr(api.engine.source("board"), "count", count)

    def estimate(title: str) -> int:
        search: dict[str, Any] = {"job_titles": [title]}
        body = {"source": "board", "query": search} if path.startswith("/v1") else search
        answer = api.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return int(next(iter(answer.json().values())))

    assert [estimate("welder") for _ in range(5)] == [71] * 5
    assert estimate("smith") == 72
    api.clock.advance(61)
    assert estimate("welder") == 73

"""One user cannot fill the store: searches, exports and their sum are bounded on every contract."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.core import limits
from exporter.core.plans import Plan
from exporter.errors import StoreFull
from exporter.sources.coresignal import CoresignalConfig
from tests.integration.api_server import Service

CREATE: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/v1/exports", {"source": "board", "query": {}, "format": "csv"}),
    "hirebase": ("/v2/jobs/export", {"search": {}, "format": "csv"}),
    "coresignal": ("/v2/data_requests/job_base/filter", {"filters": {"title": "welder"}}),
}
"""For each contract the path and a body that create an export."""


@pytest.fixture
def bounded(api: Service) -> Service:
    """Returns a service with a source for each contract, in which a user may queue two exports."""
    vendor = CoresignalConfig(base_url="http://127.0.0.1:9", api_key="unused")
    api.engine.config.sources["coresignal"] = vendor
    api.engine.settings = api.engine.settings.model_copy(update={"max_queued_exports": 2})
    return api


def create(api: Service, contract: str, key: str, **changes: Any) -> Any:
    path, body = CREATE[contract]
    # Different limits, because Coresignal refuses an identical request.
    create.calls += 1  # type: ignore[attr-defined]
    size = {"search": {**body["search"], "limit": create.calls}} if "search" in body else {}  # type: ignore[attr-defined]
    if contract != "hirebase":
        size = {"limit": create.calls}  # type: ignore[attr-defined]
    return api.http.post(path, json={**body, **size, **changes}, headers={"X-API-Key": key})


create.calls = 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("contract", CREATE)
def test_the_exports_of_a_user_in_the_queue_are_bounded_on_every_contract(
    bounded: Service, contract: str
) -> None:
    """Given two queued exports, when a third is created, then it is refused with Retry-After, and
    another user's export is accepted.
    """
    for _ in range(2):
        assert create(bounded, contract, bounded.ann).status_code in (201, 202)
    refused = create(bounded, contract, bounded.ann)
    assert refused.status_code == 429, refused.text
    assert int(refused.headers["Retry-After"]) > 0
    assert "2 of your exports have not ended" in refused.json()["detail"]
    assert create(bounded, contract, bounded.bob).status_code in (201, 202)


@pytest.mark.parametrize("contract", CREATE)
def test_kept_exports_are_bounded_and_the_answer_says_what_to_do(
    bounded: Service, contract: str
) -> None:
    bounded.engine.settings = bounded.engine.settings.model_copy(
        update={"max_queued_exports": 0, "max_kept_exports": 1}
    )
    made = create(bounded, contract, bounded.ann)
    refused = create(bounded, contract, bounded.ann)
    assert refused.status_code == 409, refused.text
    assert "delete exports" in refused.json()["detail"]
    assert "Retry-After" not in refused.headers
    # When the user deletes the export, and its record is gone
    export_id = made.json().get("id") or made.json()["request_id"]
    assert bounded.http.delete(f"/v1/exports/{export_id}").status_code == 202
    bounded.clock.advance(61)
    # Then there is room
    assert create(bounded, contract, bounded.ann).status_code in (201, 202)


@pytest.mark.parametrize("path", ["/v1/exports", "/v1/exports/estimate", "/v2/jobs/export"])
def test_a_large_search_is_refused_before_anything_is_stored(api: Service, path: str) -> None:
    """Given a search of 70 KB, when it is sent, then it is refused with its size and the limit."""
    search = {"job_titles": ["x" * 70_000]}
    body: dict[str, Any] = {"search": search, "format": "csv"}
    if path.startswith("/v1"):
        body = {"source": "board", "query": search}
    if path == "/v1/exports":
        body["format"] = "csv"
    refused = api.http.post(path, json=body)
    assert refused.status_code == 422, refused.text
    assert str(limits.STORED_SEARCH_BYTES.default) in refused.text
    assert api.engine.store.list("ann", limit=10).exports == ()


def test_long_names_of_columns_are_refused_before_anything_is_stored(api: Service) -> None:
    columns = [f"{n:04}{'c' * 190}" for n in range(900)]
    path, body = CREATE["native"]
    refused = api.http.post(path, json={**body, "columns": columns})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/columns"
    assert api.engine.store.list("ann", limit=10).exports == ()


@pytest.mark.parametrize("contract", CREATE)
def test_a_full_store_is_answered_with_503_and_retry_after(
    bounded: Service, contract: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreFull("Redis is full")

    monkeypatch.setattr(bounded.engine.store, "create", refuse)
    refused = create(bounded, contract, bounded.ann)
    assert refused.status_code == 503, refused.text
    assert int(refused.headers["Retry-After"]) > 0
    assert "nothing was created" in refused.json()["detail"]


def test_a_limit_of_the_key_replaces_that_of_the_settings(bounded: Service) -> None:
    """Given keys of one user with limits of their own, then each key has its limit."""
    one = bounded.keys.create("cleo", plan=Plan(None, limits={"queued_exports": 1}))
    more = bounded.keys.create("cleo", plan=Plan(None, limits={"queued_exports": 0}))
    assert create(bounded, "native", one).status_code == 202
    assert create(bounded, "native", one).status_code == 429
    for _ in range(3):
        assert create(bounded, "native", more).status_code == 202

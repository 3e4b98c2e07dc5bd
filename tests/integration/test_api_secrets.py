"""Links and secrets: who gets them, and that no cache and no terminal keeps or runs anything."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.integration.api_server import CREATED, POLLED, Service
from tests.integration.webhook_service import ENDPOINTS, URL, Hooked

SURFACES = ("hirebase", "native")
KEY = {"Idempotency-Key": "once"}


def is_without_link(answer: httpx.Response) -> bool:
    assert answer.status_code in (200, 202), answer.text
    result = answer.json()["result"]
    return result["download_url"] is None and "://memory" not in answer.text


@pytest.mark.parametrize("surface", SURFACES)
def test_a_key_that_may_not_read_gets_no_link(api: Service, surface: str) -> None:
    # Given: a finished export, and a key that may only write
    path, body = CREATED[surface]
    export_id = api.http.post(path, json=body, headers=KEY).json()["id"]
    api.finish(export_id)
    writer = {"X-API-Key": api.keys.create("ann", ["write"])}

    # When
    canceled = api.http.post(f"{POLLED[surface]}/{export_id}/cancel", headers=writer)
    replayed = api.http.post(path, json=body, headers={**writer, **KEY})

    # Then
    assert is_without_link(canceled)
    assert is_without_link(replayed)
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert not is_without_link(api.http.post(path, json=body, headers=KEY))
    assert not is_without_link(api.http.post(f"{POLLED[surface]}/{export_id}/cancel"))


def test_a_repeated_retry_by_a_key_that_may_not_read_has_no_link(api: Service) -> None:
    # Given: a canceled export whose retry has finished
    path, body = CREATED["native"]
    export_id = api.http.post(path, json=body).json()["id"]
    api.http.post(f"{path}/{export_id}/cancel")
    writer = {"X-API-Key": api.keys.create("ann", ["write"]), **KEY}
    again = api.http.post(f"{path}/{export_id}/retry", headers=writer).json()["id"]
    api.finish(again)

    # When
    replayed = api.http.post(f"{path}/{export_id}/retry", headers=writer)

    # Then
    assert replayed.json()["id"] == again
    assert is_without_link(replayed)


def test_a_webhook_with_links_needs_a_key_that_may_read(desk: Hooked) -> None:
    # Given
    writer = {"X-API-Key": desk.keys.create("ann", ["write"])}
    body = {"url": URL, "include_download_url": True}

    # When
    refused = desk.http.post(ENDPOINTS, json=body, headers=writer)

    # Then
    assert refused.status_code == 403
    assert refused.json()["code"] == "scope_missing"
    assert desk.http.post(ENDPOINTS, json={"url": URL}, headers=writer).status_code == 201
    assert desk.http.post(ENDPOINTS, json=body).status_code == 201


@pytest.mark.parametrize("surface", SURFACES)
def test_no_cache_may_store_an_answer_with_a_link(api: Service, surface: str) -> None:
    # Given
    path, body = CREATED[surface]
    created = api.http.post(path, json=body, headers=KEY)
    export_id = created.json()["id"]
    api.finish(export_id)
    poll = f"{POLLED[surface]}/{export_id}"

    # When
    answers = [
        created,
        api.http.get(poll),
        api.http.get(POLLED[surface]),
        api.http.post(f"{poll}/cancel"),
        api.http.post(path, json=body, headers=KEY),
    ]

    # Then
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"


def test_a_rotation_that_would_end_a_grace_period_early_is_a_conflict(desk: Hooked) -> None:
    # Given
    place = f"{ENDPOINTS}/{desk.register()['id']}"
    assert {desk.http.post(f"{place}/rotate").status_code for _ in range(4)} == {200}

    # When
    refused = desk.http.post(f"{place}/rotate")

    # Then
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_secrets")
    assert desk.http.post(f"{place}/rotate", json={"grace_seconds": 0}).status_code == 200


def test_no_cache_may_store_an_answer_with_a_secret(desk: Hooked) -> None:
    # Given
    made: Any = desk.http.post(ENDPOINTS, json={"url": URL})
    place = f"{ENDPOINTS}/{made.json()['id']}"

    # When
    answers = [made, desk.http.get(f"{place}/secret"), desk.http.post(f"{place}/rotate")]

    # Then
    assert [answer.headers["Cache-Control"] for answer in answers] == ["no-store"] * 3

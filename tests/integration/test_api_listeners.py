"""Listeners over the wire: what is taken, by whom, and what follows from a report."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from exporter.api.surfaces.webhooks import listeners
from exporter.core import limits
from exporter.core.events import DEFAULT_EVENTS
from exporter.webhooks import delivering
from tests.integration.api_server import PUBLIC_URL
from tests.integration.test_api_refusals import check_shape
from tests.integration.webhook_service import ENDPOINTS, URL, Hooked

LISTENER = {"kind": "listener", "events": ["export.queued", "export.finished"]}


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "IDLE_EXIT", timedelta(milliseconds=20))
    monkeypatch.setattr(listeners, "POLL_SECONDS", 0.05)


@pytest.fixture
def listener(desk: Hooked) -> dict[str, Any]:
    answer = desk.http.post(ENDPOINTS, json=LISTENER)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def take(desk: Hooked, listener: dict[str, Any], wait: int = 0) -> httpx.Response:
    return desk.http.post(f"{ENDPOINTS}/{listener['id']}/take", params={"wait": wait})


def taken(desk: Hooked, listener: dict[str, Any]) -> dict[str, Any]:
    answer = take(desk, listener)
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["deliveries"]
    return dict(found)


def ack(desk: Hooked, delivery: dict[str, Any], **body: Any) -> httpx.Response:
    path = f"/v1/webhook-deliveries/{delivery['id']}/ack"
    return desk.http.post(path, json={"lease": delivery["lease"], **body})


def test_a_listener_needs_no_url_and_says_how_long_it_lives(
    desk: Hooked, listener: dict[str, Any]
) -> None:
    # When
    shown = desk.http.get(f"{ENDPOINTS}/{listener['id']}").json()
    given = desk.http.post(ENDPOINTS, json={"kind": "listener", "ttl": 600}).json()
    # Then
    secret = listener.pop("secret")
    assert secret.startswith("whsec_")
    assert shown == listener
    assert (shown["kind"], shown["ttl"], shown["url"]) == ("listener", 60, "")
    assert (given["ttl"], given["events"]) == (600, list(DEFAULT_EVENTS))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "listener", "url": URL}, "/url"),
        ({"kind": "listener", "ttl": 9}, "/ttl"),
        ({"kind": "listener", "ttl": limits.LISTENER_TTL.default + 1}, "/ttl"),
        ({"kind": "pigeon", "url": URL}, "/kind"),
        ({"url": URL, "ttl": 60}, "/ttl"),
        ({"kind": "url"}, "/url"),
    ],
)
def test_fields_that_do_not_fit_the_kind_are_refused(
    desk: Hooked, body: dict[str, Any], pointer: str
) -> None:
    # When
    answer = desk.http.post(ENDPOINTS, json=body)
    # Then
    check_shape("native", answer, 422)
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}


def test_what_is_taken_is_signed_and_its_report_is_its_log(
    desk: Hooked, listener: dict[str, Any]
) -> None:
    # Given
    export_id = desk.create(name="for me")
    desk.deliver()
    # When
    found = taken(desk, listener)
    body = Webhook(listener["secret"]).verify(found["body"], found["headers"])
    report = ack(desk, found, status=200, ms=12.5, excerpt="thanks")
    # Then
    assert body["type"] == found["type"] == "export.queued"
    assert body["data"]["links"]["self"] == f"{PUBLIC_URL}/v1/exports/{export_id}"
    assert (report.status_code, report.json()["state"]) == (200, "delivered")
    log = desk.http.get(f"/v1/webhook-deliveries/{found['id']}").json()
    (attempt,) = log["attempts"]
    assert (attempt["status"], attempt["error"], attempt["excerpt"]) == (200, None, "thanks")
    assert attempt["duration"] == pytest.approx(0.0125, abs=0.001)
    assert take(desk, listener).json() == {"deliveries": []}


@pytest.mark.parametrize(
    ("report", "state", "said"),
    [
        ({"status": 500}, "pending", "500"),
        ({"status": 302}, "pending", "302"),
        ({"error": "connection refused"}, "pending", "connection refused"),
        ({}, "pending", "did not answer"),
        ({"status": 410}, "dead", "410"),
    ],
)
def test_a_failed_attempt_is_retried_as_a_sender_would(
    desk: Hooked, listener: dict[str, Any], report: dict[str, Any], state: str, said: str
) -> None:
    # Given
    desk.create()
    desk.deliver()
    found = taken(desk, listener)
    # When
    answer = ack(desk, found, **report).json()
    # Then: the health of a listener does not matter
    assert (answer["state"], answer["tries"]) == (state, 1)
    assert said in answer["last_error"]
    assert (answer["next_at"] is None) == (state == "dead")
    endpoint = desk.http.get(f"{ENDPOINTS}/{listener['id']}").json()
    assert (endpoint["enabled"], endpoint["failing_since"]) == (True, None)


def test_a_take_waits_for_the_next_event(desk: Hooked, listener: dict[str, Any]) -> None:
    # Given
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(take(desk, listener, wait=20)))
    waiting.start()
    time.sleep(0.3)
    assert not answers
    # When
    desk.create()
    desk.deliver()
    waiting.join(timeout=10)
    # Then
    assert len(answers[0].json()["deliveries"]) == 1


def test_a_take_whose_client_has_left_takes_nothing(desk: Hooked, listener: dict[str, Any]) -> None:
    # Given
    with pytest.raises(httpx.ReadTimeout):
        desk.http.post(f"{ENDPOINTS}/{listener['id']}/take?wait=20", timeout=0.3)
    time.sleep(0.1)
    # When
    desk.create()
    desk.deliver()
    time.sleep(0.15)
    # Then
    taken(desk, listener)


def test_a_report_with_another_lease_changes_nothing(
    desk: Hooked, listener: dict[str, Any]
) -> None:
    # Given
    desk.create()
    desk.deliver()
    found = taken(desk, listener)
    # When
    answer = ack(desk, {**found, "lease": "0" * 16}, status=200)
    # Then
    check_shape("native", answer, 409)
    assert answer.json()["code"] == "lease_lost"
    log = desk.http.get(f"/v1/webhook-deliveries/{found['id']}").json()
    assert (log["state"], log["attempts"]) == ("delivering", [])
    # And the same report may come twice
    assert [ack(desk, found, status=200).status_code for _ in range(2)] == [200, 200]


def test_others_and_keys_with_one_scope_take_nothing(
    desk: Hooked, listener: dict[str, Any]
) -> None:
    # Given
    desk.create()
    desk.deliver()
    path = f"{ENDPOINTS}/{listener['id']}/take"
    reader, writer = (desk.keys.create("ann", (scope,)) for scope in ("read", "write"))
    # When
    by_bob = desk.http.post(path, headers={"X-API-Key": desk.bob})
    by_reader = desk.http.post(path, headers={"X-API-Key": reader})
    by_writer = desk.http.post(path, headers={"X-API-Key": writer})
    found = taken(desk, listener)
    report = f"/v1/webhook-deliveries/{found['id']}/ack"
    body = {"lease": found["lease"], "status": 200}
    ack_by_bob = desk.http.post(report, json=body, headers={"X-API-Key": desk.bob})
    ack_by_reader = desk.http.post(report, json=body, headers={"X-API-Key": reader})
    # Then
    for answer, status in (
        *((by_bob, 404), (by_reader, 403), (by_writer, 403)),
        *((ack_by_bob, 404), (ack_by_reader, 403)),
    ):
        check_shape("native", answer, status)
    assert ack(desk, found, status=200).json()["state"] == "delivered"


def test_the_delivery_of_another_endpoint_is_neither_taken_nor_reported(desk: Hooked) -> None:
    # Given
    made = desk.register()
    test = desk.http.post(f"{ENDPOINTS}/{made['id']}/test").json()
    # When
    answers = [take(desk, made), ack(desk, {"id": test["id"], "lease": "0"}, status=200)]
    # Then
    for answer in answers:
        check_shape("native", answer, 404)
        assert "listener" in answer.json()["detail"]


def test_a_test_and_a_redelivery_reach_a_listener(desk: Hooked, listener: dict[str, Any]) -> None:
    # Given
    desk.http.post(f"{ENDPOINTS}/{listener['id']}/test").raise_for_status()
    found = taken(desk, listener)
    ack(desk, found, status=200)
    # When
    desk.http.post(f"/v1/webhook-deliveries/{found['id']}/redeliver").raise_for_status()
    again = taken(desk, listener)
    # Then
    assert found["type"] == "webhook.test"
    assert again["headers"]["webhook-id"] == found["headers"]["webhook-id"]


def test_a_download_url_is_signed_when_it_is_taken(desk: Hooked) -> None:
    # Given
    body = {**LISTENER, "events": ["export.finished"], "include_download_url": True}
    listener = desk.http.post(ENDPOINTS, json=body).json()
    desk.finish(desk.create())
    desk.deliver()
    # When
    found = taken(desk, listener)
    # Then
    payload = Webhook(listener["secret"]).verify(found["body"], found["headers"])
    assert payload["data"]["download_url"].startswith("memory:///")


def test_a_listener_that_is_deleted_leaves_no_failure(
    desk: Hooked, listener: dict[str, Any]
) -> None:
    # Given
    desk.create()
    desk.deliver()
    found = taken(desk, listener)
    # When
    deleted = desk.http.delete(f"{ENDPOINTS}/{listener['id']}")
    # Then
    assert deleted.status_code == 204
    for answer in (take(desk, listener), ack(desk, found, status=200)):
        check_shape("native", answer, 404)
    assert desk.http.get("/v1/webhook-deliveries").json()["deliveries"] == []

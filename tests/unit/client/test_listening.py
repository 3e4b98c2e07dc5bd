"""Webhooks that are taken: what the client asks, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.client import Conflict, ConnectionFailed, TakenWebhook
from tests.unit.client.conftest import Twin
from tests.upstreams import Reset, reply, serving

pytestmark = pytest.mark.external
Make = Callable[..., Twin]
FOUND = {
    "id": "msg_1.we_1",
    "lease": "aa",
    "type": "export.finished",
    "headers": {"webhook-id": "msg_1"},
    "body": "{}",
    "later": 1,
}
TAKEN = TakenWebhook.read(FOUND)


def test_a_listener_is_made_taken_from_and_deleted(twin: Make) -> None:
    # Given
    made = {"id": "we_1", "secret": "whsec_x", "events": ["export.failed"], "ttl": 60}
    taken = reply(200, {"deliveries": [FOUND]})
    none = reply(200, {"deliveries": []})
    with serving(reply(201, made), taken, none, reply(204)) as service:
        client = twin(service.url)
        # When
        listener = client.create_listener(events=["export.failed"])
        found = client.take_webhook("we_1")
        nothing = client.take_webhook("we_1", wait=0)
        client.delete_listener("we_1")
    # Then
    assert (listener.id, listener.secret, listener.ttl) == ("we_1", "whsec_x", 60)
    assert (found, found.extra, nothing) == (TAKEN, {"later": 1}, None)
    assert [one.line.rpartition(" ")[0] for one in service.asked] == [
        "POST /v1/webhook-endpoints",
        "POST /v1/webhook-endpoints/we_1/take?wait=30",
        "POST /v1/webhook-endpoints/we_1/take?wait=0",
        "DELETE /v1/webhook-endpoints/we_1",
    ]
    assert service.asked[0].json == {
        "kind": "listener",
        "ttl": 60,
        "description": "",
        "events": ["export.failed"],
    }


def test_a_take_without_an_answer_is_not_repeated_because_another_webhook_could_be_taken(
    twin: Make,
) -> None:
    # Given
    # When / Then
    with serving([Reset()]) as service, pytest.raises(ConnectionFailed):
        twin(service.url).take_webhook("we_1")
    assert len(service.asked) == 1


def test_a_report_says_what_was_answered_in_texts_that_the_service_accepts(twin: Make) -> None:
    # Given
    after = {"id": "msg_1.we_1", "state": "pending", "next_at": "2026-03-02T09:15:09Z"}
    with serving([Reset()], reply(200, after)) as service:
        # When
        delivery = twin(service.url).acknowledge(
            TAKEN, None, ms=3, excerpt="x" * 2_000, error="y" * 2_000
        )
    # Then: a report is repeated, because it changes nothing twice
    assert (delivery.state, delivery.next_at) == ("pending", "2026-03-02T09:15:09Z")
    assert service.asked[0].json == {
        "lease": "aa",
        "status": None,
        "ms": 3,
        "excerpt": "x" * 1_000,
        "error": "y" * 500,
        "retry_after": None,
    }
    assert service.asked[1].json == service.asked[0].json


def test_a_report_that_comes_too_late_is_a_conflict(twin: Make) -> None:
    # Given
    late = {"title": "Conflict", "detail": "late", "code": "lease_lost"}
    # When / Then
    with serving(reply(409, late)) as service, pytest.raises(Conflict, match="late"):
        twin(service.url).acknowledge(TAKEN, 200)

"""One user's webhooks delay no other user's, and links reach only keys that may read."""

from __future__ import annotations

import json
import time

import pytest

from tests.attack.conftest import ANN, Target, create
from tests.attack.operations import JSON
from tests.attack.wire import Answer, Wire
from tests.webhook_receiver import hang, receiving

pytestmark = pytest.mark.stack

MAX_DELAY_SECONDS = 3.0
"""For a webhook of another user; an attempt that hangs counts as slow after two seconds."""
HANGING_URLS = 120
LINK = "X-Amz-Signature"


def post(target: Target, path: str, key: str, body: object = None) -> Answer:
    """Sends a POST on a connection of its own."""
    sent = None if body is None else json.dumps(body).encode()
    with Wire(target.addresses.url) as wire:
        return wire.ask("POST", path, key=key, headers=[("Content-Type", JSON)], body=sent)


def test_hanging_webhooks_of_one_user_delay_no_other_user(target: Target) -> None:
    with receiving(hang) as hanging, receiving() as quick:
        # Given
        eve, ann = target.eve(), target.eve()
        body = {"source": "bindbee", "query": {}, "format": "csv"}
        for number in range(HANGING_URLS):
            url = f"{hanging.url}?{number}"
            assert post(target, "/v1/exports", eve, {**body, "webhook_url": url}).status == 202
        hanging.wait_for(1)
        made = post(target, "/v1/webhook-endpoints", ann, {"url": quick.url}).json()
        started = time.monotonic()

        # When
        assert post(target, f"/v1/webhook-endpoints/{made['id']}/test", ann).status == 202
        quick.wait_for(1)

        # Then
        assert time.monotonic() - started < MAX_DELAY_SECONDS


def test_tests_in_a_loop_are_refused(target: Target) -> None:
    # Given
    eve = target.eve()
    made = post(target, "/v1/webhook-endpoints", eve, {"url": target.webhook_url}).json()

    # When
    path = f"/v1/webhook-endpoints/{made['id']}/test"
    statuses = [post(target, path, eve).status for _ in range(60)]

    # Then
    assert statuses.count(202) <= 20
    assert set(statuses) == {202, 429}


def test_no_answer_to_a_key_that_may_only_write_has_a_link(target: Target) -> None:
    # Given: finished exports of every surface
    writer = target.keys.create(ANN, ("write",))
    wrong = []
    answers = [
        (one, create(target, one, writer))
        for one in target.operations
        if one.name in target.created and not one.path.startswith("/cdapi")
    ]
    for operation in target.operations:
        if operation.path.endswith(("/cancel", "/retry")):
            name = operation.own_ids[0]
            answers += [
                (operation, post(target, operation.at({name: one}), writer))
                for one in target.ids[name]
            ]

    # When
    for operation, answer in answers:
        if LINK in answer.text or LINK in str(answer.headers) or answer.status >= 500:
            wrong.append(f"{operation.method} {operation.path}: {answer}")

    # Then: the same polls have a link for ann, which no cache may store
    assert len(answers) > 10
    assert not wrong, "\n".join(wrong)
    for export_id in target.ids["export_id"]:
        for path in (f"/v1/exports/{export_id}", f"/v2/tasks/{export_id}", "/v1/exports"):
            poll = target.wire.ask("GET", path, key=target.ann)
            assert LINK in poll.text or "finished" not in poll.text, path
            assert "no-store" in poll.header("Cache-Control"), path

"""One attempt at a delivery: what is sent, and what follows from the outcome.

A sender makes attempts itself. The owner of a listener takes deliveries, makes the attempts on his
own machine, and reports their outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from exporter.core import events as event_names
from exporter.logs import redact
from exporter.webhooks import messages, schedule, signatures
from exporter.webhooks.deliveries import Attempt, DeliveryState
from exporter.webhooks.outbox import Claimed, Outbox
from exporter.webhooks.schedule import Reaction
from exporter.webhooks.sender import Outcome

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_EXCERPT_CHARS = 1_000
"""Characters of a response body that are stored with its attempt."""


class Signed(NamedTuple):
    """The request of one attempt; its body must be sent byte for byte."""

    headers: Mapping[str, str]
    body: bytes


def sign(claimed: Claimed, at: datetime, link: Callable[[str], str | None]) -> Signed:
    """Returns what is sent in an attempt that starts at a time.

    `link` returns the download URL of the export with that id; it is called only for an
    `export.finished` to an endpoint that includes the URL.
    """
    delivery, endpoint = claimed.delivery, claimed.endpoint
    body = delivery.body
    if endpoint.include_download_url and delivery.type == event_names.FINISHED:
        body = messages.with_download_url(body, link(delivery.export_id or ""))
    headers = signatures.headers(
        [secret.value for secret in endpoint.secrets],
        delivery.message_id,
        int(at.timestamp()),
        body,
    )
    return Signed(headers, body)


def settle(
    outbox: Outbox,
    claimed: Claimed,
    at: datetime,
    outcome: Outcome,
    *,
    health: str,
    random_fraction: Callable[[], float],
) -> bool:
    """Records the outcome of an attempt that started at a time; False if the lease was lost.

    `health` is the verdict about the endpoint, see `Outbox.settle`.
    """
    delivery, endpoint = claimed.delivery, claimed.endpoint
    attempt = Attempt(
        at=at,
        duration=round(outcome.duration, 3),
        status=outcome.status,
        error=outcome.error,
        # A receiver may echo the download URL, which only keys that may read are shown.
        excerpt=redact(outcome.excerpt.decode("utf-8", "replace")[:MAX_EXCERPT_CHARS]),
    )
    tries = delivery.tries + 1
    is_test = delivery.type == event_names.TEST
    delay = None if is_test else schedule.next_delay(tries, outcome, random_fraction)
    reaction = schedule.classify(outcome)
    if outcome.delivered:
        state, gave_up = DeliveryState.DELIVERED, ""
    elif delay is None:
        state, gave_up = DeliveryState.DEAD, _give_up_reason(reaction, tries)
    else:
        state, gave_up = DeliveryState.PENDING, ""
    settled = outbox.settle(
        claimed,
        attempt,
        state=state,
        health=health,
        delay=timedelta(seconds=delay or 0),
        rest=timedelta(seconds=schedule.MIN_REST_SECONDS)
        if reaction is Reaction.THROTTLE
        else timedelta(0),
        gave_up=gave_up,
    )
    bound_log = log.bind(status=outcome.status, tries=tries, seconds=attempt.duration)
    if settled is None:
        bound_log.warning("webhook.lease_lost")
        return False
    if state is DeliveryState.DELIVERED:
        bound_log.info("webhook.delivered")
    elif state is DeliveryState.DEAD:
        bound_log.warning("webhook.dead", reason=outcome.error, gave_up=gave_up)
    else:
        bound_log.info("webhook.failed", reason=outcome.error, retry_in=round(delay or 0, 1))
    if settled.warned:
        log.warning("endpoint.failing", user_id=endpoint.user_id)
    if settled.disabled is not None:
        log.warning("endpoint.disabled", user_id=endpoint.user_id, because=settled.disabled)
    return True


def _give_up_reason(reaction: Reaction, tries: int) -> str:
    if reaction is Reaction.DISABLE:
        return "the receiver answered 410 Gone"
    return f"attempt {tries} was the last"

"""Send loop of a webhook worker: turns events into deliveries and makes the due attempts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import structlog

from exporter.clock import Clock
from exporter.core import events as event_names
from exporter.core.events import Event
from exporter.core.exports import Export
from exporter.errors import StoreUnavailable
from exporter.logs import redact
from exporter.store.base import ExportStore
from exporter.webhooks import messages, schedule, signatures
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryState
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.endpoints import Endpoint
from exporter.webhooks.outbox import Claimed, Outbox
from exporter.webhooks.schedule import Reaction
from exporter.webhooks.sender import Outcome, Sender

log: structlog.stdlib.BoundLogger = structlog.get_logger()

LEASE_MARGIN = timedelta(seconds=15)
"""Time by which the lease of a delivery is longer than the timeout of an attempt.

The worker needs this time before and after the request to the receiver.
"""
SLOW_RESPONSE_SECONDS = 5.0
"""Response time, in seconds, above which an endpoint counts as slow until its next fast response.

Slow endpoints must wait while half of all threads run slow attempts.
"""
MAX_INLINE_SECONDS = 2.0
"""Seconds after which a running attempt counts as slow and no longer as one of `concurrency`.

The attempt continues in its thread, and another attempt can start in a spare thread.
"""
SPARE_THREADS_PER_SLOT = 3
"""Additional threads for each of the `Deliverer.concurrency` attempts that run at once."""
IDLE_EXIT = timedelta(seconds=1)
"""Time for which a loop with nothing to send waits for the next event before it ends."""
POLL_SECONDS = 0.1
"""Longest wait, in seconds, between two checks for new events while attempts are running."""
MAX_EVENTS_PER_READ = 100
"""Most events that are read from the outbox at once."""
MAX_EXCERPT_CHARS = 1_000
"""Characters of a response body that are stored with its attempt."""


class _RunningAttempt(NamedTuple):
    """An attempt that is running, as the loop that started it remembers it."""

    slow: bool
    """True if the previous attempt at the endpoint failed or its response was slow."""
    since: float
    """Start of the attempt, by the monotonic clock."""


@dataclass(frozen=True)
class Deliverer:
    """Delivers every event at least once to each endpoint that subscribes to it.

    At most `concurrency` attempts run at once, but an attempt that runs longer than
    MAX_INLINE_SECONDS no longer counts: another can start in a spare thread. While half of all
    threads run slow attempts, endpoints whose previous attempt failed or was slow must wait. A slow
    receiver therefore does not delay other receivers.

    `link` returns the download URL of a finished export, or None after the file was deleted; it is
    called at each attempt, so that no URL is stored. `random_fraction` supplies the jitter of the
    backoff.
    """

    outbox: Outbox
    endpoints: Endpoints
    store: ExportStore
    sender: Sender
    clock: Clock
    link: Callable[[Export], str | None]
    public_url: str
    concurrency: int = 16
    timeout: timedelta = timedelta(seconds=20)
    random_fraction: Callable[[], float] = field(default=random.random)

    def run(
        self,
        *,
        budget: timedelta,
        is_draining: Callable[[], bool] = lambda: False,
        hand_over: Callable[[], object] = lambda: None,
    ) -> None:
        """Sends webhooks until nothing is due, the budget is spent, or `is_draining` returns True.

        In the last two cases `hand_over` is called first; the method then waits for the running
        attempts, which may take as long as the timeout. Raises StoreUnavailable, after the running
        attempts have ended, if Redis does not answer.
        """
        ends_at = self.clock.monotonic() + budget.total_seconds()
        under_way: dict[Future[None], _RunningAttempt] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="webhook") as pool:
            while True:
                if is_draining() or self.clock.monotonic() >= ends_at:
                    hand_over()
                    return
                done = [one for one in under_way if one.done()]
                for one in done:
                    del under_way[one]
                moved = self.fan_out() + self._start_due(pool, under_way) + len(done)
                if moved:
                    continue
                if under_way:
                    wait(under_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                elif not self.outbox.wait(IDLE_EXIT) and not self.outbox.sweep().ready:
                    return

    def fan_out(self) -> int:
        """Turns the oldest events of the outbox into deliveries; returns the number of events.

        An event that cannot be read is set aside, and counted. Stops early, without an error, at an
        event that another process took.
        """
        events = self.outbox.peek(MAX_EVENTS_PER_READ)
        fanned_out = 0
        registered: dict[str, tuple[Endpoint, ...]] = {}
        for event in events:
            try:
                bodies = self._bodies(event, registered)
            except StoreUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - an error concerns this event alone
                if not self.outbox.set_aside(event, error):
                    break
                fanned_out += 1
                continue
            if not self.outbox.fan_out(event, bodies):
                break  # another process has replaced the event already
            fanned_out += 1
        return fanned_out

    def _bodies(
        self, event: Event, registered: dict[str, tuple[Endpoint, ...]]
    ) -> Mapping[str, bytes]:
        """Maps the ids of the endpoints that must receive the event to its JSON body.

        Empty if the export or endpoint of the event was deleted. `registered` caches the registered
        endpoints by user id; this method adds to it.
        """

        def subscribed(user_id: str) -> list[str]:
            if user_id not in registered:
                registered[user_id] = self.endpoints.registered(user_id)
            return [one.id for one in registered[user_id] if event.type in one.events]

        if not event.of_export:
            subject = self.endpoints.get_many([event.subject_id]).get(event.subject_id)
            if subject is None:
                return {}
            body = messages.endpoint_body(event, subject)
            return {one: body for one in subscribed(subject.user_id) if one != subject.id}
        export = self.store.get(event.subject_id)
        if export is None:
            return {}  # The owner has deleted the export since the event.
        body = messages.export_body(event, export, self.public_url)
        hook = export.spec.webhook
        webhook_url_endpoint = [hook.endpoint_id] if hook and event.type in hook.events else []
        return dict.fromkeys([*webhook_url_endpoint, *subscribed(export.user_id)], body)

    @property
    def _threads(self) -> int:
        return (1 + SPARE_THREADS_PER_SLOT) * self.concurrency

    def _start_due(
        self, pool: ThreadPoolExecutor, under_way: dict[Future[None], _RunningAttempt]
    ) -> int:
        """Starts due attempts while threads are free; returns the number of started attempts.

        `under_way` contains the running attempts; this method adds the started ones.
        """
        started = 0
        while len(under_way) < self._threads:
            now = self.clock.monotonic()
            slow = sum(
                one.slow or now - one.since > MAX_INLINE_SECONDS for one in under_way.values()
            )
            if len(under_way) - slow >= self.concurrency:
                break
            claimed = self.outbox.claim(
                lease=self.timeout + LEASE_MARGIN, slow=2 * slow < self._threads
            )
            if claimed is None:
                break
            under_way[pool.submit(self._attempt, claimed)] = _RunningAttempt(claimed.slow, now)
            started += 1
        return started

    def _attempt(self, claimed: Claimed) -> None:
        with structlog.contextvars.bound_contextvars(
            delivery_id=claimed.delivery.id,
            endpoint_id=claimed.endpoint.id,
            export_id=claimed.delivery.export_id,
            type=claimed.delivery.type,
        ):
            try:
                self._send_and_settle(claimed)
            except StoreUnavailable as error:
                # The lease expires, and the attempt is repeated.
                log.warning("webhook.unsettled", reason=str(error))
            except Exception as error:
                # A defect affects this delivery only.
                log.exception("webhook.crashed")
                self._set_aside(claimed, error)

    def _set_aside(self, claimed: Claimed, error: Exception) -> None:
        try:
            self.outbox.set_aside_attempt(claimed, error)
        except StoreUnavailable as silent:
            log.warning("webhook.unsettled", reason=str(silent))

    def _send_and_settle(self, claimed: Claimed) -> None:
        delivery, endpoint = claimed.delivery, claimed.endpoint
        body = self._body(delivery, endpoint)
        at = self.clock.now()
        headers = signatures.headers(
            [secret.value for secret in endpoint.secrets],
            delivery.message_id,
            int(at.timestamp()),
            body,
        )
        outcome = self.sender.send(endpoint.url, headers, body)
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
        delay = None if is_test else schedule.next_delay(tries, outcome, self.random_fraction)
        reaction = schedule.classify(outcome)
        if outcome.delivered:
            state, gave_up = DeliveryState.DELIVERED, ""
        elif delay is None:
            state, gave_up = DeliveryState.DEAD, _give_up_reason(reaction, tries)
        else:
            state, gave_up = DeliveryState.PENDING, ""
        settled = self.outbox.settle(
            claimed,
            attempt,
            state=state,
            health=_health(delivery, outcome, reaction),
            delay=timedelta(seconds=delay or 0),
            rest=timedelta(seconds=schedule.MIN_REST_SECONDS)
            if reaction is Reaction.THROTTLE
            else timedelta(0),
            gave_up=gave_up,
        )
        bound_log = log.bind(status=outcome.status, tries=tries, seconds=attempt.duration)
        if settled is None:
            bound_log.warning("webhook.lease_lost")
            return
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

    def _body(self, delivery: Delivery, endpoint: Endpoint) -> bytes:
        if not endpoint.include_download_url or delivery.type != event_names.FINISHED:
            return delivery.body
        export = self.store.get(delivery.export_id or "")
        return messages.with_download_url(delivery.body, self.link(export) if export else None)


def _give_up_reason(reaction: Reaction, tries: int) -> str:
    if reaction is Reaction.DISABLE:
        return "the receiver answered 410 Gone"
    return f"attempt {tries} was the last"


def _health(delivery: Delivery, outcome: Outcome, reaction: Reaction) -> str:
    if delivery.type == event_names.TEST:
        return "unknown"
    if outcome.delivered:
        return "slow" if outcome.duration > SLOW_RESPONSE_SECONDS else "well"
    return "gone" if reaction is Reaction.DISABLE else "failed"

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
from exporter.store.base import ExportStore
from exporter.webhooks import attempts, messages, schedule
from exporter.webhooks.deliveries import Delivery
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
        at = self.clock.now()
        sent = attempts.sign(claimed, at, self._link)
        outcome = self.sender.send(claimed.endpoint.url, sent.headers, sent.body)
        attempts.settle(
            self.outbox,
            claimed,
            at,
            outcome,
            health=_health(claimed.delivery, outcome),
            random_fraction=self.random_fraction,
        )

    def _link(self, export_id: str) -> str | None:
        export = self.store.get(export_id)
        return self.link(export) if export else None


def _health(delivery: Delivery, outcome: Outcome) -> str:
    if delivery.type == event_names.TEST:
        return "unknown"
    if outcome.delivered:
        return "slow" if outcome.duration > SLOW_RESPONSE_SECONDS else "well"
    return "gone" if schedule.classify(outcome) is Reaction.DISABLE else "failed"

"""The loop that sends webhooks: turn events into deliveries, make the tries that are due."""

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
from exporter.store.redis.records import Unreadable
from exporter.webhooks import messages, schedule, signatures
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryState
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.endpoints import Endpoint
from exporter.webhooks.outbox import Claimed, Outbox
from exporter.webhooks.schedule import Reaction
from exporter.webhooks.sender import Outcome, Sender

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MARGIN = timedelta(seconds=15)
"""What a lease is longer than a try: for what stands before and after it."""
SLOW_RESPONSE_SECONDS = 5.0
"""Seconds for an answer, from which on an endpoint shares the lane of those that fail."""
MAX_INLINE_SECONDS = 2.0
"""Seconds under way, after which a try gives its place to another and waits in a spare thread."""
SPARE = 3
"""Spare threads for each place."""
IDLE_EXIT = timedelta(seconds=1)
"""How long an idle loop waits for the next event before it ends."""
POLL_SECONDS = 0.1
"""Seconds between two looks for new events while tries are under way."""
BATCH = 100
PUZZLED = timedelta(hours=1)
"""How long an event of a record that this version cannot read is left to workers of another one."""
LONGEST_EXCERPT = 1_000
"""Characters of an answer that are kept with its try."""


class _Try(NamedTuple):
    """A try under way."""

    slow: bool
    """Its endpoint failed or answered late the last time."""
    since: float


@dataclass(frozen=True)
class Deliverer:
    """Tells every event to each endpoint that listens, at least once.

    `concurrency` tries are made at once. Receivers that are slow do not count: a try that takes
    long goes on beside them, and at most half of all threads are for endpoints that failed or
    answered late the last time. So no receiver holds up another one. `link` gives the download URL
    of a finished export, None once the file is gone; it is asked at each try, so that no URL is
    stored.
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
    chance: Callable[[], float] = field(default=random.random)

    def run(
        self,
        *,
        budget: timedelta,
        leaving: Callable[[], bool] = lambda: False,
        hand_over: Callable[[], None] = lambda: None,
    ) -> None:
        """Work until nothing is due, the budget is spent, or `leaving` says so.

        In the last two cases `hand_over` is called before the tries under way are waited for, which
        may take as long as the timeout. Raises StoreUnavailable, when those have ended.
        """
        ends_at = self.clock.monotonic() + budget.total_seconds()
        under_way: dict[Future[None], _Try] = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="webhook") as pool:
            while True:
                if leaving() or self.clock.monotonic() >= ends_at:
                    hand_over()
                    return
                done = [one for one in under_way if one.done()]
                for one in done:
                    del under_way[one]
                moved = self.fan_out() + self._begin(pool, under_way) + len(done)
                if moved:
                    continue
                if under_way:
                    wait(under_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                elif not self.outbox.wait(IDLE_EXIT) and not self.outbox.sweep().ready:
                    return

    def fan_out(self) -> int:
        """Turn the oldest events into deliveries; how many events that were."""
        events = self.outbox.peek(BATCH)
        taken = 0
        registered: dict[str, tuple[Endpoint, ...]] = {}
        for event in events:
            try:
                bodies = self._bodies(event, registered)
            except Unreadable as error:
                told = log.bind(export_id=event.subject_id, type=event.type)
                if self.clock.now() - event.at < PUZZLED:
                    told.warning("webhook.put_off", reason=str(error))
                    self.outbox.put_off(event)
                    break
                told.exception("webhook.untold")
                bodies = {}
            if not self.outbox.fan_out(event, bodies):
                break  # another process is at it
            taken += 1
        return taken

    def _bodies(
        self, event: Event, registered: dict[str, tuple[Endpoint, ...]]
    ) -> Mapping[str, bytes]:
        """What to tell whom; `registered` remembers the endpoints of users."""

        def listening(user_id: str) -> list[str]:
            if user_id not in registered:
                registered[user_id] = self.endpoints.registered(user_id)
            return [one.id for one in registered[user_id] if event.type in one.events]

        if not event.of_export:
            subject = self.endpoints.known([event.subject_id]).get(event.subject_id)
            if subject is None:
                return {}
            body = messages.endpoint_body(event, subject)
            return {one: body for one in listening(subject.user_id) if one != subject.id}
        export = self.store.get(event.subject_id)
        if export is None:
            return {}  # Its owner deleted it since.
        body = messages.export_body(event, export, self.public_url)
        hook = export.spec.webhook
        named = [hook.endpoint_id] if hook and event.type in hook.events else []
        return dict.fromkeys([*named, *listening(export.user_id)], body)

    @property
    def _threads(self) -> int:
        return (1 + SPARE) * self.concurrency

    def _begin(self, pool: ThreadPoolExecutor, under_way: dict[Future[None], _Try]) -> int:
        """Begin what is due, as far as there is room; how many tries that were."""
        begun = 0
        while len(under_way) < self._threads:
            now = self.clock.monotonic()
            slow = sum(
                one.slow or now - one.since > MAX_INLINE_SECONDS for one in under_way.values()
            )
            if len(under_way) - slow >= self.concurrency:
                break
            claimed = self.outbox.claim(lease=self.timeout + MARGIN, slow=2 * slow < self._threads)
            if claimed is None:
                break
            under_way[pool.submit(self._try, claimed)] = _Try(claimed.slow, now)
            begun += 1
        return begun

    def _try(self, claimed: Claimed) -> None:
        with structlog.contextvars.bound_contextvars(
            delivery_id=claimed.delivery.id,
            endpoint_id=claimed.endpoint.id,
            export_id=claimed.delivery.export_id,
            type=claimed.delivery.type,
        ):
            try:
                self._send_and_settle(claimed)
            except StoreUnavailable as error:
                # The lease runs out, and the try is made again.
                log.warning("webhook.unsettled", reason=str(error))
            except Exception:
                # The lease runs out here, too: a defect costs this delivery, none of the others.
                log.exception("webhook.crashed")

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
            excerpt=outcome.excerpt.decode("utf-8", "replace")[:LONGEST_EXCERPT],
        )
        tries = delivery.tries + 1
        delay = self._delay(delivery, tries, outcome)
        reaction = schedule.reaction(outcome)
        if outcome.delivered:
            state, gave_up = DeliveryState.DELIVERED, ""
        elif delay is None:
            state, gave_up = DeliveryState.DEAD, _why(reaction, tries)
        else:
            state, gave_up = DeliveryState.PENDING, ""
        settled = self.outbox.settle(
            claimed,
            attempt,
            state=state,
            health=_health(delivery, outcome, reaction),
            delay=timedelta(seconds=delay or 0),
            rest=timedelta(seconds=schedule.SHORTEST_REST)
            if reaction is Reaction.THROTTLE
            else timedelta(0),
            gave_up=gave_up,
        )
        told = log.bind(status=outcome.status, tries=tries, seconds=attempt.duration)
        if settled is None:
            told.warning("webhook.lease_lost")
            return
        if state is DeliveryState.DELIVERED:
            told.info("webhook.delivered")
        elif state is DeliveryState.DEAD:
            told.warning("webhook.dead", reason=outcome.error, gave_up=gave_up)
        else:
            told.info("webhook.failed", reason=outcome.error, retry_in=round(delay or 0, 1))
        if settled.warned:
            log.warning("endpoint.failing", user_id=endpoint.user_id)
        if settled.disabled is not None:
            log.warning("endpoint.disabled", user_id=endpoint.user_id, because=settled.disabled)

    def _body(self, delivery: Delivery, endpoint: Endpoint) -> bytes:
        if not endpoint.include_download_url or delivery.type != event_names.FINISHED:
            return delivery.body
        export = self.store.get(delivery.export_id or "")
        return messages.with_download_url(delivery.body, self.link(export) if export else None)

    def _delay(self, delivery: Delivery, tries: int, outcome: Outcome) -> float | None:
        if delivery.type == event_names.TEST:
            return None
        return schedule.next_delay(tries, outcome, self.chance)


def _why(reaction: Reaction, tries: int) -> str:
    if reaction is Reaction.DISABLE:
        return "the receiver answered that it is gone for good"
    return f"try {tries} was the last"


def _health(delivery: Delivery, outcome: Outcome, reaction: Reaction) -> str:
    if delivery.type == event_names.TEST:
        return "unknown"
    if outcome.delivered:
        return "slow" if outcome.duration > SLOW_RESPONSE_SECONDS else "well"
    return "gone" if reaction is Reaction.DISABLE else "failed"

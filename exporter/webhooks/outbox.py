"""Webhook outbox and delivery queue in Redis, as used by the webhook workers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any, cast

import msgspec
import redis
import structlog

from exporter.core import limits
from exporter.core.events import EVENTS, TERMINAL_EVENTS, Event
from exporter.errors import ExporterError
from exporter.store import codec
from exporter.store.redis import errors, records, script_loader
from exporter.store.redis.calls import Call
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.webhooks import delivery_store, endpoint_store
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryState
from exporter.webhooks.delivery_store import DELIVERY_RETENTION
from exporter.webhooks.endpoint_store import URL_ENDPOINT_TTL
from exporter.webhooks.endpoints import DisableReason, Endpoint

log: structlog.stdlib.BoundLogger = structlog.get_logger()

WARN_AFTER = timedelta(days=1)
"""Duration of consecutive failures after which `endpoint.failing` is emitted."""
DISABLE_AFTER = timedelta(days=5)
"""Duration of consecutive failures after which an endpoint is disabled."""
MAX_FAILURE_GAP = timedelta(days=2)
"""Longest time between two failures that belong to the same run of consecutive failures.

A failure after a longer gap starts a new run. Two attempts of one webhook are never further apart.
"""
UNREADABLE_WAIT = timedelta(seconds=30)
"""Time between two attempts at a delivery that a worker cannot read."""
LISTENER_LEASE = timedelta(seconds=30)
"""Time for which a taken delivery waits for its result before it is due again."""
MAX_LOST_WORKERS = 10
"""Number of consecutive attempts without a result after which a delivery is dead.

An attempt has no result if its worker is lost, for example killed.
"""


class Claimed(msgspec.Struct, frozen=True):
    """A claimed delivery: its worker may make one attempt until the lease expires."""

    delivery: Delivery
    endpoint: Endpoint
    nonce: str
    slow: bool
    """True if the previous attempt at the endpoint failed or its response was slow."""


class NoListener(ExporterError):
    """The user has no listener with this id; its time may be over."""


class Settled(msgspec.Struct, frozen=True):
    """Change of the endpoint that was caused by the result of an attempt.

    `warned` is true if the event `endpoint.failing` was emitted; `disabled` is the reason for which
    the endpoint was disabled, or None if it was not.
    """

    warned: bool = False
    disabled: DisableReason | None = None


class SweptDeliveries(msgspec.Struct, frozen=True):
    """Result of one sweep."""

    expired: int
    """Number of expired leases; their deliveries are due again, dead, or deleted as obsolete."""
    ready: int
    """1 if an event is in the outbox or a delivery is due now, else 0."""


class Outbox:
    """Transactional outbox and queue of webhook deliveries, with at-least-once delivery.

    A single script replaces an event by its deliveries, and a delivery stays stored until it is
    delivered or dead, so no event is lost. Any number of processes may share the outbox. All
    methods raise StoreUnavailable if Redis does not answer. They are safe to repeat, because the
    client's retries may send a command twice.
    """

    def __init__(
        self,
        client: redis.Redis,
        names: KeyNames = DEFAULT,
        *,
        keep: timedelta = DELIVERY_RETENTION,
        url_endpoint_ttl: timedelta = URL_ENDPOINT_TTL,
        user_limit: int = limits.USER_ATTEMPTS.default,
        kept_deliveries: int = limits.KEPT_DELIVERIES.default,
    ) -> None:
        self._client, self._names = client, names
        self._user_limit = user_limit
        self._kept_deliveries = kept_deliveries
        self._keep = records.millis(keep)
        self._url_endpoint_ttl = records.millis(url_endpoint_ttl)
        load = partial(script_loader.load, client, names, package=__package__)
        self._fan_out = load("fan_out")
        self._aside_delivery = load("set_aside_delivery")
        self._aside = load("set_aside_event")
        self._claim = load("claim_delivery")
        self._settle = load("settle_delivery")
        self._sweep = load("sweep_deliveries")
        self._take = load("take_delivery")

    def peek(self, limit: int = 100) -> tuple[Event, ...]:
        """Returns the oldest events of the outbox, oldest first, without removing them.

        An entry that is no event of this version is set aside when it is the oldest.
        """
        with errors.translate_errors():
            entries = cast("list[bytes]", self._client.lrange(self._names("outbox"), 0, limit - 1))
        events: list[Event] = []
        for entry in entries:
            try:
                events.append(_parse_event(entry))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with an entry
                if events:
                    break  # only the oldest entry can be set aside
                self._set_aside(entry, log.bind(entry=repr(entry[:200])), error)
        return tuple(events)

    def fan_out(self, event: Event, bodies: Mapping[str, bytes]) -> bool:
        """Replaces the oldest event by one delivery for each endpoint in `bodies`; returns True.

        `bodies` maps endpoint ids to JSON bodies; endpoints that are disabled or deleted are
        skipped. Returns False, and changes nothing, if `event` is no longer the oldest event.
        """
        entries: list[str | bytes] = []
        for endpoint_id, body in bodies.items():
            entries += [endpoint_id, body]
        count: int = self._fan_out(
            event.message_id,
            int(event.type in TERMINAL_EVENTS),
            self._keep,
            self._url_endpoint_ttl,
            self._kept_deliveries,
            *entries,
        )
        return count >= 0

    def set_aside(self, event: Event, error: Exception) -> bool:
        """Sets the event aside because of an error, so that the outbox goes on without it.

        The event is tried again up to ten times, for another 85 minutes, because a sender of
        another version may read its record; it is then dropped. Returns False, and changes nothing,
        if `event` is no longer the oldest event.
        """
        return self._set_aside(
            event.message_id, log.bind(export_id=event.subject_id, type=event.type), error
        )

    def _set_aside(
        self, mark: str | bytes, bound_log: structlog.stdlib.BoundLogger, error: Exception
    ) -> bool:
        tries: int = self._aside(mark)
        if tries > 0:
            bound_log.warning("webhook.event_set_aside", tries=tries, reason=repr(error))
        elif tries < 0:
            bound_log.error("webhook.event_dropped", tries=-tries, reason=repr(error))
        return tries != 0

    def claim(self, *, lease: timedelta, slow: bool = True) -> Claimed | None:
        """Returns a due delivery of the user who has waited longest, claimed for one attempt.

        Of that user's endpoints, the one that has waited longest is served. Returns None if no
        delivery can be claimed now. The attempts that run at once are limited: `user_limit` for
        each user, 4 for each endpoint, and 1 for an endpoint with consecutive failures. With `slow`
        false, endpoints whose previous attempt failed or was slow are skipped.
        """
        while True:
            nonce = secrets.token_hex(8)
            answer = self._claim(
                nonce, records.micros(lease), self._keep, int(slow), self._user_limit
            )
            if len(answer) < 4:
                return None
            delivery_id, delivery, endpoint, time = answer
            if not endpoint:
                return None  # The endpoint was deleted during a retry; the sweep ends this lease.
            try:
                return _read_claimed(delivery_id, delivery, endpoint, time, nonce)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a field
                self._set_aside_delivery(delivery_id.decode(), nonce, error)

    def take_call(self, endpoint_id: str, user_id: str) -> Call[Claimed | None]:
        """Returns the call that claims a due delivery of a listener; its result may be None.

        The lease is LISTENER_LEASE, and the TTL of the listener starts again. The call raises
        NoListener if the user has no such listener.
        """
        nonce = secrets.token_hex(8)

        def read(answer: list[Any]) -> Claimed | None:
            if answer == [b"missing"]:
                raise NoListener(f"no listener {endpoint_id}")
            if not answer:
                return None
            delivery_id, delivery, endpoint, time = answer
            return _read_claimed(delivery_id, delivery, endpoint, time, nonce)

        lease = records.micros(LISTENER_LEASE)
        return self._take.call(endpoint_id, user_id, nonce, lease, self._keep).then(read)

    def set_aside_attempt(self, claimed: Claimed, error: Exception) -> None:
        """Ends an attempt that failed because of an error of this program.

        The delivery is tried again after UNREADABLE_WAIT, because a sender of another version may
        succeed. After MAX_LOST_WORKERS attempts without a result it is dead.
        """
        self._set_aside_delivery(claimed.delivery.id, claimed.nonce, error)

    def _set_aside_delivery(self, delivery_id: str, nonce: str, error: Exception) -> None:
        reason = f"the delivery could not be sent: {error!r}"
        tries = self._aside_delivery(
            delivery_id,
            nonce,
            records.micros(UNREADABLE_WAIT),
            MAX_LOST_WORKERS,
            self._keep,
            codec.clean(reason),
        )
        log.error("webhook.set_aside", delivery_id=delivery_id, tries=tries, reason=reason)

    def settle(
        self,
        claimed: Claimed,
        attempt: Attempt,
        *,
        state: DeliveryState,
        health: str,
        delay: timedelta = timedelta(0),
        rest: timedelta = timedelta(0),
        gave_up: str = "",
    ) -> Settled | None:
        """Records the result of an attempt, and returns the change of the endpoint that it caused.

        Returns None, and changes nothing, if the lease was lost. `state` is the new state:
        delivered, dead, or pending with the next attempt after `delay`. `rest` is the time during
        which the endpoint is not served. `health` is the verdict about the endpoint: `well`,
        `slow`, `failed`, `gone` or `unknown`. An endpoint is disabled if it is gone, or has failed
        for DISABLE_AFTER; events inform the user's other endpoints.
        """
        answer: bytes = self._settle(
            claimed.delivery.id,
            claimed.nonce,
            state,
            msgspec.json.encode(attempt),
            records.micros(delay),
            records.micros(rest),
            health,
            gave_up,
            self._keep,
            records.micros(WARN_AFTER),
            records.micros(DISABLE_AFTER),
            records.micros(MAX_FAILURE_GAP),
        )
        change = answer.decode()
        if not change:
            return None
        kind, _, reason = change.partition(" ")
        return Settled(
            warned=change == "failing",
            disabled=DisableReason(reason) if kind == "disabled" else None,
        )

    def sweep(self, *, limit: int = 100) -> SweptDeliveries:
        """Makes deliveries with an expired lease due again; returns counts of the result.

        After MAX_LOST_WORKERS expired leases in a row, a delivery becomes dead instead.
        """
        expired, ready = self._sweep(limit, self._keep, MAX_LOST_WORKERS)
        return SweptDeliveries(expired=expired, ready=ready)

    def wait(self, timeout: timedelta) -> bool:
        """Waits for a wake-up of the webhook workers, and returns True when one arrives.

        Returns False if no wake-up arrives within `timeout`. Scripts add a wake-up when they add an
        event to the outbox, or when they make deliveries due at a user's request.
        """
        with errors.translate_errors():
            return (
                self._client.blpop([self._names("ring")], timeout=timeout.total_seconds())
                is not None
            )


def _read_claimed(
    delivery_id: bytes, delivery: list[bytes], endpoint: list[bytes], time: bytes, nonce: str
) -> Claimed:
    """Converts the answer to a claim. Raises any error for damaged fields."""
    delivery_fields, endpoint_fields = records.pairs(delivery), records.pairs(endpoint)
    return Claimed(
        delivery=delivery_store.read(delivery_id.decode(), delivery_fields),
        endpoint=endpoint_store.read(
            delivery_fields[b"endpoint"].decode(), endpoint_fields, records.moment(time)
        ),
        nonce=nonce,
        slow=b"slow" in endpoint_fields,
    )


def _parse_event(entry: bytes) -> Event:
    kind, time, sequence, progress, rows, subject = entry.decode().split(" ", 5)
    at = records.moment(time.encode())
    if kind not in EVENTS:
        raise ValueError(f"unknown event {kind!r}")
    return Event(kind, at, int(sequence), float(progress), int(rows), subject)

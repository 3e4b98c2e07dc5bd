"""The senders' side of webhooks, in Redis: what happened, who is told next, and what came of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

import msgspec
import redis

from exporter.core.events import TERMINAL_EVENTS, Event
from exporter.store.redis import errors, records, script_loader
from exporter.webhooks import delivery_store, endpoint_store
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryState
from exporter.webhooks.delivery_store import KEEP
from exporter.webhooks.endpoint_store import NAMED_FOR
from exporter.webhooks.endpoints import DisableReason, Endpoint

WARN_AFTER = timedelta(days=1)
"""How long an endpoint fails before its owner hears of it."""
DISABLE_AFTER = timedelta(days=5)
"""How long it fails before it is disabled."""
FORGIVE_AFTER = timedelta(days=2)
"""Without a failure for that long, the next one is the first. Tries of one webhook are at most that
far apart."""
MOST_LOST = 10
"""Workers that a delivery may lose in a row before it is given up."""


class Claimed(msgspec.Struct, frozen=True):
    """The right to make one try until the lease is over."""

    delivery: Delivery
    endpoint: Endpoint
    nonce: str
    slow: bool
    """The endpoint failed or answered late the last time."""


class Settled(msgspec.Struct, frozen=True):
    """What a settled try did to its endpoint."""

    warned: bool = False
    disabled: DisableReason | None = None


class SweptDeliveries(msgspec.Struct, frozen=True):
    """What one sweep found."""

    expired: int
    """Leases that ran out; their deliveries are due again."""
    ready: int
    """1 if an event waits or a delivery is due now, else 0."""


class Outbox:
    """Loses no event: each stays until its deliveries are recorded, in one step, and each of those
    until it is delivered or given up.

    Any number of processes may share it. All methods raise StoreUnavailable, and may be sent twice
    by the client's retries.
    """

    def __init__(
        self, client: redis.Redis, *, keep: timedelta = KEEP, named_for: timedelta = NAMED_FOR
    ) -> None:
        self._client = client
        self._keep = records.millis(keep)
        self._named_for = records.millis(named_for)
        self._fan_out = script_loader.load_from_package(client, __package__, "fan_out")
        self._put_off = script_loader.load_from_package(client, __package__, "put_off")
        self._claim = script_loader.load_from_package(client, __package__, "claim_delivery")
        self._settle = script_loader.load_from_package(client, __package__, "settle_delivery")
        self._sweep = script_loader.load_from_package(client, __package__, "sweep_deliveries")

    def peek(self, limit: int = 100) -> tuple[Event, ...]:
        """The events that wait longest, oldest first; none is removed."""
        with errors.translate_errors():
            entries = cast("list[bytes]", self._client.lrange("exporter:outbox", 0, limit - 1))
        return tuple(_event(entry) for entry in entries)

    def fan_out(self, event: Event, bodies: Mapping[str, bytes]) -> bool:
        """Replace the oldest event by a delivery for each of these endpoints, unless it is disabled
        meanwhile; False, and nothing is changed, if the event is not the oldest any more."""
        arguments: list[str | bytes | int] = [
            event.message_id,
            int(event.type in TERMINAL_EVENTS),
            self._keep,
            self._named_for,
        ]
        for endpoint_id, body in bodies.items():
            arguments += [endpoint_id, body]
        with errors.translate_errors():
            return cast("int", self._fan_out(args=arguments)) >= 0

    def put_off(self, event: Event) -> None:
        """Let the events behind the oldest pass; nothing is changed if the event is not the oldest
        any more."""
        with errors.translate_errors():
            self._put_off(args=[event.message_id])

    def claim(self, *, lease: timedelta, slow: bool = True) -> Claimed | None:
        """The delivery that is due, of the endpoint that waits longest to be served; None if none
        is.

        An endpoint is tried four times at once, once while it fails. With `slow` false, endpoints
        that failed or answered late the last time are passed over.
        """
        nonce = secrets.token_hex(8)
        with errors.translate_errors():
            answer = cast(
                "list[Any]",
                self._claim(args=[nonce, records.micros(lease), self._keep, int(slow)]),
            )
        if len(answer) < 4:
            return None
        delivery_id, delivery, endpoint, time = answer
        if not endpoint:
            return None  # It was deleted while this call was sent again: the sweep comes for it.
        known = records.pairs(delivery)
        whom = records.pairs(endpoint)
        return Claimed(
            delivery=delivery_store.read(delivery_id.decode(), known),
            endpoint=endpoint_store.read(known[b"endpoint"].decode(), whom, records.moment(time)),
            nonce=nonce,
            slow=b"slow" in whom,
        )

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
        """Record a try; None, and nothing is changed, if the lease was over and is another's.

        `state`: delivered, dead, or pending for the next try after `delay`. `rest`: how long the
        endpoint is left alone. `health`, what the try says of the endpoint: `well`, `slow`,
        `failed`, `gone`, `unknown`. One that has failed for DISABLE_AFTER is disabled, and so is
        one that is gone; events tell the user's other endpoints.
        """
        with errors.translate_errors():
            became = cast(
                "bytes",
                self._settle(
                    args=[
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
                        records.micros(FORGIVE_AFTER),
                    ]
                ),
            ).decode()
        if not became:
            return None
        what, _, because = became.partition(" ")
        return Settled(
            warned=became == "failing",
            disabled=DisableReason(because) if what == "disabled" else None,
        )

    def sweep(self, *, limit: int = 100) -> SweptDeliveries:
        """Make deliveries whose lease is over due again."""
        with errors.translate_errors():
            answer = self._sweep(args=[limit, self._keep, MOST_LOST])
        expired, ready = cast("list[int]", answer)
        return SweptDeliveries(expired=expired, ready=ready)

    def wait(self, timeout: timedelta) -> bool:
        """Wait until something happens that webhooks tell of; False if nothing did in time."""
        with errors.translate_errors():
            return (
                self._client.blpop(["exporter:ring"], timeout=timeout.total_seconds()) is not None
            )


def _event(entry: bytes) -> Event:
    kind, time, sequence, progress, rows, subject = entry.decode().split(" ", 5)
    at = records.moment(time.encode())
    return Event(kind, at, int(sequence), float(progress), int(rows), subject)

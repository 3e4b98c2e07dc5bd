"""Stores webhook deliveries in Redis: reads them, sends them again, and sends test webhooks."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

import msgspec
import redis
import structlog

from exporter.core import limits
from exporter.store import list_cursors
from exporter.store.redis import errors, records, script_loader
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.webhooks import messages
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryPage, DeliveryState
from exporter.webhooks.endpoints import Endpoint, EndpointDisabled

log: structlog.stdlib.BoundLogger = structlog.get_logger()

DELIVERY_RETENTION = timedelta(days=30)
"""Default retention of a delivery after it is delivered or dead."""
MAX_RECOVERED = 10_000
"""Number of deliveries after which one call of `recover` stops."""
_RECOVER_BATCH = 200
MAX_SCANNED = 1_000
"""Entries of a list after which a page ends, however few of them are in the requested state."""
_SCAN_BATCH = 100

_attempt = msgspec.json.Decoder(Attempt)


class Deliveries:
    """Reads webhook deliveries of all users, and sends them again on request.

    The caller must check that an id belongs to the user. All methods raise StoreUnavailable if
    Redis does not answer. They are safe to repeat, because the client's retries may send a command
    twice.
    """

    def __init__(
        self,
        client: redis.Redis,
        names: KeyNames = DEFAULT,
        *,
        keep: timedelta = DELIVERY_RETENTION,
        kept_deliveries: int = limits.KEPT_DELIVERIES.default,
    ) -> None:
        self._client, self._names = client, names
        self._kept_deliveries = kept_deliveries
        self._keep = keep
        load = partial(script_loader.load, client, names, package=__package__)
        self._redo = load("redo")
        self._send_test = load("send_test")

    def find(self, delivery_id: str) -> Delivery | None:
        """Returns the delivery with this id; None if there is none or its retention is over."""
        return self._get_many([delivery_id]).get(delivery_id)

    def of_export(
        self,
        export_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        state: DeliveryState | None = None,
    ) -> DeliveryPage:
        """Returns a page of the deliveries of one export's events to all endpoints, newest first.

        With `state`, only deliveries in that state. A page that has a cursor may have fewer
        deliveries than `limit`, or none, because it ends after MAX_SCANNED entries. Raises
        ValueError for a malformed cursor.
        """
        return self._page(self._names("told", export_id), limit, cursor, state)

    def of_endpoint(
        self,
        endpoint_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        state: DeliveryState | None = None,
    ) -> DeliveryPage:
        """Returns a page of the deliveries to one endpoint, newest first; see `of_export`."""
        return self._page(self._names("deliveries", endpoint_id), limit, cursor, state)

    def dead(self, user_id: str, *, limit: int, cursor: str | None = None) -> DeliveryPage:
        """Returns a page of a user's dead deliveries to any endpoint, the most recently dead first.

        Raises ValueError for a malformed cursor.
        """
        return self._page(self._names("dead", user_id), limit, cursor, DeliveryState.DEAD)

    def redeliver(self, delivery_id: str) -> Delivery | None:
        """Makes a delivery pending and due now, with the same `webhook-id`, and returns it.

        Returns None if there is no delivery with this id. A delivery in any state is sent again,
        but if an attempt is running, the delivery is returned unchanged. Raises EndpointDisabled if
        the endpoint is disabled or deleted.
        """
        delivery = self.find(delivery_id)
        if delivery is None:
            return None
        self._redo_deliveries(delivery.endpoint_id, [delivery_id])
        return self.find(delivery_id)

    def recover(self, endpoint_id: str, since: datetime) -> int:
        """Makes the failed deliveries of an endpoint pending and due now; returns their number.

        Included are deliveries created at `since` or later that are dead, or pending after at least
        one failed attempt. The oldest are recovered first, and the method stops when MAX_RECOVERED
        is reached. Raises EndpointDisabled if the endpoint is disabled or deleted.
        """
        key = self._names("deliveries", endpoint_id)
        after = f"{(since.astimezone(UTC) - records.EPOCH) // timedelta(microseconds=1)}"
        recovered = 0
        while recovered < MAX_RECOVERED:
            with errors.translate_errors():
                found = cast(
                    "list[tuple[bytes, float]]",
                    self._client.zrangebyscore(
                        key, after, "+inf", start=0, num=_RECOVER_BATCH, withscores=True
                    ),
                )
            recovered += self._redo_deliveries(
                endpoint_id, [one.decode() for one, _ in found], before=recovered
            )
            if len(found) < _RECOVER_BATCH:
                break
            after = f"({int(found[-1][1])}"
        return recovered

    def send_test(self, endpoint: Endpoint) -> Delivery:
        """Creates a delivery of `webhook.test` that is due now, and returns the delivery.

        A disabled endpoint receives it, too. There is only one attempt; its result can be read from
        the delivery, and does not change the endpoint's health. Raises EndpointDisabled if the
        endpoint is deleted.
        """
        message_id = f"msg_test_{secrets.token_hex(12)}"
        body = messages.test_body(endpoint, datetime.now(UTC))
        self._send_test(
            endpoint.id, message_id, body, records.millis(self._keep), self._kept_deliveries
        )
        delivery = self.find(f"{message_id}.{endpoint.id}")
        if delivery is None:
            raise EndpointDisabled(f"endpoint {endpoint.id} is deleted, so it cannot be tested")
        return delivery

    def _redo_deliveries(
        self, endpoint_id: str, ids: Sequence[str], *, before: int | None = None
    ) -> int:
        """Makes deliveries due, with `before` only failed ones, and returns their number.

        `before` is the number of deliveries that the same recovery made due already.
        """
        most = MAX_RECOVERED - (before or 0)
        only_failed = int(before is not None)
        redone: int = self._redo(endpoint_id, only_failed, most, before or 0, *ids)
        if redone < 0:
            raise EndpointDisabled(
                f"endpoint {endpoint_id} is disabled or deleted, so nothing is sent to it: enable "
                "it first"
            )
        return redone

    def _page(
        self, key: str, limit: int, cursor: str | None, state: DeliveryState | None = None
    ) -> DeliveryPage:
        """Returns the page after the cursor of the deliveries in that state; None: any state.

        Scans MAX_SCANNED entries at most, so a page with a cursor may have few deliveries or none.
        Entries of expired deliveries are skipped: finished deliveries have a TTL, their list
        entries do not.
        """
        before = f"({list_cursors.decode(cursor)}" if cursor is not None else "+inf"
        found: list[tuple[int, str]] = []
        scanned, place = 0, None
        while len(found) <= limit and scanned < MAX_SCANNED:
            with errors.translate_errors():
                entries = cast(
                    "list[tuple[bytes, float]]",
                    self._client.zrevrangebyscore(
                        key, before, "-inf", start=0, num=_SCAN_BATCH, withscores=True
                    ),
                )
            found += self._in_state(entries, state)
            scanned += len(entries)
            if len(entries) < _SCAN_BATCH:
                place = None
                break
            place = int(entries[-1][1])
            before = f"({place}"
        page = found[:limit]
        if len(found) > limit:
            place = page[-1][0]
        known = self._get_many([delivery_id for _, delivery_id in page])
        return DeliveryPage(
            deliveries=tuple(known.values()),
            next_cursor=list_cursors.encode(place) if place is not None else None,
        )

    def _in_state(
        self, entries: Sequence[tuple[bytes, float]], state: DeliveryState | None
    ) -> list[tuple[int, str]]:
        """Returns the place and the id of each entry whose delivery exists and is in that state."""
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            for delivery_id, _ in entries:
                pipe.hget(self._names("delivery", delivery_id.decode()), "state")
            states = cast("list[bytes | None]", pipe.execute())
        return [
            (int(place), delivery_id.decode())
            for (delivery_id, place), one in zip(entries, states, strict=True)
            if one is not None and state in (None, one.decode("utf-8", "replace"))
        ]

    def _get_many(self, ids: Sequence[str]) -> Mapping[str, Delivery]:
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            for one in ids:
                pipe.hgetall(self._names("delivery", one))
            found = cast("list[dict[bytes, bytes]]", pipe.execute())
        known: dict[str, Delivery] = {}
        for one, fields in zip(ids, found, strict=True):
            try:
                if fields:
                    known[one] = read(one, fields)
            except Exception as error:  # noqa: BLE001 - a damaged delivery is left out
                log.warning("delivery.unreadable", delivery_id=one, reason=repr(error))
        return known


def read(delivery_id: str, fields: Mapping[bytes, bytes]) -> Delivery:
    """Converts the fields of a delivery's Redis hash to a Delivery."""
    attempts = fields.get(b"attempts")
    gave_up = fields.get(b"gave_up")
    return Delivery(
        id=delivery_id,
        message_id=fields[b"message"].decode(),
        endpoint_id=fields[b"endpoint"].decode(),
        user_id=fields[b"user"].decode(),
        export_id=fields[b"export"].decode() or None,
        type=fields[b"type"].decode(),
        sequence=int(fields[b"sequence"]),
        body=fields[b"body"],
        state=DeliveryState(fields[b"state"].decode()),
        tries=int(fields[b"tries"]),
        attempts=tuple(map(_attempt.decode, attempts.split(b"\n"))) if attempts else (),
        created_at=records.moment(fields[b"created_at"]),
        next_at=records.moment_or_none(fields.get(b"next_at")),
        finished_at=records.moment_or_none(fields.get(b"finished_at")),
        gave_up=gave_up.decode() if gave_up else None,
    )

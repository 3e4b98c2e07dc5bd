"""The log of deliveries, in Redis: what was sent to whom, and sending it again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec
import redis

from exporter.store import list_cursors
from exporter.store.redis import errors, records, script_loader
from exporter.webhooks import messages
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryPage, DeliveryState
from exporter.webhooks.endpoints import Endpoint, EndpointDisabled

KEEP = timedelta(days=30)
"""How long a delivery is kept once it is delivered or given up; settings may say otherwise."""
MOST_RECOVERED = 10_000
_BATCH = 200

_attempt = msgspec.json.Decoder(Attempt)


class Deliveries:
    """What was sent, or is to be, with every try. Whose it is, is for the caller to check.

    All methods raise StoreUnavailable, and may be sent twice by the client's retries.
    """

    def __init__(self, client: redis.Redis, *, keep: timedelta = KEEP) -> None:
        self._client = client
        self._keep = keep
        self._redo = script_loader.load_from_package(client, __package__, "redo")
        self._send_test = script_loader.load_from_package(client, __package__, "send_test")

    def find(self, delivery_id: str) -> Delivery | None:
        """The delivery; None if there is none, or it is past its retention."""
        return self._known([delivery_id]).get(delivery_id)

    def of_export(self, export_id: str, *, limit: int, cursor: str | None = None) -> DeliveryPage:
        """What was told of one export, newest first. Raises ValueError for a cursor not made
        here."""
        return self._page(f"exporter:told:{export_id}", limit, cursor)

    def of_endpoint(
        self, endpoint_id: str, *, limit: int, cursor: str | None = None
    ) -> DeliveryPage:
        """What was sent to one endpoint, newest first. Raises ValueError for a cursor not made
        here."""
        return self._page(f"exporter:deliveries:{endpoint_id}", limit, cursor)

    def dead(self, user_id: str, *, limit: int, cursor: str | None = None) -> DeliveryPage:
        """What was given up, of all endpoints of a user, the latest first. Raises ValueError for a
        cursor not made here."""
        return self._page(f"exporter:dead:{user_id}", limit, cursor)

    def redeliver(self, delivery_id: str) -> Delivery | None:
        """Send it again now, whatever became of it, under the same `webhook-id`; None if there is
        no such delivery. One that is under way is left alone.

        Raises EndpointDisabled if its endpoint is disabled or deleted.
        """
        delivery = self.find(delivery_id)
        if delivery is None:
            return None
        self._again(delivery.endpoint_id, [delivery_id], failed=False)
        return self.find(delivery_id)

    def recover(self, endpoint_id: str, since: datetime) -> int:
        """Send again, now, all that failed of what was first to be sent since that time, the oldest
        MOST_RECOVERED of it; how many that is.

        Failed: given up, or waiting for another try. Raises EndpointDisabled.
        """
        key = f"exporter:deliveries:{endpoint_id}"
        after = f"{(since.astimezone(UTC) - records.EPOCH) // timedelta(microseconds=1)}"
        recovered = 0
        while recovered < MOST_RECOVERED:
            with errors.translate_errors():
                found = cast(
                    "list[tuple[bytes, float]]",
                    self._client.zrangebyscore(
                        key, after, "+inf", start=0, num=_BATCH, withscores=True
                    ),
                )
            recovered += self._again(endpoint_id, [one.decode() for one, _ in found], failed=True)
            if len(found) < _BATCH:
                break
            after = f"({int(found[-1][1])}"
        return recovered

    def test(self, endpoint: Endpoint) -> Delivery:
        """Send `webhook.test` to an endpoint, once and at once, even if it is disabled.

        What becomes of it is in the delivery, and says nothing of the endpoint's health.
        """
        message_id = f"msg_test_{secrets.token_hex(12)}"
        body = messages.test_body(endpoint, datetime.now(UTC))
        with errors.translate_errors():
            self._send_test(args=[endpoint.id, message_id, body, records.millis(self._keep)])
        delivery = self.find(f"{message_id}.{endpoint.id}")
        if delivery is None:
            raise EndpointDisabled(f"endpoint {endpoint.id} is deleted: there is nobody to test")
        return delivery

    def _again(self, endpoint_id: str, ids: Sequence[str], *, failed: bool) -> int:
        with errors.translate_errors():
            redone = cast("int", self._redo(args=[endpoint_id, int(failed), *ids]))
        if redone < 0:
            raise EndpointDisabled(
                f"endpoint {endpoint_id} is disabled or deleted, so nothing is sent to it: enable "
                "it first"
            )
        return redone

    def _page(self, key: str, limit: int, cursor: str | None) -> DeliveryPage:
        before = f"({list_cursors.decode(cursor)}" if cursor is not None else "+inf"
        found: list[tuple[int, Delivery]] = []
        while len(found) <= limit:
            with errors.translate_errors():
                entries = cast(
                    "list[tuple[bytes, float]]",
                    self._client.zrevrangebyscore(
                        key, before, "-inf", start=0, num=limit + 1, withscores=True
                    ),
                )
            if not entries:
                break
            known = self._known([one.decode() for one, _ in entries])
            # Deliveries expire by themselves, their entries here do not.
            found += [
                (int(place), known[one.decode()]) for one, place in entries if one.decode() in known
            ]
            before = f"({int(entries[-1][1])}"
        page = found[:limit]
        return DeliveryPage(
            deliveries=tuple(delivery for _, delivery in page),
            next_cursor=list_cursors.encode(page[-1][0]) if page and len(found) > limit else None,
        )

    def _known(self, ids: Sequence[str]) -> Mapping[str, Delivery]:
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            for one in ids:
                pipe.hgetall(f"exporter:delivery:{one}")
            found = cast("list[dict[bytes, bytes]]", pipe.execute())
        return {one: read(one, fields) for one, fields in zip(ids, found, strict=True) if fields}


def read(delivery_id: str, fields: Mapping[bytes, bytes]) -> Delivery:
    """A delivery from its fields."""
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

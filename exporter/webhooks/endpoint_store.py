"""Stores webhook endpoints in Redis.

A registered endpoint receives events of all exports of its user. A `webhook_url` endpoint is
created for the `webhook_url` of an export, and receives events of the exports that name that URL.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast

import redis
import structlog

from exporter.core import events as event_names
from exporter.core import limits
from exporter.store import codec
from exporter.store.redis import errors, records, script_loader
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.webhooks import signatures
from exporter.webhooks.endpoints import DisableReason, Endpoint, Secret, TooManyEndpoints

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_REGISTERED_ENDPOINTS = limits.REGISTERED_ENDPOINTS.default
"""Most registered endpoints of one user; each event is copied for every endpoint."""
MAX_LISTED_URL_ENDPOINTS = 100
"""Most `webhook_url` endpoints in a list. A user may have more, one for each URL."""
DEFAULT_ROTATION_GRACE = timedelta(hours=24)
"""Default time for which a replaced secret still signs beside the new secret."""
MAX_ROTATION_GRACE = timedelta(days=7)
"""Longest time for which a replaced secret may still sign."""
URL_ENDPOINT_TTL = timedelta(days=37)
"""Default TTL of a `webhook_url` endpoint.

The TTL restarts when an export names the URL and when an event is copied for the endpoint. It
covers the longest duration of an export plus the retention of its record.
"""


class Endpoints:
    """Stores the webhook endpoints of all users.

    Methods that take a `user_id` read and change only endpoints of that user. A change of an
    endpoint applies to all later events. All methods raise StoreUnavailable if Redis does not
    answer. They are safe to repeat, because the client's retries may send a command twice.
    """

    def __init__(
        self,
        client: redis.Redis,
        names: KeyNames = DEFAULT,
        *,
        url_endpoint_ttl: timedelta = URL_ENDPOINT_TTL,
    ) -> None:
        self._client, self._names = client, names
        self._url_endpoint_ttl = url_endpoint_ttl
        load = partial(script_loader.load, client, names, package=__package__)
        self._make = load("make_endpoint")
        self._rotate = load("rotate_secret")
        self._switch = load("switch_endpoint")

    def create(
        self,
        user_id: str,
        url: str,
        *,
        events: Sequence[str] = event_names.DEFAULT_EVENTS,
        ordered: bool = False,
        include_download_url: bool = False,
        description: str = "",
        listener_ttl: int | None = None,
    ) -> Endpoint:
        """Registers an endpoint for events of all exports of a user from now on, and returns it.

        The caller must check the URL with the address guard first. With `listener_ttl` and an empty
        URL, the endpoint is a listener. Raises ValueError for unknown events, and TooManyEndpoints
        if the user has MAX_REGISTERED_ENDPOINTS endpoints already.
        """
        checked = event_names.check_events(events)
        fields = {
            "events": script_loader.padded_words(checked),
            "secrets": f"0 {signatures.new_secret()}",
            "description": codec.clean(description),
            **({"ordered": "1"} if ordered else {}),
            **({"download": "1"} if include_download_url else {}),
            **({"listener": str(listener_ttl)} if listener_ttl else {}),
        }
        return self._make_endpoint(
            f"we_{secrets.token_hex(12)}", user_id, url, registered=True, fields=fields
        )

    def get_or_create(self, user_id: str, url: str) -> Endpoint:
        """Returns the endpoint for the `webhook_url` of an export, and creates it if necessary.

        An enabled endpoint that the user registered with the same URL is returned if there is one.
        Otherwise the result is the `webhook_url` endpoint of that URL, whose id is derived from
        user and URL and therefore always the same. A `webhook_url` endpoint that was disabled as
        gone or failing is enabled again; one that its owner disabled stays disabled.
        """
        digest = hashlib.sha256(codec.encode((user_id, url))).hexdigest()
        fields = {
            "events": script_loader.padded_words([]),
            "secrets": f"0 {signatures.new_secret()}",
        }
        return self._make_endpoint(
            f"we_{digest[:24]}", user_id, url, registered=False, fields=fields
        )

    def find(self, endpoint_id: str, user_id: str) -> Endpoint | None:
        """Returns the endpoint with this id; None if the user has no such endpoint."""
        found = self.get_many([endpoint_id]).get(endpoint_id)
        return found if found is not None and found.user_id == user_id else None

    def list(self, user_id: str) -> tuple[Endpoint, ...]:
        """Returns the user's endpoints, oldest first.

        Contains all registered endpoints, and at least the latest MAX_LISTED_URL_ENDPOINTS of the
        `webhook_url` endpoints.
        """
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.smembers(self._names("registered", user_id))
            pipe.zrevrange(
                self._names("endpoints", user_id),
                0,
                MAX_REGISTERED_ENDPOINTS + MAX_LISTED_URL_ENDPOINTS - 1,
            )
            registered, latest = cast("tuple[set[bytes], list[bytes]]", pipe.execute())
        found = self.get_many([one.decode() for one in registered.union(latest)]).values()
        return tuple(sorted(found, key=lambda one: (one.created_at, one.id)))

    def registered(self, user_id: str) -> tuple[Endpoint, ...]:
        """Returns all registered endpoints of a user, including disabled endpoints."""
        with errors.translate_errors():
            ids = cast("set[bytes]", self._client.smembers(self._names("registered", user_id)))
        return tuple(self.get_many(sorted(one.decode() for one in ids)).values())

    def get_many(self, ids: Sequence[str]) -> Mapping[str, Endpoint]:
        """Maps ids to their endpoints, of any owner, in the order of `ids`.

        An id without an endpoint is missing in the result.
        """
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            for one in ids:
                pipe.hgetall(self._names("endpoint", one))
            (seconds, _), *found = pipe.execute()
        now = datetime.fromtimestamp(seconds, UTC)
        known: dict[str, Endpoint] = {}
        for one, fields in zip(ids, found, strict=True):
            try:
                if fields:
                    known[one] = read(one, fields, now)
            except Exception as error:  # noqa: BLE001 - a damaged endpoint is left out
                log.warning("endpoint.unreadable", endpoint_id=one, reason=repr(error))
        return known

    def rotate(
        self, endpoint_id: str, user_id: str, *, grace: timedelta = DEFAULT_ROTATION_GRACE
    ) -> Endpoint | None:
        """Replaces the secret of an endpoint and returns the changed endpoint.

        The previous secret still signs beside the new one for `grace`. Returns None, and changes
        nothing, if the user has no such endpoint. Raises ValueError for a grace below 0 or above
        MAX_ROTATION_GRACE, and LimitReached if more than SIGNING_SECRETS secrets would sign.
        """
        if not timedelta(0) <= grace <= MAX_ROTATION_GRACE:
            raise ValueError(
                f"a grace of {grace} is not allowed: give 0 to {MAX_ROTATION_GRACE.days} days, "
                "during which the previous secret still signs"
            )
        most = limits.SIGNING_SECRETS.default
        new_secret = signatures.new_secret()
        fields = self._rotate(endpoint_id, user_id, new_secret, records.micros(grace), most)
        if len(fields) == 1:
            raise limits.LimitReached(
                limits.SIGNING_SECRETS,
                f"{most} secrets of endpoint {endpoint_id} still sign, the most that may: wait"
                f" until {records.moment(fields[0]):%Y-%m-%dT%H:%M:%SZ}, or rotate with"
                " grace_seconds 0, which ends the current secret at once",
            )
        return self._to_endpoint(endpoint_id, fields)

    def disable(self, endpoint_id: str, user_id: str) -> Endpoint | None:
        """Disables an endpoint, so that later events are not sent to it, and returns the endpoint.

        A pending delivery becomes dead when its next attempt is due, and can be recovered after the
        endpoint is enabled. Returns None if the user has no such endpoint.
        """
        return self._to_endpoint(endpoint_id, self._switch(endpoint_id, user_id, "disable"))

    def enable(self, endpoint_id: str, user_id: str) -> Endpoint | None:
        """Enables an endpoint, so that later events are sent to it, and returns the endpoint.

        The reason for which it was disabled does not matter. Returns None if the user has no such
        endpoint.
        """
        return self._to_endpoint(endpoint_id, self._switch(endpoint_id, user_id, "enable"))

    def delete(self, endpoint_id: str, user_id: str) -> bool:
        """Deletes an endpoint, so that nothing more is sent to it, and returns True.

        Unfinished deliveries to a listener are deleted; those to other endpoints become dead.
        Returns False, and changes nothing, if the user has no such endpoint.
        """
        return bool(self._switch(endpoint_id, user_id, "delete"))

    def _make_endpoint(
        self,
        endpoint_id: str,
        user_id: str,
        url: str,
        *,
        registered: bool,
        fields: Mapping[str, str],
    ) -> Endpoint:
        limit = limits.REGISTERED_ENDPOINTS if registered else limits.URL_ENDPOINTS
        arguments: list[str | int] = [
            endpoint_id, user_id, int(registered), url, limit.default,
            records.millis(self._url_endpoint_ttl),
        ]  # fmt: skip
        for name, value in fields.items():
            arguments += [name, value]
        result, *answer = self._make(*arguments)
        if result == b"full" and not registered:
            raise limits.LimitReached(
                limit,
                f"the limit of {limit.default:,} webhook URLs is reached: use one of your earlier"
                " URLs, register an endpoint, or delete endpoints that you no longer need",
            )
        if result == b"full":
            raise TooManyEndpoints(
                f"the limit of {MAX_REGISTERED_ENDPOINTS} registered endpoints is reached: delete "
                "an endpoint first"
            )
        found_id, fields_found = answer
        endpoint = self._to_endpoint(found_id.decode(), fields_found)
        assert endpoint is not None
        return endpoint

    def _to_endpoint(self, endpoint_id: str, fields: Sequence[bytes]) -> Endpoint | None:
        if not fields:
            return None
        with errors.translate_errors():
            seconds, _ = self._client.time()
        return read(endpoint_id, records.pairs(fields), datetime.fromtimestamp(seconds, UTC))


def read(endpoint_id: str, fields: Mapping[bytes, bytes], now: datetime) -> Endpoint:
    """Converts the fields of an endpoint's Redis hash to an Endpoint.

    Its secrets are those that sign at the time `now`.
    """
    because, ttl = fields.get(b"disabled_because"), fields.get(b"listener")
    signing = []
    for line in fields[b"secrets"].decode().split("\n"):
        before, _, value = line.partition(" ")
        until = records.moment(before.encode()) if before != "0" else None
        if until is None or until > now:
            signing.append(Secret(value, until))
    return Endpoint(
        id=endpoint_id,
        user_id=fields[b"user"].decode(),
        url=fields[b"url"].decode(),
        events=tuple(fields[b"events"].decode().split()),
        secrets=tuple(signing),
        registered=fields[b"own"] == b"1",
        ordered=b"ordered" in fields,
        include_download_url=b"download" in fields,
        description=fields.get(b"description", b"").decode(),
        listener_ttl=int(ttl) if ttl else None,
        created_at=records.moment(fields[b"created_at"]),
        failing_since=records.moment_or_none(fields.get(b"failing_since")),
        disabled_at=records.moment_or_none(fields.get(b"disabled_at")),
        disabled_reason=DisableReason(because.decode()) if because else None,
    )

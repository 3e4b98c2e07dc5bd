"""The endpoints that webhooks are sent to, in Redis."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import redis

from exporter.core import events as event_names
from exporter.store import codec
from exporter.store.redis import errors, records, script_loader
from exporter.webhooks import signatures
from exporter.webhooks.endpoints import DisableReason, Endpoint, Secret, TooManyEndpoints

MOST_REGISTERED = 20
"""Endpoints that one user may register: each event is copied for each."""
MOST_NAMED = 100
"""Endpoints of a `webhook_url` that are listed: there is one for each URL."""
GRACE = timedelta(hours=24)
LONGEST_GRACE = timedelta(days=7)
NAMED_FOR = timedelta(days=37)
"""How long the endpoint of a `webhook_url` is kept after the last export named it, or the last
event went to it: as long as an export may take in all and its record may then be polled."""


class Endpoints:
    """The endpoints of all users; each is seen and changed by its own user alone.

    What a change says of events holds for all that happens after it. All methods raise
    StoreUnavailable, and may be sent twice by the client's retries.
    """

    def __init__(self, client: redis.Redis, *, named_for: timedelta = NAMED_FOR) -> None:
        self._client = client
        self._named_for = named_for
        self._make = script_loader.load_from_package(client, __package__, "make_endpoint")
        self._rotate = script_loader.load_from_package(client, __package__, "rotate_secret")
        self._switch = script_loader.load_from_package(client, __package__, "switch_endpoint")

    def create(
        self,
        user_id: str,
        url: str,
        *,
        events: Sequence[str] = event_names.DEFAULT_EVENTS,
        secret: str | None = None,
        ordered: bool = False,
        include_download_url: bool = False,
        description: str = "",
    ) -> Endpoint:
        """Register an endpoint, which hears of all exports of its user from now on.

        The URL is to be checked by the guard before. `secret`: one of the user's own instead of a
        new one. Raises ValueError for unknown events, SecretRefused, TooManyEndpoints.
        """
        known = event_names.check_events(events)
        if secret is not None:
            signatures.key(secret)
        fields = {
            "events": script_loader.padded_words(known),
            "secrets": f"0 {secret or signatures.new_secret()}",
            "description": codec.clean(description),
            **({"ordered": "1"} if ordered else {}),
            **({"download": "1"} if include_download_url else {}),
        }
        return self._made(f"we_{secrets.token_hex(12)}", user_id, url, own=True, fields=fields)

    def named(self, user_id: str, url: str) -> Endpoint:
        """The endpoint of an export's `webhook_url`: the one that the user registered with that
        URL, or else one made for it, the same each time.

        It is enabled again if it had failed or was gone; one that its owner disabled stays so.
        """
        digest = hashlib.sha256(codec.encode((user_id, url))).hexdigest()
        fields = {
            "events": script_loader.padded_words([]),
            "secrets": f"0 {signatures.new_secret()}",
        }
        return self._made(f"we_{digest[:24]}", user_id, url, own=False, fields=fields)

    def find(self, endpoint_id: str, user_id: str) -> Endpoint | None:
        """The user's endpoint of that id."""
        found = self.known([endpoint_id]).get(endpoint_id)
        return found if found is not None and found.user_id == user_id else None

    def list(self, user_id: str) -> tuple[Endpoint, ...]:
        """The endpoints that a user registered, and the latest MOST_NAMED of those made for a
        `webhook_url`; oldest first."""
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.smembers(f"exporter:registered:{user_id}")
            pipe.zrevrange(f"exporter:endpoints:{user_id}", 0, MOST_REGISTERED + MOST_NAMED - 1)
            registered, latest = cast("tuple[set[bytes], list[bytes]]", pipe.execute())
        found = self.known([one.decode() for one in registered.union(latest)]).values()
        return tuple(sorted(found, key=lambda one: (one.created_at, one.id)))

    def registered(self, user_id: str) -> tuple[Endpoint, ...]:
        """Those that hear of all exports of a user; disabled ones too."""
        with errors.translate_errors():
            ids = cast("set[bytes]", self._client.smembers(f"exporter:registered:{user_id}"))
        return tuple(self.known(sorted(one.decode() for one in ids)).values())

    def known(self, ids: Sequence[str]) -> Mapping[str, Endpoint]:
        """Those that there are of these ids, in that order, whosever they are."""
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=False)
            pipe.time()
            for one in ids:
                pipe.hgetall(f"exporter:endpoint:{one}")
            (seconds, _), *found = pipe.execute()
        now = datetime.fromtimestamp(seconds, UTC)
        return {
            one: read(one, fields, now) for one, fields in zip(ids, found, strict=True) if fields
        }

    def rotate(
        self, endpoint_id: str, user_id: str, *, grace: timedelta = GRACE, secret: str | None = None
    ) -> Endpoint | None:
        """A new secret is in force from now on; the one before signs beside it for `grace`.

        Raises ValueError for a grace below 0 or above LONGEST_GRACE, and SecretRefused.
        """
        if not timedelta(0) <= grace <= LONGEST_GRACE:
            raise ValueError(
                f"a grace of {grace}: give 0 to {LONGEST_GRACE.days} days for the secret before"
            )
        if secret is not None:
            signatures.key(secret)
        with errors.translate_errors():
            fields = self._rotate(
                args=[
                    endpoint_id,
                    user_id,
                    secret or signatures.new_secret(),
                    records.micros(grace),
                ]
            )
        return self._found(endpoint_id, fields)

    def disable(self, endpoint_id: str, user_id: str) -> Endpoint | None:
        """It hears nothing of what happens until it is enabled; what was on its way is given up as
        its next try comes, and can be recovered."""
        return self._switched(endpoint_id, user_id, "disable")

    def enable(self, endpoint_id: str, user_id: str) -> Endpoint | None:
        """It hears of what happens from now on, whyever it was disabled."""
        return self._switched(endpoint_id, user_id, "enable")

    def delete(self, endpoint_id: str, user_id: str) -> bool:
        """Nothing more is sent to it; False if the user has no such endpoint."""
        return self._switched(endpoint_id, user_id, "delete") is not None

    def _made(
        self, endpoint_id: str, user_id: str, url: str, *, own: bool, fields: Mapping[str, str]
    ) -> Endpoint:
        arguments: list[str | int] = [
            endpoint_id, user_id, int(own), url, MOST_REGISTERED, records.millis(self._named_for),
        ]  # fmt: skip
        for name, value in fields.items():
            arguments += [name, value]
        with errors.translate_errors():
            how, *answer = cast("list[Any]", self._make(args=arguments))
        if how == b"full":
            raise TooManyEndpoints(
                f"there are {MOST_REGISTERED} registered endpoints already: delete one first"
            )
        found_id, found = answer
        endpoint = self._found(found_id.decode(), found)
        assert endpoint is not None
        return endpoint

    def _switched(self, endpoint_id: str, user_id: str, how: str) -> Endpoint | None:
        with errors.translate_errors():
            fields = self._switch(args=[endpoint_id, user_id, how])
        return self._found(endpoint_id, fields)

    def _found(self, endpoint_id: str, fields: object) -> Endpoint | None:
        pairs = cast("list[bytes]", fields)
        if not pairs:
            return None
        with errors.translate_errors():
            seconds, _ = self._client.time()
        return read(endpoint_id, records.pairs(pairs), datetime.fromtimestamp(seconds, UTC))


def read(endpoint_id: str, fields: Mapping[bytes, bytes], now: datetime) -> Endpoint:
    """An endpoint from its fields, with the secrets that sign at that time."""
    because = fields.get(b"disabled_because")
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
        own=fields[b"own"] == b"1",
        ordered=b"ordered" in fields,
        include_download_url=b"download" in fields,
        description=fields.get(b"description", b"").decode(),
        created_at=records.moment(fields[b"created_at"]),
        failing_since=records.moment_or_none(fields.get(b"failing_since")),
        disabled_at=records.moment_or_none(fields.get(b"disabled_at")),
        disabled_reason=DisableReason(because.decode()) if because else None,
    )

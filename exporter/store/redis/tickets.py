"""Tickets in Redis: what a browser may show once instead of an API key."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import cast

import redis

from exporter.store.redis import errors, records
from exporter.store.redis.keys import DEFAULT, KeyNames


class Tickets:
    """Stores the tickets of one kind, which no other kind accepts. Methods raise StoreUnavailable.

    A ticket has 256 random bits, so it cannot be found from its SHA-256.
    """

    def __init__(
        self, client: redis.Redis, kind: str, ttl: timedelta, names: KeyNames = DEFAULT
    ) -> None:
        self._client, self._kind, self._names = client, kind, names
        self.ttl = ttl
        """Time within which a ticket must be used."""

    def create(self, key_id: str) -> str:
        """Returns a ticket that stands for a key, once and within `ttl`."""
        ticket = secrets.token_urlsafe(32)
        with errors.translate_errors():
            self._client.set(self._name(ticket), key_id, px=records.millis(self.ttl))
        return ticket

    def use(self, ticket: str) -> str | None:
        """Returns the id of the ticket's key, for the first call only; None for any other."""
        with errors.translate_errors():
            pipe = self._client.pipeline(transaction=True)
            pipe.get(self._name(ticket))
            pipe.delete(self._name(ticket))
            value, _ = pipe.execute()
        return None if value is None else cast("bytes", value).decode()

    def _name(self, ticket: str) -> str:
        return self._names(self._kind, hashlib.sha256(ticket.encode()).hexdigest())

"""Sessions of the console in Redis: a browser holds a token, Redis its digest and the key's id."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import cast

import msgspec
import redis

from exporter.store.redis import errors, records
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.store.redis.tickets import Tickets

SESSION_TTL = timedelta(hours=12)
TICKET_TTL = timedelta(minutes=10)


class Session(msgspec.Struct, frozen=True):
    """A signed-in browser."""

    key_id: str
    """The API key with which it signed in; without the key, the session has ended."""
    csrf: str
    """The token that each form of the session must contain."""


class Sessions:
    """Stores the sessions of all browsers. All methods raise StoreUnavailable.

    A token has 256 random bits, so it cannot be found from its SHA-256.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self._client, self._names = client, names
        self._tickets = Tickets(client, "ticket", TICKET_TTL, names)

    def create(self, key_id: str) -> str:
        """Starts a session and returns its token."""
        token = secrets.token_urlsafe(32)
        session = Session(key_id, secrets.token_urlsafe(32))
        with errors.translate_errors():
            self._client.set(
                self._name("session", token),
                msgspec.json.encode(session),
                px=records.millis(SESSION_TTL),
            )
        return token

    def find(self, token: str) -> Session | None:
        """Returns the session of the token; None if there is none or it has ended."""
        with errors.translate_errors():
            value = cast("bytes | None", self._client.get(self._name("session", token)))
        return None if value is None else msgspec.json.decode(value, type=Session)

    def end(self, token: str) -> None:
        """Ends a session."""
        with errors.translate_errors():
            self._client.delete(self._name("session", token))

    def create_ticket(self, key_id: str) -> str:
        """Returns a ticket that signs one browser in with a key, once and within TICKET_TTL."""
        return self._tickets.create(key_id)

    def use_ticket(self, ticket: str) -> str | None:
        """Returns the id of the ticket's key, for the first call only; None for any other."""
        return self._tickets.use(ticket)

    def _name(self, kind: str, token: str) -> str:
        return self._names(kind, hashlib.sha256(token.encode()).hexdigest())

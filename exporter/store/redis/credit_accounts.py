"""Credits, one a record: what each API key has left to spend, in Redis."""

from __future__ import annotations

import secrets
from typing import cast

import redis

from exporter.core.plans import Balance, CreditsSpent
from exporter.errors import ExporterError
from exporter.store.redis import errors, script_loader

MOST = 10**15
"""Credits that a key can have: the scripts of Redis count in doubles, exact beyond that."""


class UnknownKey(ExporterError):
    """No key has that id, or it was revoked."""


class Credits:
    """The accounts of all keys that are not revoked. A balance never falls below zero.

    Exports reserve and settle by the store; here is what is granted, asked, and paid at once.
    Each call takes effect once, however often the client sends it for want of an answer. All
    raise StoreUnavailable.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._charge = script_loader.load(client, "charge")
        self._grant = script_loader.load(client, "grant")

    def balance(self, key_id: str) -> Balance:
        """Where a key stands; one that nobody knows has used nothing and is not bounded."""
        with errors.translate_errors():
            fields = self._client.hmget(account(key_id), ["left", "used", "reserved"])
        left, used, reserved = cast("list[bytes | None]", fields)
        return Balance(None if left is None else int(left), int(used or 0), int(reserved or 0))

    def set(self, key_id: str, amount: int | None) -> None:
        """Let the key spend that many from now on; None: any number.

        What its exports have reserved is not part of that, and what they give back comes on top.
        Raises UnknownKey, ValueError for less than 0.
        """
        if amount is None:
            self._give(key_id, "lift", 0)
        else:
            self._give(key_id, "set", amount)

    def add(self, key_id: str, amount: int) -> None:
        """Let the key spend that many more. Raises UnknownKey, ValueError for less than 0 and for a
        key that may spend any number."""
        if self._give(key_id, "add", amount) == b"unlimited":
            raise ValueError(
                f"key {key_id} has no balance to add {amount} credits to: it may spend any number."
                " Set one first"
            )

    def charge(self, key_id: str, amount: int) -> None:
        """Take that many credits, or none: raises CreditsSpent if fewer are left."""
        check(amount)
        if amount == 0:
            return
        with errors.translate_errors():
            answer = self._charge(args=[key_id, amount, secrets.token_hex(8)])
        paid, *left = cast("list[int]", answer)
        if not paid:
            raise CreditsSpent(amount, left[0])

    def _give(self, key_id: str, how: str, amount: int) -> bytes:
        check(amount)
        with errors.translate_errors():
            answer = self._grant(args=[key_id, how, amount, secrets.token_hex(8)])
        if answer == b"unknown":
            raise UnknownKey(f"no key has the id {key_id!r}; `exporter keys list` shows them")
        return cast("bytes", answer)


def account(key_id: str) -> str:
    """The name in Redis of a key's account."""
    return f"exporter:account:{key_id}"


def check(amount: int) -> None:
    """Raises ValueError for what no key can have."""
    if not 0 <= amount <= MOST:
        raise ValueError(f"{amount} credits: give 0 to {MOST}")

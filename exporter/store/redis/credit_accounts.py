"""Credit accounts of API keys, in Redis. One credit pays for one record."""

from __future__ import annotations

import secrets
from typing import cast

import redis

from exporter.core.plans import Balance, CreditsSpent
from exporter.errors import ExporterError
from exporter.store.redis import errors, script_loader
from exporter.store.redis.keys import DEFAULT, KeyNames

MAX_CREDITS = 10**15
"""Largest balance of a key.

The Lua scripts count in doubles, which represent even larger whole numbers exactly.
"""


class UnknownKey(ExporterError):
    """No key has that id, or the key was revoked."""


class Credits:
    """Credit accounts of all keys that are not revoked. A balance never falls below zero.

    This class sets, reads and charges credits; the credits of exports are reserved and settled by
    the export store. Each call takes effect once, even if the client repeats it because a reply was
    lost. All methods raise StoreUnavailable.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self._client = client
        self._names = names
        self._charge = script_loader.load(client, names, "charge")
        self._refund = script_loader.load(client, names, "refund")
        self._grant = script_loader.load(client, names, "grant")

    def balance(self, key_id: str) -> Balance:
        """Returns the account of a key; for an unknown key, an unlimited and unused account."""
        with errors.translate_errors():
            fields = self._client.hmget(
                self._names("account", key_id), ["left", "used", "reserved"]
            )
        left, used, reserved = cast("list[bytes | None]", fields)
        return Balance(None if left is None else int(left), int(used or 0), int(reserved or 0))

    def set(self, key_id: str, amount: int | None) -> None:
        """Sets the number of credits that a key may spend from now on; None: unlimited.

        Credits that exports of the key have reserved are not part of that number. Those that the
        exports give back are added to it later. Raises UnknownKey, and ValueError for an amount out
        of range.
        """
        if amount is None:
            self._run_grant(key_id, "lift", 0)
        else:
            self._run_grant(key_id, "set", amount)

    def add(self, key_id: str, amount: int) -> None:
        """Adds credits to the balance of a key.

        Raises UnknownKey, and ValueError for an amount out of range or an unlimited key.
        """
        if self._run_grant(key_id, "add", amount) == b"unlimited":
            raise ValueError(
                f"key {key_id} has no balance to add {amount} credits to, because its credits are"
                " unlimited: set a balance first"
            )

    def charge(self, key_id: str, amount: int, *, refundable: bool = False) -> None:
        """Deducts `amount` credits. Raises CreditsSpent, and deducts none, if fewer are left.

        With `refundable`, the caller must call `refund` when the number of records is known.
        """
        check(amount)
        if amount == 0:
            return
        how = "first" if refundable else "final"
        paid, *left = self._charge(key_id, amount, secrets.token_hex(8), how)
        if not paid:
            raise CreditsSpent(amount, left[0])

    def refund(self, key_id: str, amount: int, charged: int) -> None:
        """Gives `amount` credits of a refundable charge back, of which `charged` were used."""
        check(amount)
        check(charged)
        self._refund(key_id, amount, charged, secrets.token_hex(8))

    def _run_grant(self, key_id: str, how: str, amount: int) -> bytes:
        check(amount)
        answer: bytes = self._grant(key_id, how, amount, secrets.token_hex(8))
        if answer == b"unknown":
            raise UnknownKey(f"no key has the id {key_id!r}: `exporter keys list` shows all ids")
        return answer


def check(amount: int) -> None:
    """Raises ValueError if the number of credits is out of range."""
    if not 0 <= amount <= MAX_CREDITS:
        raise ValueError(f"{amount} credits: give 0 to {MAX_CREDITS}")

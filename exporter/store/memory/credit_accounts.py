"""Credit accounts of API keys, in memory. One credit pays for one record."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from exporter.core.exports import Spec
from exporter.core.plans import Balance, CreditsSpent
from exporter.store.memory.queue import Record


@dataclass
class _Account:
    left: int | None
    """Credits that may be spent; None: unlimited."""
    reserved: int = 0
    used: int = 0


class MemoryAccounts:
    """Behaves like `Credits` and the Redis scripts.

    It has only the accounts of keys that were registered by `open`.
    """

    def __init__(self, lock: threading.RLock, counters: Counter[str]) -> None:
        self._lock = lock
        self._counters = counters
        self._accounts: dict[str, _Account] = {}

    def open(self, key_id: str, left: int | None) -> None:
        """Creates the account of a key with that many credits; None: unlimited."""
        with self._lock:
            self._accounts[key_id] = _Account(left)

    def close(self, key_id: str) -> None:
        """Deletes the account of a key; exports of the key continue and are not charged."""
        with self._lock:
            self._accounts.pop(key_id, None)

    def balance(self, key_id: str) -> Balance:
        with self._lock:
            account = self._accounts.get(key_id, _Account(None))
            return Balance(account.left, account.used, account.reserved)

    def set(self, key_id: str, amount: int | None) -> None:
        with self._lock:
            self._accounts[key_id].left = amount

    def charge(self, key_id: str, amount: int) -> None:
        with self._lock:
            account = self._deduct(key_id, amount)
            account.used += amount
            if account.left is not None:
                self._counters["credits_reserved"] += amount
                self._counters["credits_charged"] += amount

    def reserve(self, spec: Spec) -> int:
        """Reserves `spec.reserved` credits of the account and returns how many were reserved.

        Returns 0 if the export has no account or the account is unlimited. Raises CreditsSpent if
        the account has fewer credits.
        """
        if spec.account is None or not spec.reserved:
            return 0
        account = self._deduct(spec.account, spec.reserved)
        if account.left is None:
            return 0
        account.reserved += spec.reserved
        self._counters["credits_reserved"] += spec.reserved
        return spec.reserved

    def settle(self, record: Record, rows: int) -> None:
        """Charges an ended export for `rows` rows and gives its other reserved credits back.

        A second call has no effect.
        """
        payer, reserved = record.payer, record.reserved
        record.payer, record.reserved = None, 0
        if payer is None:
            return
        if reserved:
            rows = min(rows, reserved)
            self._counters["credits_charged"] += rows
            self._counters["credits_given_back"] += reserved - rows
        account = self._accounts.get(payer)
        if account is None:
            return
        account.used += rows
        account.reserved -= reserved
        if account.left is not None:
            account.left += reserved - rows if reserved else 0

    def _deduct(self, key_id: str, amount: int) -> _Account:
        account = self._accounts.get(key_id, _Account(left=0))
        if account.left is not None:
            if account.left < amount:
                raise CreditsSpent(amount, account.left)
            account.left -= amount
        return account

"""Credits, one a record: what each API key has left to spend, as the store in memory keeps it."""

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
    reserved: int = 0
    used: int = 0


class MemoryAccounts:
    """What `Credits` and the scripts of Redis do, for keys that `open` makes known."""

    def __init__(self, lock: threading.RLock, counters: Counter[str]) -> None:
        self._lock = lock
        self._counters = counters
        self._accounts: dict[str, _Account] = {}

    def open(self, key_id: str, left: int | None) -> None:
        """Make a key known; None: it is not metered."""
        with self._lock:
            self._accounts[key_id] = _Account(left)

    def close(self, key_id: str) -> None:
        """Revoke a key; its exports go on, at nobody's cost."""
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
            account = self._take(key_id, amount)
            account.used += amount
            if account.left is not None:
                self._counters["credits_reserved"] += amount
                self._counters["credits_charged"] += amount

    def reserve(self, spec: Spec) -> int:
        """Take what an export may cost; how much that is. Raises CreditsSpent."""
        if spec.account is None or not spec.reserved:
            return 0
        account = self._take(spec.account, spec.reserved)
        if account.left is None:
            return 0
        account.reserved += spec.reserved
        self._counters["credits_reserved"] += spec.reserved
        return spec.reserved

    def settle(self, record: Record, rows: int) -> None:
        """Charge an ended export for its rows and give the rest back; nothing a second time."""
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

    def _take(self, key_id: str, amount: int) -> _Account:
        account = self._accounts.get(key_id, _Account(left=0))
        if account.left is not None:
            if account.left < amount:
                raise CreditsSpent(amount, account.left)
            account.left -= amount
        return account

"""Changes postings continuously while clients read the board."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from exporter.board import database, postings

ID_PREFIX = "drift-"
"""Id prefix of the postings that a drift creates."""
CHANGES = ("inserted", "updated", "deleted")
_MIN_PAUSE_SECONDS = 0.05
"""Minimum seconds between two transactions, because each one invalidates the cached searches."""
_log = logging.getLogger(__name__)


class Drift(threading.Thread):
    """Inserts, updates and deletes `rate` postings per second until `stop` is called.

    Changes only its own postings: synthetic ones whose ids begin with ID_PREFIX. These postings
    remain after the drift has stopped, and the next drift changes them too. `done` counts the
    changes under the names in CHANGES.
    """

    def __init__(self, path: Path, rate: float, seed: int, done: MutableMapping[str, int]) -> None:
        super().__init__(name="board drift", daemon=True)
        self._path, self._rate, self._done = path, rate, done
        self._chances = random.Random(f"{seed}:drift")  # noqa: S311 - not a secret
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Stops the changes; returns after the last change is stored."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        rate = self._rate
        begin, made = time.monotonic(), 0
        while not self._stopping.wait(
            max(begin + (made + 1) / rate - time.monotonic(), _MIN_PAUSE_SECONDS)
        ):
            due = int((time.monotonic() - begin) * rate) - made
            try:
                changes = self._change(due)
            except sqlite3.OperationalError as error:
                _log.warning(
                    "the drift could not write to the board's database and will retry: %s", error
                )
                continue
            made += due
            for change in changes:
                self._done[change] += 1

    def _change(self, times: int) -> list[str]:
        changes = []
        with database.write_transaction(self._path) as connection:
            for _ in range(times):
                # Reads them again each time: a load may have changed them in the meantime.
                own = connection.execute(
                    "SELECT number, id FROM postings"
                    " WHERE id >= ? AND id < ? AND synthetic ORDER BY number",
                    (ID_PREFIX, ID_PREFIX + "\U0010ffff"),
                ).fetchall()
                change = self._chances.choice(CHANGES) if own else "inserted"
                fresh = database.meta(connection, "last_number") + 1
                if change == "inserted":
                    self._write(connection, f"{ID_PREFIX}{fresh}", fresh)
                elif change == "updated":
                    self._write(connection, self._chances.choice(own)[1], fresh)
                else:
                    number = self._chances.choice(own)[0]
                    for table in ("documents", "places", "postings"):
                        connection.execute(f"DELETE FROM {table} WHERE number = ?", (number,))  # noqa: S608 - a literal
                    database.bump_version(connection)
                changes.append(change)
        return changes

    def _write(self, connection: sqlite3.Connection, identity: str, revision: int) -> None:
        day = datetime.now(UTC).date() - timedelta(days=self._chances.randrange(365))
        pay = self._chances.randrange(30, 190) * 1000
        members = {
            "_id": identity,
            "job_title": f"Drifting Surveyor {revision}",
            "company_name": "Continental Drift",
            "date_posted": day.isoformat(),
            "salary_range": {"min": pay, "max": pay, "currency": "USD", "period": "year"},
        }
        found = postings.from_line(json.dumps(members).encode())
        database.store(connection, [found], synthetic=True)

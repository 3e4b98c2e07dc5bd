"""Postings that change while the board is read."""

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

PREFIX = "drift-"
"""How the ids of postings begin that exist only because of a drift."""
CHANGES = ("inserted", "updated", "deleted")
_PAUSE = 0.05
"""Seconds at least between two transactions: each makes the board search anew."""
_log = logging.getLogger(__name__)


class Drift(threading.Thread):
    """Changes `rate` postings a second, none but those of a drift, until it is stopped.

    Those are synthetic and their ids begin with PREFIX; they stay when it ends, and the next one
    goes on with them. What was done is added to `done`, by the names in CHANGES.
    """

    def __init__(self, path: Path, rate: float, seed: int, done: MutableMapping[str, int]) -> None:
        super().__init__(name="board drift", daemon=True)
        self._path, self._rate, self._done = path, rate, done
        self._chances = random.Random(f"{seed}:drift")  # noqa: S311 - not a secret
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Returns when the last change is done."""
        self._stopping.set()
        self.join()

    def run(self) -> None:
        rate = self._rate
        begin, made = time.monotonic(), 0
        while not self._stopping.wait(max(begin + (made + 1) / rate - time.monotonic(), _PAUSE)):
            due = int((time.monotonic() - begin) * rate) - made
            try:
                changes = self._change(due)
            except sqlite3.OperationalError as error:
                _log.warning("the board's drift could not write and tries again: %s", error)
                continue
            made += due
            for change in changes:
                self._done[change] += 1

    def _change(self, times: int) -> list[str]:
        changes = []
        with database.writing(self._path) as connection:
            for _ in range(times):
                # Read each time: a load or an earlier drift may have changed them.
                own = connection.execute(
                    "SELECT number, id FROM postings"
                    " WHERE id >= ? AND id < ? AND synthetic ORDER BY number",
                    (PREFIX, PREFIX + "\U0010ffff"),
                ).fetchall()
                change = self._chances.choice(CHANGES) if own else "inserted"
                fresh = database.meta(connection, "last_number") + 1
                if change == "inserted":
                    self._write(connection, f"{PREFIX}{fresh}", fresh)
                elif change == "updated":
                    self._write(connection, self._chances.choice(own)[1], fresh)
                else:
                    number = self._chances.choice(own)[0]
                    for table in ("documents", "places", "postings"):
                        connection.execute(f"DELETE FROM {table} WHERE number = ?", (number,))  # noqa: S608 - a literal
                    database.changed(connection)
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

"""Creates a sample table of jobs, so that a new local stack has something to export."""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from exporter.contracts.pipeline import SOURCES, STATUSES

JOB_COUNT = 300
"""Jobs of the stack's own user, deleted jobs included."""
_SCHEMA = """\
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    company_name TEXT NOT NULL,
    job_title TEXT NOT NULL,
    status TEXT NOT NULL,
    source TEXT NOT NULL,
    location TEXT,
    is_remote BOOLEAN NOT NULL,
    job_url TEXT,
    job_description TEXT,
    salary_range_min INTEGER,
    salary_range_max INTEGER,
    ai_match_score INTEGER,
    ai_reasoning TEXT,
    ai_parsed_data TEXT,
    notes TEXT,
    tags TEXT NOT NULL,
    applied_at TEXT,
    interview_at TEXT,
    offer_at TEXT,
    rejected_at TEXT,
    scraped_at TEXT,
    last_synced_at TEXT,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    deleted_at TEXT
);
CREATE INDEX jobs_of_user ON jobs (user_id, id) WHERE deleted_at IS NULL;
"""
_COMPANIES = ("Northwind", "Umoja Labs", 'Pixel "P" Ltd', "Savanna, Inc", "Kilima", "Baraka & Co")
_TITLES = ("Data Engineer", "Backend Engineer", "Site Reliability Engineer", "Product Designer")
_PLACES = ("Nairobi, KE", "Kigali, RW", "Berlin, DE", None)
_TAGS = ("high-priority", "backend", "referral", "relocation", "part-time")
_NOTES = (None, "Referred by Amina", "Call back on Monday;\nask about the team", "")
_BEGIN = datetime(2026, 1, 5, 8, tzinfo=UTC)


def create(path: Path, user_id: str) -> None:
    """Creates the SQLite database at `path`, unless that file exists.

    The table has `JOB_COUNT` jobs of `user_id`, a few of which are deleted, and 20 jobs of another
    user.
    """
    if path.exists():
        return
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new)) as connection:
        connection.executescript(_SCHEMA)
        rows = list(_rows(user_id))
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO jobs VALUES ({marks})", rows)  # noqa: S608
        connection.commit()
    new.replace(path)
    with closing(sqlite3.connect(path)) as connection:
        # The file stores this mode. Writers then do not wait for readers.
        connection.execute("PRAGMA journal_mode = WAL")


def _rows(user_id: str) -> Iterator[tuple[object, ...]]:
    chance = random.Random(7)  # noqa: S311 - a fixed seed gives the same jobs each time
    for number in range(JOB_COUNT + 20):
        status = chance.choice(STATUSES)
        step = STATUSES.index(status)
        created = _BEGIN + timedelta(minutes=chance.randrange(60 * 24 * 60))
        pay = chance.randrange(60, 200) * 1000 if chance.random() < 0.7 else None
        title, remote = chance.choice(_TITLES), chance.random() < 0.4
        moments = [
            _text(created + timedelta(days=3 * one)) if step >= one else None
            for one in (1, 2, 3, 4)
        ]
        scraped = None if chance.random() < 0.5 else _text(created)
        yield (
            str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            user_id if number < JOB_COUNT else "somebody-else",
            chance.choice(_COMPANIES),
            title,
            status,
            chance.choice(SOURCES),
            chance.choice(_PLACES),
            remote,
            f"https://jobs.example/{number}",
            f"We look for a {title}.\nYou will own what you build.",
            pay,
            None if pay is None else pay + 30_000,
            chance.randrange(40, 100),
            None if chance.random() < 0.5 else "Strong match: same tools, same field",
            json.dumps({"model": "sample"}),
            chance.choice(_NOTES),
            json.dumps(chance.sample(_TAGS, chance.randrange(4))),
            *moments[:2],
            moments[2] if status == "offer" else None,
            moments[3] if status == "rejected" else None,
            scraped,
            scraped,
            _text(created),
            _text(created + timedelta(days=3 * step)),
            _text(created + timedelta(days=30)) if number % 60 == 59 else None,
        )


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"

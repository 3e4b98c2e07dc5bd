"""The ids and times by which other contracts know the board's postings."""

from __future__ import annotations

import functools
import re
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

SCHEMA = """
CREATE TABLE IF NOT EXISTS names (uuid BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offices (
    office BLOB, number INTEGER, PRIMARY KEY (office, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moments (number INTEGER PRIMARY KEY, at TEXT NOT NULL);
"""
# A posting keeps its uuid when a new version of it gets a new number. Rows of `offices` are left
# behind like those of the text indexes. All postings from a moment's number on, up to the next
# one's, were written at that moment.
MOMENT = "(SELECT at FROM moments WHERE moments.number <= {0} ORDER BY number DESC LIMIT 1)"
"""SQL for when the posting of a number was written, as `instant` writes it."""


class Office(NamedTuple):
    """Where a posting is, by the keys that `postings.Place` has: what tells offices apart."""

    city: str
    region: str
    country: str
    address: str


def uuid_of(kind: str, text: str) -> bytes:
    """Always the same 16 bytes for one text of one kind, such as "job" and a posting's id."""
    digest = blake2b(text.encode(), digest_size=16, person=kind.encode()).digest()
    return uuid.UUID(bytes=digest, version=5).bytes


def written(name: bytes) -> str:
    """A uuid as it is written.

    >>> written(bytes(16))
    '00000000-0000-0000-0000-000000000000'
    """
    digits = name.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@functools.lru_cache(maxsize=10_000)
def office_of(office: Office) -> bytes | None:
    """The uuid of an office, or None of one that has no name at all."""
    return uuid_of("office", "\0".join(office)) if any(office) else None


def object_id(identity: str) -> str:
    """24 hexadecimal digits for the id of a posting: itself if it is such, else from its uuid."""
    if is_object_id(identity):
        return identity
    return uuid_of("job", identity)[:12].hex()


@functools.lru_cache(maxsize=10_000)
def company_id(company: str) -> str | None:
    """24 hexadecimal digits for a company's key; None for a posting that names none."""
    return uuid_of("company", company)[:12].hex() if company else None


def is_object_id(text: str) -> bool:
    """Whether a text is 24 hexadecimal digits in lower case."""
    return re.fullmatch("[0-9a-f]{24}", text) is not None


def instant(moment: datetime) -> str:
    """An aware moment in UTC, written so that texts sort as moments do."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def remember_moment(connection: sqlite3.Connection, number: int) -> None:
    """Notes that postings from this number on are written now: later than all before, whatever
    the clock says."""
    now = instant(datetime.now(UTC))
    last = connection.execute("SELECT max(at) FROM moments").fetchone()[0]
    if last is not None and last >= now:
        now = instant(datetime.fromisoformat(last) + timedelta(microseconds=1))
    connection.execute("INSERT INTO moments VALUES (?, ?)", (number, now))


def complete(connection: sqlite3.Connection) -> None:
    """Names the postings of a board that was filled when they had no names yet."""
    if connection.execute("SELECT 1 FROM moments LIMIT 1").fetchone():
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT 1 FROM moments LIMIT 1").fetchone():
            remember_moment(connection, 0)
            connection.executemany(
                "INSERT INTO names VALUES (?, ?)",
                (
                    (uuid_of("job", identity), number)
                    for identity, number in connection.execute("SELECT id, number FROM postings")
                ),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO offices VALUES (?, ?)",
                (
                    (office, number)
                    for number, *names in connection.execute(
                        "SELECT number, city, region, country, address FROM places"
                    )
                    if (office := office_of(Office(*names)))
                ),
            )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")

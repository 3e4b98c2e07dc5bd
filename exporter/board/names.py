"""Derives the ids and write times of postings for the Bindbee and Qwestly contracts."""

from __future__ import annotations

import functools
import re
import sqlite3
import uuid
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from exporter.contracts import timestamps

SCHEMA = """
CREATE TABLE IF NOT EXISTS names (uuid BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS offices (
    office BLOB, number INTEGER, PRIMARY KEY (office, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moments (number INTEGER PRIMARY KEY, at TEXT NOT NULL);
"""
# A posting keeps its uuid when its new version gets a new number. Old rows of `offices` are not
# deleted, like those of the text indexes. A row of `moments` is the write time of all postings from
# its number up to the number of the next row.
WRITE_TIME_SQL = "(SELECT at FROM moments WHERE moments.number <= {0} ORDER BY number DESC LIMIT 1)"
"""SQL for the write time of the posting with number `{0}`, as `timestamps.sortable` writes it."""


class Office(NamedTuple):
    """Identity of an office: the comparison keys of a place, as in `postings.Place`."""

    city: str
    region: str
    country: str
    address: str


def uuid_of(kind: str, text: str) -> bytes:
    """Returns a uuid of 16 bytes that is always the same for the same kind and text.

    The kind is, for example, "job", and the text the id of a posting.
    """
    digest = blake2b(text.encode(), digest_size=16, person=kind.encode()).digest()
    return uuid.UUID(bytes=digest, version=5).bytes


def format_uuid(name: bytes) -> str:
    """Formats the 16 bytes of a uuid as text.

    >>> format_uuid(bytes(16))
    '00000000-0000-0000-0000-000000000000'
    """
    digits = name.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@functools.lru_cache(maxsize=10_000)
def office_of(office: Office) -> bytes | None:
    """Returns the uuid of an office; None if all its texts are empty."""
    return uuid_of("office", "\0".join(office)) if any(office) else None


def object_id(identity: str) -> str:
    """Returns 24 hexadecimal digits that identify the posting with this id.

    These are the id itself if it has this form, and otherwise the beginning of the posting's uuid.
    """
    if is_object_id(identity):
        return identity
    return uuid_of("job", identity)[:12].hex()


@functools.lru_cache(maxsize=10_000)
def company_id(company: str) -> str | None:
    """Returns 24 hexadecimal digits that identify the company with this name; None if it is empty.

    The name is a comparison key: see postings.key.
    """
    return uuid_of("company", company)[:12].hex() if company else None


def is_object_id(text: str) -> bool:
    """True if a text is 24 hexadecimal digits in lower case."""
    return re.fullmatch("[0-9a-f]{24}", text) is not None


def record_write_time(connection: sqlite3.Connection, number: int) -> None:
    """Records the current time as the write time of all postings with this or a higher number.

    The recorded time is always later than all earlier ones, even if the clock went back.
    """
    now = timestamps.sortable(datetime.now(UTC))
    last = connection.execute("SELECT max(at) FROM moments").fetchone()[0]
    if last is not None and last >= now:
        now = timestamps.sortable(datetime.fromisoformat(last) + timedelta(microseconds=1))
    connection.execute("INSERT INTO moments VALUES (?, ?)", (number, now))

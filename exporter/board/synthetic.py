"""Fills a board with synthetic postings of one of two profiles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from exporter.board import database, friendly, hostile, postings
from exporter.board.profiles import Profile

_STORED = (Profile.HOSTILE, Profile.FRIENDLY)
"""The board's file stores the index. Files of version 0.1.0 store none and are hostile."""
_MADE_FROM = ("synthetic_rows", "synthetic_seed", "synthetic_profile", "synthetic_day")


def generate(
    rows: int,
    seed: int = 1,
    profile: Profile = Profile.FRIENDLY,
    *,
    today: date | None = None,
) -> Iterator[postings.Posting]:
    """Yields the synthetic postings 0 to `rows` - 1 of a seed and a profile, in order.

    Posting i depends only on these two and on i, except that the dates of friendly postings are
    relative to `today`, by default the day in UTC.
    """
    if profile is Profile.HOSTILE:
        return hostile.generate(rows, seed)
    return friendly.generate(rows, seed, today or _today())


def synthesize(
    path: Path,
    rows: int,
    seed: int = 1,
    profile: Profile = Profile.FRIENDLY,
    *,
    today: date | None = None,
) -> None:
    """Stores the synthetic postings 0 to `rows` - 1 of a seed and a profile in the board.

    Does nothing if the last call had the same arguments, on the same day where dates depend on it.
    Otherwise deletes the synthetic postings of earlier calls first. Postings loaded from files are
    kept, unless a synthetic posting has the same id. Raises ValueError if `rows` is negative.
    """
    if rows < 0:
        raise ValueError(f"rows should be 0 or more, not {rows}")
    today = today or _today()
    day = today.toordinal() if profile is Profile.FRIENDLY else 0
    wanted = dict(zip(_MADE_FROM, (rows, seed, _STORED.index(profile), day), strict=True))
    database.prepare(path)
    with database.write_transaction(path) as connection:
        if {name: database.meta(connection, name) for name in _MADE_FROM} == wanted:
            return
        database.clear_synthetic(connection)
        made = generate(rows, seed, profile, today=today)
        database.store(connection, made, synthetic=True)
        friends = profile is Profile.FRIENDLY
        removed = friendly.removed(rows, seed, today) if friends else ()
        database.store_removed(connection, removed)
        for name, value in wanted.items():
            database.set_meta(connection, name, value)


def refresh(path: Path, *, today: date | None = None) -> None:
    """Moves the dates of friendly postings that were made on an earlier day to today."""
    database.prepare(path)
    with database.write_transaction(path) as connection:
        rows, seed, profile, _ = (database.meta(connection, name) for name in _MADE_FROM)
    if rows and _STORED[profile] is Profile.FRIENDLY:
        synthesize(path, rows, seed, today=today)


def _today() -> date:
    return datetime.now(UTC).date()

"""Stores the board's postings in one SQLite file, written by one process while others read."""

from __future__ import annotations

import gzip
import itertools
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from exporter.board import connections, coresignal_records, names, postings, words

_BATCH = 500
_COLUMNS = postings.Columns._fields
# The JSON texts have their own table, `documents`: a filter that scans all postings reads 200 bytes
# per posting instead of 3,000. The text indexes store no texts. Their rows are not deleted when a
# posting is replaced: the new version gets a new number, so the old rows match no posting.
# `expiries` holds the time, in microseconds of Unix time, at which the board first stored a posting
# as expired.
# `removed` holds postings that expired and were removed, under negative numbers.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS documents (number INTEGER PRIMARY KEY, json BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS postings (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, synthetic INTEGER NOT NULL,
    {", ".join(_COLUMNS)}
);
CREATE TABLE IF NOT EXISTS places (
    number INTEGER, place INTEGER, {", ".join(postings.Place._fields)},
    PRIMARY KEY (number, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS coresignal (
    record_id INTEGER PRIMARY KEY, number INTEGER NOT NULL UNIQUE, location TEXT, website TEXT
);
CREATE TRIGGER IF NOT EXISTS coresignal_gone AFTER DELETE ON postings
    BEGIN DELETE FROM coresignal WHERE number = old.number; END;
CREATE TABLE IF NOT EXISTS expiries (number INTEGER PRIMARY KEY, moment INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS removed (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, moment INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS postings_job_slug ON postings (job_slug);
{names.SCHEMA}
CREATE VIRTUAL TABLE IF NOT EXISTS titles
    USING fts5(title, content='', columnsize=0, {words.TOKENIZER});
CREATE VIRTUAL TABLE IF NOT EXISTS words
    USING fts5(body, content='', detail=none, columnsize=0, {words.TOKENIZER});
CREATE VIRTUAL TABLE IF NOT EXISTS company_words
    USING fts5(about, content='', detail=none, columnsize=0, {words.TOKENIZER});
"""  # noqa: S608 - literals only
_INSERTS = {
    "documents": "INSERT INTO documents VALUES (?, ?)",
    "postings": "INSERT INTO postings VALUES (?, ?, ?" + ", ?" * len(_COLUMNS) + ")",  # noqa: S608 - only ?
    "places": "INSERT INTO places VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "names": "INSERT OR REPLACE INTO names VALUES (?, ?)",
    "offices": "INSERT OR IGNORE INTO offices VALUES (?, ?)",
    "coresignal": "INSERT INTO coresignal VALUES (?, ?, ?, ?)",
    "expiries": "INSERT INTO expiries VALUES (?, ?)",
    "titles": "INSERT INTO titles (rowid, title) VALUES (?, ?)",
    "words": "INSERT INTO words (rowid, body) VALUES (?, ?)",
    "company_words": "INSERT INTO company_words (rowid, about) VALUES (?, ?)",
}


class LoadResult(NamedTuple):
    """Numbers of postings that a load has read and replaced."""

    loaded: int
    """Postings read from the input."""
    replaced: int
    """Postings that replaced an earlier posting with the same id."""


class LoadError(ValueError):
    """The file could not be loaded; the board is unchanged, and the text names the line."""


def prepare(database: Path) -> None:
    """Creates the database file if it is missing."""
    database.parent.mkdir(parents=True, exist_ok=True)
    _connect(database).close()


def load(database: Path, file: Path) -> LoadResult:
    """Adds all postings of a JSON Lines file to the board in one transaction.

    The file may be gzip-compressed, whatever its name. Only a line feed ends a line, because the
    texts of postings contain other line separators. Blank lines are skipped. If the board or an
    earlier line has a posting with the same id, the later one replaces it. Loading a file twice is
    idempotent. Readers see either none or all of the file's postings.

    Raises LoadError for an invalid line or a damaged gzip file, and OSError for an unreadable file.
    """
    with write_transaction(database) as connection:
        return store(connection, _read(file), synthetic=False)


@contextmanager
def write_transaction(database: Path) -> Iterator[sqlite3.Connection]:
    """Opens a write transaction: commits at the end of the block, rolls back after an error."""
    with closing(_connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def store(
    connection: sqlite3.Connection, found: Iterable[postings.Posting], *, synthetic: bool
) -> LoadResult:
    """Stores postings in order; returns the numbers of postings read and replaced.

    Of several postings with the same id, the last is kept. Each new or changed posting gets a
    number that was never used before; an unchanged posting keeps its number. Raises LoadError if
    two posting ids have the same record id in the Coresignal API.
    """
    number = before = meta(connection, "last_number")
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    loaded = replaced = 0
    remaining = iter(found)
    while batch := list(itertools.islice(remaining, _BATCH)):
        loaded += len(batch)
        latest: dict[str, postings.Posting] = {}
        for posting in batch:
            latest.pop(posting.id, None)
            latest[posting.id] = posting
        replaced += len(batch) - len(latest)
        rows: dict[str, list[tuple[object, ...]]] = {table: [] for table in _INSERTS}
        gone: list[tuple[int]] = []
        for posting in latest.values():
            old = connection.execute(
                "SELECT number, json, synthetic, moment FROM postings JOIN documents USING (number)"
                " LEFT JOIN expiries USING (number) WHERE id = ?",
                (posting.id,),
            ).fetchone()
            replaced += old is not None
            if old and old[1] == posting.json and old[2] == synthetic:
                continue
            if old:
                gone.append((old[0],))
            number += 1
            rows["documents"].append((number, posting.json))
            rows["postings"].append((number, posting.id, synthetic, *posting.columns))
            rows["coresignal"].append(coresignal_records.entry(number, posting.id, posting.json))
            rows["places"] += [(number, nth, *place) for nth, place in enumerate(posting.places)]
            rows["names"].append((names.uuid_of("job", posting.id), number))
            rows["offices"] += [
                (office, number)
                for place in posting.places
                if (office := names.office_of(names.Office(*place[:4])))
            ]
            if posting.columns.expired:
                rows["expiries"].append((number, old[3] if old and old[3] is not None else now))
            rows["titles"].append((number, posting.title))
            rows["words"].append((number, posting.words))
            rows["company_words"].append((number, posting.company_words))
        _replace(connection, gone, rows)
    if number != before:
        names.record_write_time(connection, before + 1)
        set_meta(connection, "last_number", number)
        bump_version(connection)
    return LoadResult(loaded, replaced)


def _replace(
    connection: sqlite3.Connection,
    gone: list[tuple[int]],
    rows: Mapping[str, list[tuple[object, ...]]],
) -> None:
    """Deletes the postings with these numbers and inserts the rows of each table."""
    for table in ("documents", "postings", "places", "expiries"):
        connection.executemany(f"DELETE FROM {table} WHERE number = ?", gone)  # noqa: S608
    for table, insert in _INSERTS.items():
        try:
            connection.executemany(insert, rows[table])
        except sqlite3.IntegrityError as error:
            if table != "coresignal":
                raise
            # Record ids are hashes. With equal record ids only one posting would be found.
            raise LoadError(
                f"two posting ids have the same record id in the Coresignal API ({error}): "
                "change the id that was added last. Nothing was loaded"
            ) from error


def clear_synthetic(connection: sqlite3.Connection) -> None:
    """Deletes all synthetic postings."""
    chosen = "WHERE number IN (SELECT number FROM postings WHERE synthetic)"
    if connection.execute(f"SELECT 1 FROM postings {chosen} LIMIT 1").fetchone():  # noqa: S608
        for table in ("documents", "places", "expiries", "postings"):
            connection.execute(f"DELETE FROM {table} {chosen}")  # noqa: S608
        bump_version(connection)


def count_open(database: Path) -> int:
    """Returns the number of postings that are not expired: those that a search finds."""
    with closing(reader(database)) as connection:
        (found,) = connection.execute("SELECT count(*) FROM postings WHERE NOT expired").fetchone()
    return int(found)


def store_removed(connection: sqlite3.Connection, expired: Iterable[tuple[str, datetime]]) -> None:
    """Replaces the ids of removed postings, each with the time at which it expired."""
    connection.execute("DELETE FROM removed")
    connection.executemany(
        "INSERT INTO removed VALUES (?, ?, ?)",
        (
            (-number, identity, int(moment.timestamp() * 1_000_000))
            for number, (identity, moment) in enumerate(expired, 1)
        ),
    )
    bump_version(connection)


def bump_version(connection: sqlite3.Connection) -> None:
    """Increases the board's version, so that readers drop their cached searches.

    Readers see the new version after the transaction is committed.
    """
    set_meta(connection, "version", meta(connection, "version") + 1)


def meta(connection: sqlite3.Connection, name: str) -> int:
    """Returns the number stored under a name; 0 if there is none."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def set_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Stores a number under a name."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def reader(database: Path) -> sqlite3.Connection:
    """Returns a read-only connection for use by one thread."""
    uri = f"{database.resolve().as_uri()}?mode=ro"
    connection = connections.connect(uri, uri=True, timeout=30)
    connection.execute(f"PRAGMA mmap_size = {1 << 32}")
    return connection


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, isolation_level=None, timeout=60)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = {-128 * 1024}")
    connection.executescript(_SCHEMA)
    return connection


def _read(file: Path) -> Iterator[postings.Posting]:
    with file.open("rb") as start:
        packed = start.read(2) == b"\x1f\x8b"
    line_number = 0
    try:
        with gzip.open(file) if packed else file.open("rb") as lines:
            for line_number, line in enumerate(lines, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if line_number == 1 else line
                if text.strip():
                    yield postings.from_line(text)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise LoadError(
            f"{file}: cannot be unpacked after line {line_number}: {error}. Nothing was loaded"
        ) from error
    except ValueError as error:
        raise LoadError(f"{file}, line {line_number}: {error}. Nothing was loaded") from error

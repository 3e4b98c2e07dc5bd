"""The board's database: one SQLite file, written by one process while others read."""

from __future__ import annotations

import gzip
import itertools
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from exporter.board import coresignal_records, names, postings, words

_BATCH = 500
_COLUMNS = postings.Columns._fields
# The texts stand in a table of their own: a filter that looks at every posting reads 200 bytes of
# each and not three thousand. Text indexes hold no texts, and rows of theirs whose posting was
# replaced are left behind: a posting's new version gets a new number, so they are never found.
# `expiries` has the moment, in microseconds of Unix time, at which the board first had a posting as
# expired; boards of earlier versions hold expired postings without one.
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


class Loaded(NamedTuple):
    """How many postings were read, and how many of them took the place of one with their id."""

    loaded: int
    replaced: int


class LoadError(ValueError):
    """The file was not loaded, and the board is as it was before; the text names the line."""


def prepare(database: Path) -> None:
    """Makes sure that the file exists and is a board; a board's postings stay as they are."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with closing(_connect(database)) as connection:
        lacking = meta(connection, "last_number") and not meta(connection, "coresignal")
    if lacking:
        with writing(database) as connection:
            _add_records(connection)


def load(database: Path, file: Path) -> Loaded:
    """Adds every posting of a JSON Lines file to the board, or none of them.

    The file may be gzip, whatever its name. Lines end with a line feed and nothing else, because
    texts of postings hold other line separators. Blank lines are passed over. A posting whose id
    the board already has, or a later line of the file has again, replaces the earlier one. Loading
    a file a second time changes nothing. Readers of the board see it before or after the load.

    Raises LoadError for a line that is no posting or a file that cannot be unpacked, OSError for
    one that cannot be read.
    """
    with writing(database) as connection:
        return store(connection, _read(file), synthetic=False)


@contextmanager
def writing(database: Path) -> Iterator[sqlite3.Connection]:
    """One transaction: everything written in it is kept, or nothing if it ends with an error."""
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
) -> Loaded:
    """Writes postings in their order, each with a number higher than any that was ever given."""
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
        for table in ("documents", "postings", "places", "expiries"):
            connection.executemany(f"DELETE FROM {table} WHERE number = ?", gone)  # noqa: S608
        for table, insert in _INSERTS.items():
            try:
                connection.executemany(insert, rows[table])
            except sqlite3.IntegrityError as error:
                if table != "coresignal":
                    raise
                # Record ids are hashes, and without this one posting would hide the other.
                raise LoadError(
                    f"two ids of postings give one record id of the Coresignal API ({error}): "
                    "change the one that was added last. Nothing was loaded"
                ) from error
    if number != before:
        names.remember_moment(connection, before + 1)
        if not before:
            set_meta(connection, "coresignal", 1)
        set_meta(connection, "last_number", number)
        changed(connection)
    return Loaded(loaded, replaced)


def _add_records(connection: sqlite3.Connection) -> None:
    """Adds what postings lack that were stored before the board knew of Coresignal's records."""
    lacking = connection.execute(
        "SELECT number, id, json FROM postings JOIN documents USING (number)"
        " WHERE number NOT IN (SELECT number FROM coresignal)"
    )
    while batch := lacking.fetchmany(_BATCH):
        entries = [coresignal_records.entry(*row) for row in batch]
        connection.executemany(_INSERTS["coresignal"], entries)
    set_meta(connection, "coresignal", 1)


def clear_synthetic(connection: sqlite3.Connection) -> None:
    """Takes out all synthetic postings."""
    chosen = "WHERE number IN (SELECT number FROM postings WHERE synthetic)"
    if connection.execute(f"SELECT 1 FROM postings {chosen} LIMIT 1").fetchone():  # noqa: S608
        for table in ("documents", "places", "expiries", "postings"):
            connection.execute(f"DELETE FROM {table} {chosen}")  # noqa: S608
        changed(connection)


def changed(connection: sqlite3.Connection) -> None:
    """Tells readers, once the transaction is committed, that what they remember is old."""
    set_meta(connection, "version", meta(connection, "version") + 1)


def meta(connection: sqlite3.Connection, name: str) -> int:
    """A number remembered under a name, 0 if there is none."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def set_meta(connection: sqlite3.Connection, name: str, value: int) -> None:
    """Remembers a number under a name."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def reader(database: Path) -> sqlite3.Connection:
    """A connection that cannot write, for one thread."""
    uri = f"{database.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    connection.execute(f"PRAGMA mmap_size = {1 << 32}")
    return connection


def _connect(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, isolation_level=None, timeout=60)
    connection.execute("PRAGMA page_size = 16384")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA cache_size = {-128 * 1024}")
    connection.executescript(_SCHEMA)
    names.complete(connection)
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

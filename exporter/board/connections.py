"""SQLite connections of the board's threads."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class ThreadConnection(sqlite3.Connection):
    """A connection for use by one thread; it is closed with its last reference.

    A thread ends without a hook that could close its connection, and Python 3.13 and later warn of
    a connection that is not closed. The last reference may be dropped by another thread, so the
    connection must be opened with `check_same_thread=False`.
    """

    def __del__(self) -> None:
        self.close()


def connect(database: str | Path, *, uri: bool = False, timeout: float = 5.0) -> ThreadConnection:
    """Opens a connection for one thread, without implicit transactions."""
    return sqlite3.connect(
        database,
        uri=uri,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        factory=ThreadConnection,
    )

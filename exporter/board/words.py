"""Splits texts into words exactly as the board's text index does."""

from __future__ import annotations

import sqlite3
import threading

from exporter.board import connections

TOKENIZER = "tokenize=\"unicode61 remove_diacritics 2 tokenchars '+#'\""
"""FTS5 tokenizer: words are letters, digits, `+` and `#`; case and accents do not matter."""

_thread = threading.local()


def tokens(text: str) -> list[str]:
    """Returns the words of a text in order, exactly as the board's text index stores them.

    No word contains a quotation mark. Uses SQLite's own tokenizer, because the characters that
    count as letters depend on its version. A word that the tokenizer would split in two causes an
    error in an index without positions.
    """
    memory: sqlite3.Connection | None = getattr(_thread, "memory", None)
    if memory is None:
        memory = connections.connect(":memory:")
        memory.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, {TOKENIZER})")
        memory.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(texts, instance)")
        _thread.memory = memory
    memory.execute("DELETE FROM texts")
    memory.execute("INSERT INTO texts VALUES (?)", (text,))
    return [row[0] for row in memory.execute("SELECT term FROM terms ORDER BY offset")]

"""The words that the board's text index makes of a text."""

from __future__ import annotations

import sqlite3
import threading

TOKENIZER = "tokenize=\"unicode61 remove_diacritics 2 tokenchars '+#'\""
"""Words are runs of letters and digits in any case and accent; C++ and C# are words too."""

_thread = threading.local()


def tokens(text: str) -> list[str]:
    """The words of a text exactly as the index has them, in their order; none has a quote in it.

    SQLite's own tokenizer is asked: which characters are letters depends on its version, and a
    word that it would cut in two is an error in an index without positions.
    """
    memory: sqlite3.Connection | None = getattr(_thread, "memory", None)
    if memory is None:
        memory = sqlite3.connect(":memory:", isolation_level=None)
        memory.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, {TOKENIZER})")
        memory.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(texts, instance)")
        _thread.memory = memory
    memory.execute("DELETE FROM texts")
    memory.execute("INSERT INTO texts VALUES (?)", (text,))
    return [row[0] for row in memory.execute("SELECT term FROM terms ORDER BY offset")]

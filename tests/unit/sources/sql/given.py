"""Test table, and functions that read its rows through a source."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from exporter.sources.sql.source import SqlSource

Make = Callable[..., SqlSource]

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
NUMBERED = "CREATE TABLE jobs (id INTEGER PRIMARY KEY, user_id TEXT, note TEXT)"


def filled(count: int, user: str = "u1", first: int = 1) -> str:
    rows = ", ".join(f"({number}, '{user}', NULL)" for number in range(first, first + count))
    return f"INSERT INTO jobs VALUES {rows}"


def query(source: SqlSource, raw: Mapping[str, Any] | None = None, user: str = "u1") -> Any:
    return source.search(raw or {}, NOW, user_id=user).query


def read(source: SqlSource, raw: Mapping[str, Any] | None = None, user: str = "u1") -> list[Any]:
    """Reads all pages of a query and returns their parsed rows."""
    found: list[Any] = []
    asked, cursor = query(source, raw, user), source.start(None, 0)
    while cursor is not None:
        page = source.fetch(asked, cursor)
        found += [json.loads(bytes(row)) for row in page.rows]
        cursor = page.next
    return found


def ids(source: SqlSource, raw: Mapping[str, Any] | None = None, user: str = "u1") -> list[Any]:
    return [row["id"] for row in read(source, raw, user)]

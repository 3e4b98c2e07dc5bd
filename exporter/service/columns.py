"""Checks the columns that a caller chooses for an export."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from exporter.core import limits
from exporter.errors import FieldProblem, problem
from exporter.service.configured_sources import ConfiguredSources

MAX_COLUMNS = limits.COLUMNS.default
"""Maximum number of columns of one export."""
MAX_COLUMN_PROBLEMS = 100
"""Maximum number of unknown columns that one answer names."""
MAX_SUGGESTED_COLUMNS = 3
"""Unknown columns of one request for which similar names are searched."""


def list_problems(columns: Sequence[str] | None) -> Iterator[FieldProblem]:
    """Yields what is wrong with the list itself: its length, and empty or repeated names."""
    if columns is None:
        return
    if not 1 <= len(columns) <= MAX_COLUMNS:
        yield problem(("columns",), f"{len(columns)} columns are given; give 1 to {MAX_COLUMNS}")
        return
    size, most = sum(map(len, columns)), limits.STORED_SEARCH_BYTES.default
    if size > most:
        text = f"the names have {size} characters in total; give names of at most {most}"
        yield problem(("columns",), text)
        return
    seen: set[str] = set()
    for place, name in enumerate(columns):
        if not name:
            yield problem(("columns", place), "the name of a column is empty")
        elif name in seen:
            yield problem(("columns", place), f"column {name!r} is given twice")
        seen.add(name)


def unknown_problems(
    columns: Sequence[str] | None, source: str, sources: ConfiguredSources
) -> Iterator[FieldProblem]:
    """Yields a problem for each column that the source does not declare."""
    if source not in sources or not columns:
        return
    declared = sources.declared(source)
    known, shown = frozenset(declared), 0
    for place, name in enumerate(columns):
        if not name or name in known or shown >= MAX_COLUMN_PROBLEMS:
            continue
        shown += 1
        hint = ""
        if shown <= MAX_SUGGESTED_COLUMNS:
            # The cells of a nested field are the JSON text of its first level.
            outer = name.partition(".")[0]
            near = [outer] if outer in known else difflib.get_close_matches(name, declared)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            hint += f"source {source!r} has {', '.join(declared)}"
        text = f"unknown column {name[:100]!r}: {hint or 'see the columns of the source'}"
        yield problem(("columns", place), text, "unknown_column")

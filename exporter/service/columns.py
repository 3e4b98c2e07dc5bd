"""Reads and checks the columns that a caller chooses for an export."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from exporter.core import columns, limits
from exporter.core.columns import Chosen, Picked, field_of, name_of
from exporter.errors import FieldProblem, problem
from exporter.service.configured_sources import ConfiguredSources

MAX_COLUMNS = limits.COLUMNS.default
"""Maximum number of columns of one export."""
MAX_COLUMN_PROBLEMS = 100
"""Maximum number of unknown columns that one answer names."""
MAX_SUGGESTED_COLUMNS = 3
"""Unknown columns of one request for which similar names are searched."""
ALL = "*"
"""Stands for the columns that a file has without a choice."""

Asked = Sequence[str | Mapping[str, str]]
"""Columns as a caller describes them: texts for `columns.parse`, `*`, and objects {path: name}."""


def texts(asked: Asked) -> list[str]:
    """Returns the columns as texts; the pairs of an object become `path as name`.

    >>> texts(["title", {"salary_range.min": "low"}])
    ['title', 'salary_range.min as low']
    """
    found: list[str] = []
    for one in asked:
        if isinstance(one, str):
            found.append(one)
        else:
            found += [f"{path} as {name}" for path, name in one.items()]
    return found


def list_problems(asked: Asked | None) -> Iterator[FieldProblem]:
    """Yields what is wrong with the list itself: its length, and empty or repeated entries."""
    if asked is None:
        return
    found = texts(asked)
    if not 1 <= len(found) <= MAX_COLUMNS:
        yield problem(("columns",), f"{len(found)} columns are given; give 1 to {MAX_COLUMNS}")
        return
    size, most = sum(map(len, found)), limits.STORED_SEARCH_BYTES.default
    if size > most:
        text = f"the names have {size} characters in total; give names of at most {most}"
        yield problem(("columns",), text)
        return
    seen: set[str] = set()
    for place, name in enumerate(found):
        if not name:
            yield problem(("columns", place), "the name of a column is empty")
        elif name in seen:
            yield problem(("columns", place), f"column {name!r} is given twice")
        seen.add(name)


def choose(asked: Asked | None, source: str, sources: ConfiguredSources) -> tuple[Chosen, ...]:
    """Returns the columns of an export whose request `problems` has found right."""
    known = sources.declared(source)
    found: list[Chosen] = []
    for text in texts(asked or ()):
        found += sources.columns(source) if text == ALL else [columns.parse(text, known)]
    return tuple(found)


def problems(
    asked: Asked | None, source: str, sources: ConfiguredSources
) -> Iterator[FieldProblem]:
    """Yields a problem for each column that is no field of the source, or no part of one.

    Two columns of one name are a problem, too; so are parts of a field that has none.
    """
    if source not in sources or not asked or any(list_problems(asked)):
        return
    declared, types = sources.declared(source), sources.types(source)
    named: set[str] = set()
    shown = 0
    for place, text in enumerate(texts(asked)):
        where = ("columns", place)
        if text == ALL:
            named |= set(sources.columns(source))
            continue
        try:
            one = columns.parse(text, declared)
        except ValueError as error:
            yield problem(where, str(error), "unknown_column")
            continue
        name, field = name_of(one), field_of(one)
        if name in named:
            yield problem(where, f"two columns are named {name!r}: rename one, `path as name`")
        named.add(name)
        kind = types.get(field, "text")
        if isinstance(one, Picked) and len(one.path) > 1 and field in types and kind != "json":
            yield problem(
                where, f"column {field!r} is {kind}, which has no parts", "unknown_column"
            )
        if field not in declared and shown < MAX_COLUMN_PROBLEMS:
            shown += 1
            hint = ""
            if shown <= MAX_SUGGESTED_COLUMNS:
                near = difflib.get_close_matches(field, declared)
                hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
                hint += f"source {source!r} has {', '.join(declared)}"
            said = f"unknown column {field[:100]!r}: {hint or 'see the columns of the source'}"
            yield problem(where, said, "unknown_column")

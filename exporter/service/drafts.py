"""Turns the request of a new export into its specification, or names every wrong field.

Nothing here changes a record. Nothing here blocks, except the check of a search for which
`Source.search_may_block` is true.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import msgspec

from exporter.core import canonical, limits
from exporter.core.columns import name_of, types_of
from exporter.core.exports import PRIORITIES, Dialect, Export, Spec
from exporter.core.plans import Plan
from exporter.errors import FieldProblem, QueryError, problem, within
from exporter.formats import registry
from exporter.formats.registry import COMPRESSIONS, FORMATS
from exporter.service import columns, file_names
from exporter.service.configured_sources import ConfiguredSources
from exporter.sources.base import Search
from exporter.store import codec


class NewExport(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's request for an export, in the service's terms, whichever the surface is."""

    id: str = msgspec.field(default_factory=lambda: str(uuid.uuid4()))
    """The id of the export, unless an earlier attempt created it under another id."""
    user_id: str
    surface: str
    source: str
    search: Mapping[str, Any]
    """The search as the source reads it; ignored if `ids` are given."""
    ids: Sequence[str] | None = None
    """Distinct ids of the postings to export, in the order of the file."""
    limit: int | None = None
    """Maximum number of rows; None: the limit of the search."""
    format: str = "json"
    formats: Collection[str] = FORMATS.keys()
    """The formats that the surface allows."""
    columns: columns.Asked | None = None
    dialect: Dialect = Dialect()
    compression: str = "none"
    rows_per_file: int | None = None
    """Maximum number of rows in each volume of the file; None: one volume."""
    keep: timedelta | None = None
    """Retention of the file; None: that of the settings."""
    priority: int = 0
    file_name: str | None = None
    """The name of the file; the extension of the format is added if it is missing."""
    file_stem: str | None = None
    """Beginning of a default name, before the day and the id; None: the source."""
    name: str = ""
    """Name that the caller gives the export; empty: none."""
    metadata: Mapping[str, str] = {}
    extension: str | None = None
    """Extension of the file name, before that of the compression; None: that of the format."""
    wrong: Sequence[FieldProblem] = ()
    """Problems that the surface found; the draft is refused with them and all others."""


def draft(new: NewExport, plan: Plan, sources: ConfiguredSources, now: datetime) -> Spec:
    """Returns the specification of the export, still without reserved credits and webhook.

    Raises NotInPlan if the plan does not include such an export; otherwise QueryError that names
    every wrong field; otherwise NotInPlan if the priority is too high.
    """
    by_ids = new.ids is not None
    plan.check(sources.feature(new.source, new.search, by_ids=by_ids))
    checked = check(new, sources, now)
    plan.check_priority(new.priority)
    chosen = columns.choose(new.columns, new.source, sources)
    if FORMATS[new.format].needs_columns and not chosen:
        chosen = tuple(sources.columns(new.source))
    registry.find(
        new.format, tuple(map(name_of, chosen))
    )  # or ConfigurationError, for want of columns
    file_name = new.file_name or file_names.default(new.file_stem or new.source, now, new.id)
    extension = registry.extension(new.format, new.compression, new.extension)
    return Spec(
        id=new.id,
        user_id=new.user_id,
        surface=new.surface,
        source=new.source,
        query=checked.query,
        query_sha256=canonical.digest(checked.query),
        request=checked.echo,
        format=new.format,
        dialect=new.dialect,
        columns=chosen,
        types=types_of(chosen, sources.types(new.source)),
        limit=checked.limit if new.limit is None else new.limit,
        offset=checked.offset,
        ids=None if new.ids is None else len(new.ids),
        compression=new.compression,
        rows_per_file=new.rows_per_file,
        keep_seconds=None if new.keep is None else new.keep.total_seconds(),
        priority=new.priority,
        file_name=file_names.extended(file_name, extension),
        account=plan.key_id,
        concurrency=plan.concurrency,
        name=new.name,
        metadata=dict(new.metadata),
        created_by=plan.key_id,
    )


def redraft(export: Export, new_id: str, plan: Plan, sources: ConfiguredSources) -> Spec:
    """Returns the specification of a new export with the same request as the given export.

    Dates that were computed for the first request, and its webhook, stay the same. Raises NotInPlan
    like `draft`, and QueryError if the record cannot be read, the list of its ids is deleted, or
    the plan charges the export and it has no reserved credits.
    """
    if not export.readable:
        text = "the record of this export cannot be read: create the export again"
        raise QueryError([problem(("query",), text)])
    before = export.spec
    feature = sources.feature(before.source, before.query, by_ids=before.ids is not None)
    plan.check(feature)
    plan.check_priority(before.priority)
    if before.ids is not None:
        text = "the list of ids of this export is deleted: send it again as a new export"
        raise QueryError([problem(("ids",), text)])
    if plan.charges(feature) and not before.reserved:
        text = "this export has no reserved credits: create a new export with your key"
        raise QueryError([problem(("limit",), text)])
    return msgspec.structs.replace(
        before,
        id=new_id,
        file_name=file_names.renewed(before.file_name, before.id, new_id),
        account=plan.key_id,
        reserved=before.reserved if plan.charges(feature) else 0,
        concurrency=plan.concurrency,
        created_by=plan.key_id,
        retry_of=before.id,
    )


def check(new: NewExport, sources: ConfiguredSources, now: datetime) -> Search:
    """Returns the search in canonical form; raises QueryError that names every wrong field.

    The problems are those of the surface, then those under `format`, `compression`, `bom`,
    `priority`, `limit`, `columns`, `file_name`, `name`, `metadata` and `search`. An unknown source
    comes first.
    """
    found = list(field_problems(new, sources))
    if new.source not in sources:
        raise QueryError([problem(("source",), sources.unknown(new.source)), *found])
    search = new.search if new.ids is None else {}
    if too_long := _too_long(search):
        raise QueryError([too_long, *found])
    try:
        checked = sources.get(new.source).search(search, now, user_id=new.user_id)
    except QueryError as error:
        raise QueryError([*found, *within("search", error.problems)]) from None
    if too_long := _too_long(checked.query) or _too_long(checked.echo):
        found.insert(0, too_long)
    if found:
        raise QueryError(found)
    return checked


def field_problems(new: NewExport, sources: ConfiguredSources) -> Iterator[FieldProblem]:
    """Yields the problems of the surface, and of all fields but the source and the search."""
    yield from new.wrong
    yield from _format_problems(new)
    if new.priority not in PRIORITIES:
        text = f"priority {new.priority} is not within 0 (default) to 9 (most urgent)"
        yield problem(("priority",), text)
    if new.limit is not None and new.limit < 1:
        text = f"limit {new.limit} is not 1 or more; leave the limit out to export all rows"
        yield problem(("limit",), text)
    yield from columns.list_problems(new.columns)
    for text in file_names.problems(new.file_name):
        yield problem(("file_name",), text)
    yield from _label_problems(new)
    yield from columns.problems(new.columns, new.source, sources)


def _label_problems(new: NewExport) -> Iterator[FieldProblem]:
    most = limits.EXPORT_NAME_CHARS.default
    if len(new.name) > most:
        yield problem(("name",), f"the name has {len(new.name)} characters: give at most {most}")
    most = limits.METADATA_PAIRS.default
    if len(new.metadata) > most:
        yield problem(("metadata",), f"{len(new.metadata)} pairs: give at most {most}")
    bounds = (limits.METADATA_KEY_CHARS.default, limits.METADATA_VALUE_CHARS.default)
    for key, value in islice(new.metadata.items(), most):
        if not key or len(key) > bounds[0]:
            text = f"a key has {len(key)} characters: give 1 to {bounds[0]}"
            yield problem(("metadata", key[: bounds[0]]), text)
        if len(value) > bounds[1]:
            text = f"the value has {len(value)} characters: give at most {bounds[1]}"
            yield problem(("metadata", key[: bounds[0]]), text)


def _format_problems(new: NewExport) -> Iterator[FieldProblem]:
    if new.format not in new.formats:
        known = ", ".join(new.formats)
        yield problem(("format",), f"unknown format {new.format!r}; known: {known}")
    if new.compression not in COMPRESSIONS:
        known = ", ".join(COMPRESSIONS)
        yield problem(("compression",), f"unknown compression {new.compression!r}; known: {known}")
    if new.format not in new.formats:
        return
    chosen = FORMATS[new.format]
    if not chosen.compressible and new.compression in COMPRESSIONS and new.compression != "none":
        text = f"a {new.format} file is compressed within itself: leave the compression out"
        yield problem(("compression",), text)
    if new.dialect.bom and "bom" not in chosen.options:
        marked = " or ".join(registry.names_with("bom"))
        text = f"only a {marked} file can have a byte order mark, not {new.format}"
        yield problem(("bom",), text)


def _too_long(search: Mapping[str, Any]) -> FieldProblem | None:
    size, most = len(codec.encode(search)), limits.STORED_SEARCH_BYTES.default
    if size <= most:
        return None
    text = f"the search takes {size} bytes as JSON, and at most {most} are stored: split it"
    return problem(("search",), text)

"""The one engine under every surface: what a process needs to create and serve exports."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from exporter import admission, cleaning, queries
from exporter.clock import Clock, SystemClock
from exporter.errors import ConfigurationError, FieldProblem, QueryError
from exporter.exports import PRIORITIES, Export, Spec, State
from exporter.formats import registry as formats
from exporter.formats.base import Dialect
from exporter.settings import Config, Settings
from exporter.sources import registry as sources
from exporter.sources.base import Source
from exporter.storage.base import Storage
from exporter.store.base import ExportStore, Idempotency

MOST_COLUMNS = 1_000


class Engine:
    """Creates, finds and cancels exports for all surfaces; holds no state of its own."""

    def __init__(
        self,
        *,
        settings: Settings,
        config: Config,
        store: ExportStore,
        storage: Storage,
        clock: Clock | None = None,
        budgets: admission.Open | None = None,
    ) -> None:
        self.settings = settings
        self.config = config
        self.store = store
        self.storage = storage
        self.clock = clock or SystemClock()
        self._budgets = budgets or admission.MemoryBudgets(self.clock).open
        self._sources: dict[str, Source] = {}

    def source(self, name: str) -> Source:
        """The source of that name. Raises ConfigurationError naming those that exist."""
        if name not in self._sources:
            try:
                config = self.config.sources[name]
            except KeyError:
                known = ", ".join(sorted(self.config.sources)) or "none"
                raise ConfigurationError(
                    f"source {name!r} is not configured; configured: {known}"
                ) from None
            rate = config.rate
            budget = self._budgets(name, rate) if rate is not None else admission.UNLIMITED
            self._sources[name] = sources.make(config, self.clock, budget)
        return self._sources[name]

    def create(
        self,
        *,
        user_id: str,
        surface: str,
        source: str,
        search: Mapping[str, Any],
        format: str,  # noqa: A002 - the word of every contract
        columns: Sequence[str] | None = None,
        priority: int = 0,
        guard: bool = False,
        limit: int | None = None,
        export_id: str | None = None,
        idempotency: Idempotency | None = None,
    ) -> Export:
        """A queued export, recorded and in line; or the one that an earlier try of the same
        request created, as it stands now: then its id is not `export_id`.

        `limit` outranks the search's own. Raises QueryError naming every wrong field, with
        locations under `search`, `format`, `columns`, `priority`, `limit` and `source`; KeyReused
        or KeySpent for an idempotency key that came with another request or whose export is no
        more; nothing is recorded then. Raises StoreUnavailable if the record could not be written.
        """
        problems: list[FieldProblem] = []
        if source not in self.config.sources:
            known = ", ".join(sorted(self.config.sources)) or "none"
            problems.append(
                _problem(("source",), f"source {source!r} is not configured; configured: {known}")
            )
        if format not in formats.NAMES:
            known = ", ".join(formats.NAMES)
            problems.append(_problem(("format",), f"unknown format {format!r}; known: {known}"))
        if priority not in PRIORITIES:
            problems.append(
                _problem(
                    ("priority",),
                    f"priority {priority} is not within 0 (default) to 9 (most urgent)",
                )
            )
        if limit is not None and limit < 1:
            problems.append(
                _problem(("limit",), f"limit {limit} is not 1 or more; leave it out for all")
            )
        problems += _column_problems(columns)
        now = self.clock.now()
        checked = None
        if source in self.config.sources:
            try:
                checked = self.source(source).search(search, now)
            except QueryError as error:
                problems += [
                    {**problem, "loc": ("search", *problem["loc"])} for problem in error.problems
                ]
        if problems or checked is None:
            raise QueryError(problems)

        given = tuple(columns) if columns else ()
        if format == "csv" and not given:
            given = tuple(self.config.sources[source].columns or self.source(source).columns)
        dialect = Dialect(guard=guard)
        extension = formats.make(format, dialect, given).extension
        spec = Spec(
            id=export_id or str(uuid.uuid4()),
            user_id=user_id,
            surface=surface,
            source=source,
            query=checked.query,
            query_sha256=queries.digest(checked.query),
            request=checked.echo,
            format=format,
            dialect=dialect,
            columns=given,
            limit=limit if limit is not None else checked.limit,
            offset=checked.offset,
            priority=priority,
            file_name=f"{_safe(source)}-jobs-{now:%Y-%m-%d}.{extension}",
        )
        return self.store.create(spec, idempotency)

    def retry(
        self, export: Export, *, export_id: str, idempotency: Idempotency | None = None
    ) -> Export:
        """A new export of exactly what another was asked, its dates included; see `create`."""
        return self.store.create(msgspec.structs.replace(export.spec, id=export_id), idempotency)

    def find(self, user_id: str, export_id: str) -> Export | None:
        """The user's export of that id; another user's is None like one that never was."""
        export = self.store.get(export_id)
        return export if export is not None and export.user_id == user_id else None

    def cancel(self, user_id: str, export_id: str) -> Export | None:
        """Ask for the end of the user's export; the record after that, None if not theirs."""
        if self.find(user_id, export_id) is None:
            return None
        return self.store.request_cancel(export_id, keep_record=self.settings.record_retention)

    def delete(self, user_id: str, export_id: str) -> State | None:
        """Hide the user's export for good, at once; its state, None if they have none of that id.

        Unless it is processing, `purge` may remove its file now; cleaning does so in any case.
        """
        return self.store.delete(export_id, user_id)

    def purge(self, export_id: str) -> None:
        """Remove all that a deleted export left in the bucket. Raises StorageUnavailable."""
        cleaning.purge(self.store, self.storage, export_id)

    def link(self, export: Export) -> tuple[str, datetime] | None:
        """A URL that downloads the file with a bare GET, signed now, and when it dies.

        It dies with the signature or with the file, whichever is first. None unless the file is
        published and still kept.
        """
        now = self.clock.now()
        if export.state is not State.FINISHED or export.result is None:
            return None
        if export.file_expires_at is None or export.file_expires_at <= now:
            return None
        dies = min(now + self.settings.link_ttl, export.file_expires_at)
        seconds = max(1, int((dies - now).total_seconds()))
        return self.storage.presign(export.result.key, seconds), dies


def _problem(loc: Sequence[str | int], msg: str, kind: str = "value_error") -> FieldProblem:
    return {"loc": tuple(loc), "msg": msg, "type": kind}


def _column_problems(columns: Sequence[str] | None) -> list[FieldProblem]:
    if columns is None:
        return []
    if not 1 <= len(columns) <= MOST_COLUMNS:
        return [_problem(("columns",), f"{len(columns)} columns; give 1 to {MOST_COLUMNS}")]
    seen: set[str] = set()
    problems = []
    for place, name in enumerate(columns):
        if not name:
            problems.append(_problem(("columns", place), "a column needs a name"))
        elif name in seen:
            problems.append(_problem(("columns", place), f"column {name!r} is given twice"))
        seen.add(name)
    return problems


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)

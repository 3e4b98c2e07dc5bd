"""The one engine under every surface: what a process needs to create and serve exports."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from exporter.clock import Clock, SystemClock
from exporter.config import Config
from exporter.core import canonical, plans, rates
from exporter.core.exports import PRIORITIES, Dialect, Export, Hook, Spec, State
from exporter.core.plans import Plan
from exporter.errors import ConfigurationError, FieldProblem, QueryError
from exporter.formats import registry
from exporter.maintenance import cleaning
from exporter.service import id_lists
from exporter.settings import Settings
from exporter.sources import registry as sources
from exporter.sources.base import Search, Source
from exporter.sources.id_list import IdList
from exporter.storage.base import Storage
from exporter.store.base import ExportStore, Idempotency

MOST_COLUMNS = 1_000


class ExportService:
    """Creates, finds and cancels exports for all surfaces; holds no state of its own."""

    def __init__(
        self,
        *,
        settings: Settings,
        config: Config,
        store: ExportStore,
        storage: Storage,
        clock: Clock | None = None,
        budgets: rates.OpenBudget | None = None,
    ) -> None:
        self.settings = settings
        self.config = config
        self.store = store
        self.storage = storage
        self.clock = clock or SystemClock()
        self._budgets = budgets or rates.MemoryBudgets(self.clock).open
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
            rate = config.rate or sources.RATES.get(config.type)
            budget = self._budgets(name, rate) if rate is not None else rates.UNLIMITED
            self._sources[name] = sources.make(config, self.clock, budget)
        return self._sources[name]

    def reader(self, export: Export) -> Source:
        """What an export reads from. Raises ConfigurationError like `source`."""
        source = self.source(export.spec.source)
        if export.spec.ids is None:
            return source

        def load() -> Sequence[str]:
            return id_lists.read(self.storage, export.id)

        return IdList(source, load)

    def create(
        self,
        *,
        user_id: str,
        surface: str,
        source: str,
        search: Mapping[str, Any],
        format: str,  # noqa: A002 - the word of every contract
        formats: Sequence[str] = registry.NAMES,
        columns: Sequence[str] | None = None,
        priority: int = 0,
        dialect: Dialect | None = None,
        compression: str = "none",
        limit: int | None = None,
        ids: Sequence[str] | None = None,
        rows_per_file: int | None = None,
        keep: timedelta | None = None,
        file_stem: str | None = None,
        export_id: str | None = None,
        idempotency: Idempotency | None = None,
        plan: Plan = plans.UNLIMITED,
        feature: str = "export",
        webhook: Callable[[], Hook] | None = None,
        wrong: Sequence[FieldProblem] = (),
    ) -> Export:
        """A queued export, recorded and in line; or the one that an earlier try of the same
        request created, as it stands now: then its id is not `export_id`.

        `formats` are those that the surface knows. `limit` outranks the search's own. With `ids`,
        which should be distinct, the postings of those are exported, in that order, and `search`
        is not looked at. With `rows_per_file` the result names stretches of the file that are
        whole by themselves. `webhook` is called when nothing is wrong any more: it may record the
        endpoint that it names.

        Raises QueryError naming every wrong field, with locations under `search`, `format`,
        `columns`, `priority`, `compression`, `limit` and `source`, after what the surface itself
        found `wrong`; NotInPlan or CreditsSpent by the caller's plan; KeyReused or KeySpent for an
        idempotency key that came with another request or whose export is no more; no export is
        recorded then. A metered plan pays for each record: credits are set aside for the limit, or
        else for as many as the source counts now, which is then the limit. Raises SourceError if
        it has to be asked and does not answer, StoreUnavailable or StorageUnavailable if the
        record or the ids could not be written, and what `webhook` raises.
        """
        plan.check(feature)
        checked = self._checked(
            user_id=user_id,
            source=source,
            search=search if ids is None else {},
            problems=[
                *wrong,
                *_format_problems(format, formats, compression),
                *_priority_problems(priority),
                *_limit_problems(limit),
                *_column_problems(columns),
            ],
        )
        plan.check_priority(priority)
        limit = limit if limit is not None else checked.limit
        reserved = self._price(plan, source, checked, limit, ids)
        now = self.clock.now()
        given = tuple(columns) if columns else ()
        if format == "csv" and not given:
            given = tuple(self.config.sources[source].columns or self.source(source).columns)
        dialect = dialect or Dialect()
        extension = registry.make(format, dialect, given).extension + registry.SUFFIXES[compression]
        spec = Spec(
            id=export_id or str(uuid.uuid4()),
            user_id=user_id,
            surface=surface,
            source=source,
            query=checked.query,
            query_sha256=canonical.digest(checked.query),
            request=checked.echo,
            format=format,
            dialect=dialect,
            columns=given,
            limit=reserved or limit,
            offset=checked.offset,
            ids=None if ids is None else len(ids),
            compression=compression,
            rows_per_file=rows_per_file,
            keep_seconds=None if keep is None else keep.total_seconds(),
            priority=priority,
            file_name=f"{file_stem or _safe(source)}-jobs-{now:%Y-%m-%d}.{extension}",
            account=plan.key_id,
            reserved=reserved,
            concurrency=plan.concurrency,
            webhook=webhook() if webhook else None,
        )
        if ids is not None:
            id_lists.write(self.storage, spec.id, ids)
        export = self.store.create(spec, idempotency)
        if ids is not None and export.id != spec.id:
            # A crash before this line leaves an object without an export, which cleaning finds.
            id_lists.delete(self.storage, spec.id)
        return export

    def estimate(
        self, source: str, search: Mapping[str, Any], *, user_id: str, limit: int | None = None
    ) -> int | None:
        """How many records an export of this search would hold now; None if the source does not
        count. Costs nothing. Raises QueryError as `create` does, and SourceError.
        """
        checked = self._checked(
            user_id=user_id, source=source, search=search, problems=_limit_problems(limit)
        )
        return self._count(source, checked, limit if limit is not None else checked.limit)

    def retry(
        self,
        export: Export,
        *,
        export_id: str,
        idempotency: Idempotency | None = None,
        plan: Plan = plans.UNLIMITED,
    ) -> Export:
        """A new export of exactly what another was asked, its dates and its webhook included; see
        `create`.

        Raises QueryError for one of listed ids: the list is deleted when an export ends.
        """
        if export.spec.ids is not None:
            text = "its list of ids is no more: send it again as a new export"
            raise QueryError([_problem(("ids",), text)])
        spec = msgspec.structs.replace(
            export.spec,
            id=export_id,
            account=plan.key_id,
            reserved=export.spec.reserved if plan.metered else 0,
            concurrency=plan.concurrency,
        )
        if plan.metered and not spec.reserved:
            text = "it was made without credits set aside: create it anew with your key"
            raise QueryError([_problem(("limit",), text)])
        return self.store.create(spec, idempotency)

    def _checked(
        self,
        *,
        user_id: str,
        source: str,
        search: Mapping[str, Any],
        problems: Iterable[FieldProblem],
    ) -> Search:
        """The search made canonical. Raises QueryError with all problems, those given included."""
        found = list(problems)
        if source not in self.config.sources:
            known = ", ".join(sorted(self.config.sources)) or "none"
            text = f"source {source!r} is not configured; configured: {known}"
            raise QueryError([_problem(("source",), text), *found])
        try:
            checked = self.source(source).search(search, self.clock.now(), user_id=user_id)
        except QueryError as error:
            found += [{**one, "loc": ("search", *one["loc"])} for one in error.problems]
            raise QueryError(found) from None
        if found:
            raise QueryError(found)
        return checked

    def _count(self, source: str, checked: Search, limit: int | None) -> int | None:
        total = self.source(source).count(checked.query)
        if total is None:
            return None
        rest = max(total - checked.offset, 0)
        return rest if limit is None else min(rest, limit)

    def _price(
        self,
        plan: Plan,
        source: str,
        checked: Search,
        limit: int | None,
        ids: Sequence[str] | None,
    ) -> int:
        """Credits to set aside: 0 unless the plan is metered, else at least 1."""
        if not plan.metered:
            return 0
        if ids is not None:
            most: int | None = len(ids) if limit is None else min(limit, len(ids))
        else:
            most = limit if limit is not None else self._count(source, checked, None)
        if most is None:
            text = f"source {source!r} does not say how many match, so a limit is needed"
            raise QueryError([_problem(("limit",), text)])
        return max(most, 1)

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


def _format_problems(name: str, formats: Sequence[str], compression: str) -> Iterator[FieldProblem]:
    if name not in formats:
        known = ", ".join(formats)
        yield _problem(("format",), f"unknown format {name!r}; known: {known}")
    if compression not in registry.COMPRESSIONS:
        known = ", ".join(registry.COMPRESSIONS)
        yield _problem(("compression",), f"unknown compression {compression!r}; known: {known}")


def _priority_problems(priority: int) -> Iterator[FieldProblem]:
    if priority not in PRIORITIES:
        text = f"priority {priority} is not within 0 (default) to 9 (most urgent)"
        yield _problem(("priority",), text)


def _limit_problems(limit: int | None) -> Iterator[FieldProblem]:
    if limit is not None and limit < 1:
        yield _problem(("limit",), f"limit {limit} is not 1 or more; leave it out for all")


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

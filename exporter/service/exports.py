"""The service that all surfaces use to create, find, cancel, delete and link exports."""

from __future__ import annotations

import contextlib
import difflib
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec

from exporter.clock import Clock, SystemClock
from exporter.config import Config
from exporter.core import canonical, limits, plans, rates
from exporter.core.exports import PRIORITIES, Dialect, Export, Hook, Spec, State
from exporter.core.limits import Value
from exporter.core.plans import Plan
from exporter.errors import (
    ConfigurationError,
    FieldProblem,
    QueryError,
    StorageError,
    StoreFull,
    StoreUnavailable,
)
from exporter.formats import registry
from exporter.maintenance import cleaning
from exporter.service import file_names, id_lists
from exporter.settings import Settings
from exporter.sources import registry as sources
from exporter.sources.base import Search, Source
from exporter.sources.id_list import IdList
from exporter.storage.base import Storage
from exporter.store import codec
from exporter.store.base import ExportStore, Idempotency, Quota, Unreadable

COUNT_TTL_SECONDS = 60.0
"""Age up to which an estimate repeats the count of the same query."""
MAX_COUNTS = 1_000
"""Maximum number of counts that are remembered."""
MAX_COLUMNS = limits.COLUMNS.default
"""Maximum number of columns of one export."""
MAX_COLUMN_PROBLEMS = 100
"""Maximum number of unknown columns that one answer names."""
MAX_SUGGESTED_COLUMNS = 3
"""Unknown columns of one request for which similar names are searched."""


class ExportService:
    """Creates, finds, cancels and deletes exports for all surfaces.

    All state of the exports is in the record store; the service only caches sources.
    """

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
        self._counts: dict[tuple[str, str], tuple[float, int | None]] = {}
        """Monotonic time and result of the latest count, by source and digest of the query."""

    def source(self, name: str) -> Source:
        """Returns the source with that name; raises ConfigurationError if it is not configured."""
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
        """Returns the source from which the rows of an export are read.

        This is the source of the request. For an export of listed ids it is an `IdList`, which
        looks up each id in that source. Raises ConfigurationError if the source is not configured.
        """
        source = self.source(export.spec.source)
        if export.spec.ids is None:
            return source

        def load() -> Sequence[str]:
            return id_lists.read(self.storage, export.id)

        return IdList(source, load)

    def create(  # noqa: PLR0913 - one parameter for each field of a request
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
        file_name: str | None = None,
        export_id: str | None = None,
        idempotency: Idempotency | None = None,
        plan: Plan = plans.UNLIMITED,
        webhook: Callable[[], Hook] | None = None,
        wrong: Sequence[FieldProblem] = (),
    ) -> Export:
        """Records and enqueues an export; returns its record.

        If an earlier attempt with the same idempotency key created the export, the record of that
        export is returned, with its current state; its id then differs from `export_id`.

        `formats` are the formats that the surface allows. `limit` overrides the limit of the
        search. With `ids`, which must be distinct, the postings with these ids are exported in that
        order and `search` is ignored. With `rows_per_file` the result lists volumes of the file.
        The file is called `file_name`, with the extension of the format if that is missing, or
        after `file_stem` (by default the source), the day and the export.
        `webhook` returns the webhook of the export; it is called only after all fields were found
        valid, because it may record an endpoint.

        The plan is checked for the feature that `feature` returns, whichever the surface is. With a
        metered plan each record costs a credit, except those of free features. Credits are reserved
        for as many records as the limit. Without a limit, the source counts the matching rows now,
        and that number becomes the limit.

        In each of these cases no export is recorded:

        - QueryError: names every wrong field, under `search`, `format`, `columns`, `priority`,
          `compression`, `limit`, `file_name` and `source`, after the problems of the surface in
          `wrong`;
        - NotInPlan, CreditsSpent, LimitReached: the caller's plan does not allow the export;
        - KeyReused, KeySpent: the idempotency key belongs to another request, or its export is
          deleted or expired;
        - SourceError: the rows must be counted, and the source does not answer;
        - StorageUnavailable: the ids could not be stored;
        - any error of `webhook`.

        Raises StoreUnavailable if the store does not answer; in that case the export may or may not
        be recorded.
        """
        plan = self._permitted(plan, source, search, by_ids=ids is not None)
        checked = self._checked(
            user_id=user_id,
            source=source,
            search=search if ids is None else {},
            problems=self._field_problems(
                source,
                wrong,
                format=format,
                formats=formats,
                compression=compression,
                dialect=dialect,
                priority=priority,
                limit=limit,
                columns=columns,
                file_name=file_name,
            ),
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
        export_id = export_id or str(uuid.uuid4())
        name = file_name or file_names.default(file_stem or source, now, export_id)
        spec = Spec(
            id=export_id,
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
            file_name=file_names.extended(name, extension),
            account=plan.key_id,
            reserved=reserved,
            concurrency=plan.concurrency,
            webhook=webhook() if webhook else None,
        )
        if ids is None:
            return self.store.create(spec, idempotency, self._quota(plan))
        return self._create_with_ids(spec, ids, idempotency, self._quota(plan))

    def find_problems(
        self,
        *,
        user_id: str,
        source: str | None,
        search: Mapping[str, Any] | None,
        wrong: Sequence[FieldProblem] = (),
        **fields: Any,
    ) -> Sequence[FieldProblem]:
        """Returns the problems of a request that is refused already, because of other fields.

        `source` and `search` are None if they are among the other fields; `fields` are further
        arguments of `create`, with the locations that `create` gives them.
        """
        found = self._field_problems(source, wrong, **fields)
        if source is None:
            return found
        try:
            self._checked(user_id=user_id, source=source, search=search or {}, problems=found)
        except QueryError as error:
            return error.problems
        return found

    def _field_problems(  # noqa: PLR0913 - one parameter for each field of a request
        self,
        source: str | None,
        wrong: Sequence[FieldProblem],
        *,
        format: str | None = None,  # noqa: A002 - the word of every contract
        formats: Sequence[str] = registry.NAMES,
        compression: str | None = None,
        dialect: Dialect | None = None,
        priority: int | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
        file_name: str | None = None,
    ) -> list[FieldProblem]:
        """Returns the problems of all fields but the source and the search; None is not checked."""
        return [
            *wrong,
            *_format_problems(
                formats[0] if format is None else format,
                formats,
                "none" if compression is None else compression,
                dialect,
            ),
            *_priority_problems(0 if priority is None else priority),
            *_limit_problems(limit),
            *_column_problems(columns),
            *(_problem(("file_name",), text) for text in file_names.problems(file_name)),
            *self._unknown_columns(source or "", columns),
        ]

    def _create_with_ids(
        self, spec: Spec, ids: Sequence[str], idempotency: Idempotency | None, quota: Quota
    ) -> Export:
        """Stores the ids and records the export; deletes the ids again if it is not recorded."""
        id_lists.write(self.storage, spec.id, ids)
        is_recorded = False
        try:
            export = self.store.create(spec, idempotency, quota)
            is_recorded = export.id == spec.id
        except StoreUnavailable as error:
            # The export may be recorded, unless the store refused it.
            is_recorded = not isinstance(error, StoreFull)
            raise
        finally:
            if not is_recorded:
                # Cleaning deletes what a crash before this line or an error here leaves.
                with contextlib.suppress(StorageError):
                    id_lists.delete(self.storage, spec.id)
        return export

    def feature(self, source: str, search: Mapping[str, Any], *, by_ids: bool = False) -> str:
        """Returns the feature of a plan that an export needs, by its source and kind of search."""
        config = self.config.sources.get(source)
        found = sources.FEATURES.get(config.type, "export") if config else "export"
        if found == "export" and by_ids:
            return "bulk"
        return "expired" if found == "export" and "expired_since" in search else found

    def _permitted(
        self, plan: Plan, source: str, search: Mapping[str, Any], *, by_ids: bool = False
    ) -> Plan:
        """Returns the plan, not metered for a free feature.

        Raises NotInPlan if the plan does not include the export.
        """
        feature = self.feature(source, search, by_ids=by_ids)
        plan.check(feature)
        if feature in plans.FREE_FEATURES:
            return msgspec.structs.replace(plan, metered=False)
        return plan

    def estimate(
        self,
        source: str,
        search: Mapping[str, Any],
        *,
        user_id: str,
        limit: int | None = None,
        plan: Plan = plans.UNLIMITED,
    ) -> int | None:
        """Returns the number of records that an export of this search would have now.

        Returns None if the source cannot count its rows. Costs no credits. Raises QueryError like
        `create`, NotInPlan if the plan includes neither such an export nor, for an export of a
        search, searching, and SourceError if the source does not answer.
        """
        feature = self.feature(source, search)
        plan.check(feature, *(("search",) if feature == "export" else ()))
        checked = self._checked(
            user_id=user_id, source=source, search=search, problems=_limit_problems(limit)
        )
        limit = limit if limit is not None else checked.limit
        return self._count(source, checked, limit, max_age=COUNT_TTL_SECONDS)

    def retry(
        self,
        export: Export,
        *,
        export_id: str,
        idempotency: Idempotency | None = None,
        plan: Plan = plans.UNLIMITED,
    ) -> Export:
        """Creates a new export with the same request as the given export, and returns its record.

        Dates that were computed for the first request, and its webhook, stay the same. Raises
        QueryError if the given export is one of listed ids, because the list was deleted when that
        export ended. Also raises QueryError if the record of the given export cannot be read, or if
        the plan is metered and the given export has no reserved credits. Raises NotInPlan and the
        errors of the store like `create`.
        """
        if not export.readable:
            text = "the record of this export cannot be read: create the export again"
            raise QueryError([_problem(("query",), text)])
        before = export.spec
        plan = self._permitted(plan, before.source, before.query, by_ids=before.ids is not None)
        plan.check_priority(before.priority)
        if export.spec.ids is not None:
            text = "the list of ids of this export is deleted: send it again as a new export"
            raise QueryError([_problem(("ids",), text)])
        spec = msgspec.structs.replace(
            export.spec,
            id=export_id,
            file_name=file_names.renewed(before.file_name, before.id, export_id),
            account=plan.key_id,
            reserved=export.spec.reserved if plan.metered else 0,
            concurrency=plan.concurrency,
        )
        if plan.metered and not spec.reserved:
            text = "this export has no reserved credits: create a new export with your key"
            raise QueryError([_problem(("limit",), text)])
        return self.store.create(spec, idempotency, self._quota(plan))

    def bound(self, limit: limits.Limit[Value], plan: Plan) -> Value:
        """Returns the value of a limit for a key: that of its plan, else that of the settings."""
        value = plan.limits.get(limit.name)
        return cast(
            "Value", getattr(self.settings, limit.setting or "") if value is None else value
        )

    def _quota(self, plan: Plan) -> Quota:
        return Quota(
            queued=self.bound(limits.QUEUED_EXPORTS, plan),
            kept=self.bound(limits.KEPT_EXPORTS, plan),
            # int, because the Redis client takes no subclass of it, such as ByteSize.
            stored_bytes=int(self.bound(limits.STORED_BYTES, plan)),
        )

    def _checked(
        self,
        *,
        user_id: str,
        source: str,
        search: Mapping[str, Any],
        problems: Iterable[FieldProblem],
    ) -> Search:
        """Returns the search in canonical form, after its source has validated it.

        Raises QueryError with the given `problems` and those that the source finds, if there are
        any.
        """
        found = list(problems)
        if source not in self.config.sources:
            known = ", ".join(sorted(self.config.sources)) or "none"
            text = f"source {source!r} is not configured; configured: {known}"
            raise QueryError([_problem(("source",), text), *found])
        too_long = _too_long(search)
        if too_long:
            raise QueryError([too_long, *found])
        try:
            checked = self.source(source).search(search, self.clock.now(), user_id=user_id)
        except QueryError as error:
            found += [{**one, "loc": ("search", *one["loc"])} for one in error.problems]
            raise QueryError(found) from None
        too_long = _too_long(checked.query) or _too_long(checked.echo)
        if too_long:
            found.insert(0, too_long)
        if found:
            raise QueryError(found)
        return checked

    def _unknown_columns(
        self, source: str, columns: Sequence[str] | None
    ) -> Iterator[FieldProblem]:
        """Yields a problem for each requested column that the source does not declare."""
        config = self.config.sources.get(source)
        if config is None or not columns:
            return
        declared = dict.fromkeys(
            (*self.source(source).columns, *sources.COLUMNS.get(config.type, ()))
        )
        shown = 0
        for place, name in enumerate(columns):
            if not name or name in declared or shown >= MAX_COLUMN_PROBLEMS:
                continue
            shown += 1
            hint = ""
            if shown <= MAX_SUGGESTED_COLUMNS:
                # The cells of a nested field are the JSON text of its first level.
                outer = name.partition(".")[0]
                near = [outer] if outer in declared else difflib.get_close_matches(name, declared)
                hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
                hint += f"source {source!r} has {', '.join(declared)}"
            text = f"unknown column {name[:100]!r}: {hint or 'see the columns of the source'}"
            yield _problem(("columns", place), text, "unknown_column")

    def _count(
        self, source: str, checked: Search, limit: int | None, *, max_age: float = 0.0
    ) -> int | None:
        """Returns the rows that match now, or at most `max_age` seconds ago, up to the limit."""
        name, now = (source, canonical.digest(checked.query)), self.clock.monotonic()
        counted_at, total = self._counts.get(name, (-math.inf, None))
        if now - counted_at >= max_age:
            total = self.source(source).count(checked.query)
            if len(self._counts) >= MAX_COUNTS:
                # A race of two threads here counts once more at most, so no lock is needed.
                self._counts.clear()
            self._counts[name] = now, total
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
        """Returns the credits to reserve: the largest possible number of records, but at least 1.

        Returns 0 if the plan is not metered. Raises QueryError if a limit is needed, because the
        source cannot count its rows.
        """
        if not plan.metered:
            return 0
        if ids is not None:
            most: int | None = len(ids) if limit is None else min(limit, len(ids))
        else:
            most = limit if limit is not None else self._count(source, checked, None)
        if most is None:
            text = f"source {source!r} does not count matching rows: give a limit"
            raise QueryError([_problem(("limit",), text)])
        return max(most, 1)

    def find(self, user_id: str, export_id: str) -> Export | None:
        """Returns the user's export with that id.

        Returns None if there is no such export or if it belongs to another user; the caller cannot
        distinguish these two cases.
        """
        export = get_or_show(self.store, export_id)
        return export if export is not None and export.user_id == user_id else None

    def cancel(self, user_id: str, export_id: str) -> Export | None:
        """Requests the cancellation of the user's export; returns the record after the request.

        Returns None, and changes nothing, if the user has no export with that id.
        """
        if self.find(user_id, export_id) is None:
            return None
        return self.store.request_cancel(export_id, keep_record=self.settings.record_retention)

    def delete(self, user_id: str, export_id: str) -> State | None:
        """Hides the user's export at once and permanently; returns its state.

        Returns None, and changes nothing, if the user has no export with that id. If the export is
        not processing, the caller may call `purge` to delete its file at once; otherwise the next
        cleaning deletes the file.
        """
        return self.store.delete(export_id, user_id)

    def purge(self, export_id: str) -> None:
        """Deletes all objects of a deleted export from the bucket.

        Raises StorageUnavailable or StoreUnavailable if one of them does not answer; the next
        cleaning then tries again.
        """
        cleaning.purge(self.store, self.storage, export_id)

    def link(self, export: Export) -> tuple[str, datetime] | None:
        """Returns a newly signed URL that downloads the file by a plain GET, and its expiry.

        The URL expires with its signature or at the end of the file's retention, whichever is
        first. Returns None if the file is not yet published or no longer kept.
        """
        now = self.clock.now()
        if export.state is not State.FINISHED or export.result is None:
            return None
        if export.file_expires_at is None or export.file_expires_at <= now:
            return None
        expires = min(now + self.settings.link_ttl, export.file_expires_at)
        seconds = max(1, int((expires - now).total_seconds()))
        return self.storage.presign(export.result.key, seconds), expires


def get_or_show(store: ExportStore, export_id: str) -> Export | None:
    """Returns the export for its owner to see; of an unreadable record, what can be read."""
    try:
        return store.get(export_id)
    except Unreadable as error:
        return error.shown


def _format_problems(
    name: str, formats: Sequence[str], compression: str, dialect: Dialect | None
) -> Iterator[FieldProblem]:
    if name not in formats:
        known = ", ".join(formats)
        yield _problem(("format",), f"unknown format {name!r}; known: {known}")
    if compression not in registry.COMPRESSIONS:
        known = ", ".join(registry.COMPRESSIONS)
        yield _problem(("compression",), f"unknown compression {compression!r}; known: {known}")
    if dialect is not None and dialect.bom and name in formats and name != "csv":
        yield _problem(("bom",), f"only a csv file can have a byte order mark, not {name}")


def _priority_problems(priority: int) -> Iterator[FieldProblem]:
    if priority not in PRIORITIES:
        text = f"priority {priority} is not within 0 (default) to 9 (most urgent)"
        yield _problem(("priority",), text)


def _limit_problems(limit: int | None) -> Iterator[FieldProblem]:
    if limit is not None and limit < 1:
        text = f"limit {limit} is not 1 or more; leave the limit out to export all rows"
        yield _problem(("limit",), text)


def _too_long(search: Mapping[str, Any]) -> FieldProblem | None:
    size, most = len(codec.encode(search)), limits.STORED_SEARCH_BYTES.default
    if size <= most:
        return None
    text = f"the search takes {size} bytes as JSON, and at most {most} are stored: split it"
    return _problem(("search",), text)


def _problem(loc: Sequence[str | int], msg: str, kind: str = "value_error") -> FieldProblem:
    return {"loc": tuple(loc), "msg": msg, "type": kind}


def _column_problems(columns: Sequence[str] | None) -> list[FieldProblem]:
    if columns is None:
        return []
    if not 1 <= len(columns) <= MAX_COLUMNS:
        return [
            _problem(("columns",), f"{len(columns)} columns are given; give 1 to {MAX_COLUMNS}")
        ]
    size, most = sum(map(len, columns)), limits.STORED_SEARCH_BYTES.default
    if size > most:
        text = f"the names have {size} characters in total; give names of at most {most}"
        return [_problem(("columns",), text)]
    seen: set[str] = set()
    problems = []
    for place, name in enumerate(columns):
        if not name:
            problems.append(_problem(("columns", place), "the name of a column is empty"))
        elif name in seen:
            problems.append(_problem(("columns", place), f"column {name!r} is given twice"))
        seen.add(name)
    return problems

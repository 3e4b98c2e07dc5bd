"""The service that all surfaces use to create, find, cancel, delete and link exports."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, cast

import msgspec

from exporter.clock import Clock, SystemClock
from exporter.config import Config
from exporter.core import activity, limits, plans, rates
from exporter.core.activity import Activity
from exporter.core.exports import Export, Hook, Spec, State
from exporter.core.limits import Value
from exporter.core.plans import Plan
from exporter.errors import (
    FieldProblem,
    QueryError,
    StorageError,
    StoreFull,
    StoreUnavailable,
    problem,
)
from exporter.maintenance import cleaning
from exporter.service import drafts, id_lists
from exporter.service.configured_sources import ConfiguredSources
from exporter.service.drafts import NewExport
from exporter.service.estimates import Speeds
from exporter.settings import Settings
from exporter.sources.base import Source
from exporter.sources.id_list import IdList
from exporter.storage.base import Storage
from exporter.store.base import ExportStore, Idempotency, Quota

COUNT_TTL_SECONDS = 60.0
"""Age up to which an estimate repeats the count of the same query."""
MAX_COUNTS = 1_000
"""Maximum number of counts that are remembered."""


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
        meters: Callable[[str], rates.Meter] | None = None,
    ) -> None:
        self.settings = settings
        self.config = config
        self.store = store
        self.storage = storage
        self.clock = clock or SystemClock()
        self.sources = ConfiguredSources(
            config, self.clock, budgets or rates.MemoryBudgets(self.clock).open, meters
        )
        self.speeds = Speeds(store, self.clock)
        self._counts: dict[tuple[str, str], tuple[float, int | None]] = {}
        """Monotonic time and result of the latest count, by source and digest of the query."""

    def source(self, name: str) -> Source:
        """Returns the source with that name; raises ConfigurationError if it is not configured."""
        return self.sources.get(name)

    def reader(self, export: Export) -> Source:
        """Returns the source from which the rows of an export are read.

        This is the source of the request. For an export of listed ids it is an `IdList`, which
        looks up each id in that source. Raises ConfigurationError if the source is not configured.
        """
        source = self.source(export.spec.source)
        if export.spec.ids is None:
            return source
        return IdList(source, partial(id_lists.read, self.storage, export.id))

    def create(
        self,
        new: NewExport,
        plan: Plan = plans.UNLIMITED,
        *,
        idempotency: Idempotency | None = None,
        webhook: Callable[[], Hook] | None = None,
    ) -> Export:
        """Records and enqueues an export; returns its record.

        If an earlier attempt with the same idempotency key created the export, the record of that
        export is returned, with its current state; its id then differs from `new.id`.

        `webhook` returns the webhook of the export; it is called only after all fields were found
        valid, because it may record an endpoint.

        The plan is checked for the feature that the source and the search need, whichever the
        surface is. With a metered plan each record costs a credit, except those of free features.
        Credits are reserved for as many records as the limit. Without a limit, the source counts
        the matching rows now, and that number becomes the limit.

        In each of these cases no export is recorded:

        - QueryError: names every wrong field;
        - NotInPlan, CreditsSpent, LimitReached: the caller's plan does not allow the export;
        - KeyReused, KeySpent: the idempotency key belongs to another request, or its export is
          deleted or expired;
        - SourceError: the rows must be counted, and the source does not answer;
        - StorageUnavailable: the ids could not be stored;
        - any error of `webhook`.

        Raises StoreUnavailable if the store does not answer; in that case the export may or may not
        be recorded.
        """
        spec = self._reserve(self.draft(new, plan), new, plan)
        if webhook:
            spec = msgspec.structs.replace(spec, webhook=webhook())
        if new.ids is None:
            return self.store.create(spec, idempotency, self.quota(plan))
        return self._create_with_ids(spec, new.ids, idempotency, self.quota(plan))

    def draft(self, new: NewExport, plan: Plan) -> Spec:
        """Returns `drafts.draft` of the export, as of now.

        If `needs_more_than_store` is False, this specification without a webhook is all that the
        store needs, and neither this call nor any other step before the store blocks.
        """
        return drafts.draft(new, plan, self.sources, self.clock.now())

    def needs_more_than_store(self, new: NewExport, plan: Plan) -> bool:
        """True if creating the export asks the source or the bucket, and so may block.

        The source counts the rows for a metered plan, and may compare values of the search with
        lists of its upstream; the bucket stores listed ids.
        """
        return (
            plan.metered
            or new.ids is not None
            or (new.source in self.sources and self.source(new.source).search_may_block(new.search))
        )

    def find_problems(
        self,
        *,
        user_id: str,
        source: str | None,
        search: Mapping[str, Any] | None,
        **fields: Any,
    ) -> Sequence[FieldProblem]:
        """Returns the problems of a request that is refused already, because of other fields.

        `source`, `search` and `fields` are fields of `NewExport`, or None if they are among the
        other fields. The problems have the locations that `create` gives them.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        new = NewExport(
            user_id=user_id, surface="", source=source or "", search=search or {}, **given
        )
        if source is None:
            return list(drafts.field_problems(new, self.sources))
        try:
            drafts.check(new, self.sources, self.clock.now())
        except QueryError as error:
            return error.problems
        return ()

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
        feature = self.sources.feature(source, search)
        plan.check(feature, *(("search",) if feature == "export" else ()))
        new = NewExport(user_id=user_id, surface="", source=source, search=search, limit=limit)
        spec = self.draft(new, plans.UNLIMITED)
        return self._count(spec, max_age=COUNT_TTL_SECONDS)

    def retry(
        self,
        export: Export,
        *,
        export_id: str,
        idempotency: Idempotency | None = None,
        plan: Plan = plans.UNLIMITED,
    ) -> Export:
        """Creates the new export of `drafts.redraft`, and returns its record.

        Raises the errors of `redraft`, and those of the store like `create`.
        """
        spec = drafts.redraft(export, export_id, plan, self.sources)
        return self.store.create(spec, idempotency, self.quota(plan))

    def bound(self, limit: limits.Limit[Value], plan: Plan) -> Value:
        """Returns the value of a limit for a key: that of its plan, else that of the settings."""
        value = plan.limits.get(limit.name)
        return cast(
            "Value", getattr(self.settings, limit.setting or "") if value is None else value
        )

    def quota(self, plan: Plan) -> Quota:
        """Returns how much the exports of a user with this plan may occupy."""
        return Quota(
            queued=self.bound(limits.QUEUED_EXPORTS, plan),
            kept=self.bound(limits.KEPT_EXPORTS, plan),
            # int, because the Redis client takes no subclass of it, such as ByteSize.
            stored_bytes=int(self.bound(limits.STORED_BYTES, plan)),
        )

    def _reserve(self, spec: Spec, new: NewExport, plan: Plan) -> Spec:
        """Reserves credits for the largest possible number of records, but at least 1.

        That number becomes the limit of the export. Without a charge the specification stays the
        same. Raises QueryError if a limit is needed, because the source cannot count its rows.
        """
        by_ids = new.ids is not None
        if not plan.charges(self.sources.feature(new.source, new.search, by_ids=by_ids)):
            return spec
        most = spec.limit
        if spec.ids is not None:
            most = spec.ids if most is None else min(most, spec.ids)
        elif most is None:
            most = self._count(spec)
        if most is None:
            text = f"source {spec.source!r} does not count matching rows: give a limit"
            raise QueryError([problem(("limit",), text)])
        rows = max(most, 1)
        return msgspec.structs.replace(spec, limit=rows, reserved=rows)

    def _count(self, spec: Spec, *, max_age: float = 0.0) -> int | None:
        """Returns the rows that match now, or at most `max_age` seconds ago, up to the limit."""
        name, now = (spec.source, spec.query_sha256), self.clock.monotonic()
        counted_at, total = self._counts.get(name, (-math.inf, None))
        if now - counted_at >= max_age:
            total = self.source(spec.source).count(spec.query)
            if len(self._counts) >= MAX_COUNTS:
                # A race of two threads here counts once more at most, so no lock is needed.
                self._counts.clear()
            self._counts[name] = now, total
        if total is None:
            return None
        rest = max(total - spec.offset, 0)
        return rest if spec.limit is None else min(rest, spec.limit)

    def find(self, user_id: str | None, export_id: str) -> Export | None:
        """Returns the user's export (None: of any user) with that id.

        Returns None if there is no such export or if it belongs to another user; the caller cannot
        distinguish these two cases.
        """
        export = self.store.show(export_id)
        if export is None or user_id not in (None, export.user_id):
            return None
        return export

    def cancel(self, user_id: str | None, export_id: str, *, by: str = "") -> Export | None:
        """Requests the cancellation of the user's export; returns the record after the request.

        `user_id` is None for the export of any user; the activity names `by`. Returns None, and
        changes nothing, if the user has no export with that id.
        """
        if self.find(user_id, export_id) is None:
            return None
        return self.store.request_cancel(
            export_id, keep_record=self.settings.record_retention, by=by
        )

    def activity(self, export: Export) -> Sequence[Activity]:
        """Returns what happened to an export, oldest first: at most `activity.MAX_ENTRIES`."""
        return (activity.begin(export), *self.store.activity(export.id))

    def delete(self, user_id: str | None, export_id: str) -> State | None:
        """Hides the user's export at once and permanently; returns its state.

        `user_id` is None for the export of any user. Returns None, and changes nothing, if the user
        has no export with that id. If the export is not processing, the caller may call `purge` to
        delete its file at once; otherwise the next cleaning deletes the file.
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

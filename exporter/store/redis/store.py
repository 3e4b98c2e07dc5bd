"""Export store in Redis; each change of an export's state is made by one Lua script."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, cast

import msgspec
import redis
import structlog
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from exporter.core import activity
from exporter.core.activity import Activity
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import PRIORITIES, Export, Partition, Result, Spec, State, WrongAnswers
from exporter.core.plans import CreditsSpent
from exporter.errors import StoreFull
from exporter.store import codec, list_cursors
from exporter.store.base import (
    AGEING_PERIOD,
    MAX_COUNTED,
    MAX_LIVE,
    MAX_PAGE_BYTES,
    NO_QUOTA,
    Claim,
    Idempotency,
    KeyReused,
    KeySpent,
    Live,
    QueueCounts,
    Quota,
    RecordPage,
    Swept,
    Unreadable,
    Verdict,
    Wake,
    check_create,
    check_end,
    limit_reached,
    weights,
)
from exporter.store.filters import NO_FILTERS, Filters, StateCounts, indexed_values, words
from exporter.store.redis import calls, durability, errors, records, schema, script_loader
from exporter.store.redis.admissions import UNCONDITIONAL, Admission
from exporter.store.redis.calls import Call
from exporter.store.redis.keys import DEFAULT, KeyNames

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_SCRIPTS = (
    "claim",
    "set_aside",
    "renew",
    "commit",
    "release",
    "end",
    "cut",
    "partitions",
    "rejoin",
    "request_cancel",
    "delete",
    "note",
    "queue_position",
    "sweep",
    "expired_files",
    "forget_file",
    "trim_lists",
)
MAX_UNREADABLE_CLAIMS = 10
"""Number of claims by workers that cannot read the record after which the export fails.

After each such claim the export waits for the duration of one lease. During a rolling upgrade, a
worker that can read the record claims the export within that time.
"""
_HIDDEN = {b"deleted", b"whole"}
"""Fields that only records hidden from the owner have: deleted exports and partitions."""
_WALK_STEPS = 250
"""Entries of a list that one script call looks at: 2 to 5 ms of Redis."""
_HOUR = timedelta(hours=1)
_LEVELS = frozenset(map(str, PRIORITIES))
_MAX_BLOCKING_SECONDS = 1.0
"""Longest time for which one read of the wake-ups blocks.

It is shorter than the socket timeout, so that the wait for a wake-up does not end in an error.
"""


class RedisStore:
    """Keeps all guarantees of ExportStore, provided that Redis keeps acknowledged writes.

    All times come from the clock of Redis, so the clocks of workers do not matter. The client must
    return bytes (decode_responses off). Each method is idempotent, because the client may repeat a
    command whose reply was lost.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self.client, self.names = client, names
        self._scripts = {name: script_loader.load(client, names, name) for name in _SCRIPTS}
        self._create = script_loader.load(client, names, "create", __package__, "window")
        walking = partial(script_loader.load, client, names)
        self._list = walking("list_exports", __package__, "walk")
        self._count_states = walking("count_states", __package__, "walk")

    @classmethod
    def connect(cls, url: str, names: KeyNames = DEFAULT, *, patient: bool = True) -> Self:
        """Returns a store whose calls fail after at most 13 s without a reply from Redis.

        Before that, calls are retried, so shorter outages only delay them. With `patient` false,
        calls fail after 5 s: for a process whose own callers wait meanwhile. No connection is
        opened yet.
        """
        # No health check before a command: every command may be sent twice, so a retry is enough.
        # With a health check, redis-py nests its retries: 52 s were measured.
        return cls(
            redis.Redis.from_url(
                url,
                socket_timeout=3 if patient else 1.5,
                socket_connect_timeout=2 if patient else 1,
                socket_keepalive=True,
                retry=Retry(ExponentialBackoff(cap=1, base=0.05), 3 if patient else 1),
                retry_on_error=[redis.BusyLoadingError, redis.ConnectionError, redis.TimeoutError],
            ),
            names,
        )

    def check(self) -> Sequence[str]:
        """Returns warnings about settings of Redis that weaken durability, and about its records.

        Raises ConfigurationError if this Redis would lose exports, or has records of another
        version. See `durability.check` and `schema.check`.
        """
        return [
            *durability.check(self.client, self.names),
            *schema.check(self.client, self.names),
        ]

    def create(
        self, spec: Spec, idempotency: Idempotency | None = None, quota: Quota = NO_QUOTA
    ) -> Export:
        return calls.run(self.client, self.create_call(spec, idempotency, quota))

    def create_call(
        self,
        spec: Spec,
        idempotency: Idempotency | None,
        quota: Quota,
        admission: Admission = UNCONDITIONAL,
    ) -> Call[Export]:
        """Returns the call that `create` makes, on condition of an admission.

        Without that admission nothing is recorded, and the errors of `Admission.check` are raised.
        """
        check_create(spec)
        marks: tuple[str | int, ...] = ("", "", 0)
        if idempotency is not None:
            # Hashed, because a user id may contain any separator and a key may be long.
            digest = hashlib.sha256(codec.encode((spec.user_id, idempotency.key))).hexdigest()
            marks = (digest, idempotency.fingerprint, records.millis(idempotency.ttl))
        arguments = (
            spec.id,
            spec.user_id,
            spec.priority,
            codec.encode(spec),
            *marks,
            spec.account or "",
            spec.reserved,
            spec.concurrency,
            script_loader.padded_words(spec.webhook.events) if spec.webhook else "",
            quota.queued,
            quota.kept,
            quota.stored_bytes,
            int(idempotency is not None and idempotency.until_ended),
            codec.encode([spec.user_id, " ".join(words(spec.name)), *indexed_values(spec)]),
            *admission.arguments(),
        )

        def read(answer: Sequence[Any]) -> Export:
            windows, outcome, *fields = answer
            admission.check(windows, outcome)
            if idempotency is not None and outcome == b"reused":
                raise KeyReused(idempotency.key)
            if idempotency is not None and outcome == b"spent":
                raise KeySpent(idempotency.key)
            if outcome == b"short":
                raise CreditsSpent(spec.reserved, int(fields[0]))
            if outcome == b"full":
                hint = f"{errors.FULL_HINT}; what is left is kept for the exports that run"
                raise StoreFull(hint)
            if outcome in (b"queued", b"kept", b"bytes"):
                raise limit_reached(outcome.decode(), quota)
            found, found_id = fields
            return records.show(found, found_id.decode())

        return self._create.call(*_safe(arguments)).then(read)

    def get(self, export_id: str) -> Export | None:
        with errors.translate_errors():
            fields = cast(
                "dict[bytes, bytes]", self.client.hgetall(self.names("export", export_id))
            )
        return records.read(fields, export_id) if fields and not _HIDDEN & fields.keys() else None

    def show(self, export_id: str) -> Export | None:
        return calls.run(self.client, self.show_call(export_id))

    def show_call(self, export_id: str) -> Call[Export | None]:
        """Returns the call that `show` makes."""

        def read(replies: Sequence[Any]) -> Export | None:
            fields = records.shown(replies[0])
            hidden = not fields or _HIDDEN & fields.keys()
            return None if hidden else records.show(fields, export_id)

        name = self.names("export", export_id)
        return Call((("HMGET", name, *records.SHOWN_FIELDS),), read)

    def live(self, user_id: str | None, newest: int | None) -> Live:
        return calls.run(self.client, self.live_call(user_id, newest))

    def live_call(self, user_id: str | None, newest: int | None) -> Call[Live]:
        """Returns the call that `live` makes."""
        entries = self.names("all") if user_id is None else self.names("user", user_id)
        queued, running = (
            self.names.index(user_id or "", f"state:{state}")
            for state in (State.QUEUED, State.PROCESSING)
        )
        created: tuple[str | int, ...] = ("ZREVRANGE", entries, 0, 0, "WITHSCORES")
        if newest is not None:
            since = f"({newest}"
            created = (
                *("ZRANGEBYSCORE", entries, since, "+inf", "WITHSCORES"),
                *("LIMIT", 0, MAX_LIVE),
            )

        def read(replies: Sequence[Any]) -> Live:
            first, second, scored = replies
            # Pairs by RESP3, which redis-py speaks; one list by RESP2.
            entries = [part for one in scored for part in (one if isinstance(one, list) else [one])]
            place = int(float(entries[-1])) if entries else newest or 0
            return Live(
                queued=tuple(one.decode() for one in first),
                running=tuple(one.decode() for one in second),
                created=() if newest is None else tuple(one.decode() for one in entries[::2]),
                newest=place,
            )

        last = MAX_LIVE - 1
        commands = (("ZREVRANGE", queued, 0, last), ("ZREVRANGE", running, 0, last), created)
        return Call(commands, read)

    def changed(self, export_ids: Sequence[str]) -> Sequence[datetime | None]:
        return calls.run(self.client, self.changed_call(export_ids))

    def changed_call(self, export_ids: Sequence[str]) -> Call[Sequence[datetime | None]]:
        """Returns the call that `changed` makes."""
        commands = [("HGET", self.names("export", one), "updated_at") for one in export_ids]
        return Call(commands, lambda replies: [records.moment_or_none(one) for one in replies])

    def shows_call(self, export_ids: Sequence[str]) -> Call[Sequence[Export | None]]:
        """Returns the call that makes `show` for each of the exports."""
        shows = [self.show_call(one) for one in export_ids]
        return Call(
            [one.commands[0] for one in shows],
            lambda replies: [one.read([reply]) for one, reply in zip(shows, replies, strict=True)],
        )

    def list(
        self,
        user_id: str | None,
        *,
        limit: int,
        cursor: str | None = None,
        filters: Filters = NO_FILTERS,
    ) -> RecordPage:
        start = str(list_cursors.decode(cursor, filters.tag)) if cursor is not None else ""
        found: list[tuple[int, Export]] = []
        left, ended = MAX_PAGE_BYTES, False
        while len(found) <= limit and not ended:
            following, *answer = self._list(
                *self._of(user_id, filters, start, has_order=True),
                limit + 1 - len(found),
                *(codec.encode(one) for one in (filters.states, filters.words, filters.values)),
            )
            entries = list(zip(answer[::2], map(int, answer[1::2]), strict=True))
            start, is_last = following.decode(), not following
            count, left = self._fitting([member for member, _ in entries], left)
            if count < len(entries):
                ended, entries = True, entries[: max(count, 0 if found else 1)]
            found += self._read(entries)
            if is_last:
                break
        page = found[:limit]
        more = ended or len(found) > limit
        last = page[-1][0] if page else 0
        return RecordPage(
            exports=tuple(export for _, export in page),
            next_cursor=list_cursors.encode(last, filters.tag) if page and more else None,
        )

    def count_states(self, user_id: str | None, filters: Filters = NO_FILTERS) -> StateCounts:
        counts, start = dict.fromkeys(State, 0), ""
        values = [codec.encode(one) for one in (filters.words, filters.values)]
        for _ in range(MAX_COUNTED // _WALK_STEPS):
            following, *some = self._count_states(
                *self._of(user_id, filters, start, has_order=False), *values
            )
            for state, count in zip(State, some, strict=True):
                counts[state] += count
            if not following:
                return StateCounts(counts)
            start = following.decode()
        return StateCounts(counts, exact=False)

    def _of(
        self, user_id: str | None, filters: Filters, start: str, *, has_order: bool
    ) -> Sequence[str | int]:
        """Returns the first arguments of a walk: the list, and the part of it that is meant."""
        since = f"{records.micros_of(filters.created_from)}" if filters.created_from else "-inf"
        until = f"({records.micros_of(filters.created_to)}" if filters.created_to else "+inf"
        order = (int(filters.oldest_first),) if has_order else ()
        return (user_id or "", *order, start, since, until, _WALK_STEPS)

    def _read(self, entries: Sequence[tuple[bytes, int]]) -> Sequence[tuple[int, Export]]:
        """Returns the places and the records of the entries that have not expired."""
        with errors.translate_errors():
            pipe = self.client.pipeline(transaction=False)
            for member, _ in entries:
                pipe.hmget(self.names("export", member.decode()), records.SHOWN_FIELDS)
            answers = [records.shown(one) for one in pipe.execute()]
        return [
            (place, records.show(one, member.decode()))
            for (member, place), one in zip(entries, answers, strict=True)
            if one
        ]

    def _fitting(self, members: Sequence[bytes], left: int) -> tuple[int, int]:
        """Returns how many of the records fit into so many bytes, and the bytes that are left."""
        pipe = self.client.pipeline(transaction=False)
        for member in members:
            pipe.hstrlen(self.names("export", member.decode()), "spec")
        for count, size in enumerate(cast("list[int]", pipe.execute())):
            if size > left:
                return count, 0
            left -= size
        return len(members), left

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        while True:
            aside, *claimed = self._run(
                "claim", worker_id, secrets.token_hex(8), records.micros(lease), tenant_slots
            )
            _log_set_aside(aside)
            if not claimed and not aside:
                return None
            if not claimed:
                continue
            clean, fence, export_id, fields = claimed
            try:
                export = records.read(fields, export_id.decode())
            except Unreadable as error:
                self._set_aside(export_id.decode(), fence.decode(), clean, lease, error)
            else:
                return Claim(export=export, fence=fence.decode(), clean=clean == b"1")

    def _set_aside(
        self, export_id: str, fence: str, clean: bytes, wait: timedelta, error: Unreadable
    ) -> None:
        """Releases an export whose record this version cannot read, for workers of another version.

        After MAX_UNREADABLE_CLAIMS claims by workers that cannot read its record, the export fails
        instead.
        """
        tries = self._run("set_aside", export_id, fence, clean, records.micros(wait), str(error))
        log.error("record.unreadable", export_id=export_id, tries=tries, reason=str(error))

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        share = "" if progress is None else repr(progress)
        return Verdict(self._run("renew", export_id, fence, records.micros(lease), share).decode())

    def commit(
        self,
        export_id: str,
        fence: str,
        checkpoint: Checkpoint,
        *,
        lease: timedelta,
        progress: float,
        closing: Result | None = None,
    ) -> Verdict:
        answer = self._run(
            "commit",
            export_id,
            fence,
            records.micros(lease),
            repr(progress),
            codec.encode(checkpoint),
            checkpoint.pages,
            len(checkpoint.parts),
            codec.encode(closing) if closing else "",
            checkpoint.rows,
        )
        return Verdict(answer.decode())

    def release(
        self,
        export_id: str,
        fence: str,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
        wrong_answers: WrongAnswers | None = None,
    ) -> bool:
        wait = "" if retry_in is None else records.micros(retry_in)
        wrong = "" if wrong_answers is None else msgspec.json.encode(wrong_answers)
        return bool(self._run("release", export_id, fence, int(clean), wait, reason or "", wrong))

    def end(
        self,
        export_id: str,
        fence: str,
        state: State,
        *,
        result: Result | None = None,
        error: str | None = None,
        keep_file: timedelta | None = None,
        keep_record: timedelta,
        charged: int | None = None,
    ) -> bool:
        check_end(export_id, state, result)
        return bool(
            self._run(
                "end",
                export_id,
                fence,
                state,
                records.millis(keep_record),
                codec.encode(result) if result else "",
                error or "",
                "" if keep_file is None else records.micros(keep_file),
                result.record_count if result else 0,
                result.file_size if result else 0,
                "" if charged is None else charged,
            )
        )

    def cut(self, export_id: str, fence: str, partitions: Sequence[Partition]) -> Verdict:
        shares = weights(export_id, partitions)
        arguments: list[str | bytes] = []
        for partition, share in zip(partitions, shares, strict=True):
            arguments += [codec.encode(partition), repr(share)]
        answer = self._run("cut", export_id, fence, *arguments)
        if answer == b"decided":
            raise ValueError(f"export {export_id} was cut before, or is a partition")
        return Verdict(answer.decode())

    def partitions(self, export_id: str) -> tuple[Export, ...]:
        return tuple(records.read(fields) for fields in self._run("partitions", export_id))

    def rejoin(self, export_id: str, fence: str) -> Verdict:
        return Verdict(self._run("rejoin", export_id, fence).decode())

    def request_cancel(
        self, export_id: str, *, keep_record: timedelta, by: str = ""
    ) -> Export | None:
        fields = self._run("request_cancel", export_id, records.millis(keep_record), by)
        return records.show(fields, export_id) if fields else None

    def activity(self, export_id: str) -> tuple[Activity, ...]:
        name = self.names("export", export_id)
        with errors.translate_errors():
            found = cast(
                "list[bytes | None]", self.client.hmget(name, "activity", "deleted", "whole")
            )
        return () if found[1] or found[2] else activity.decode(found[0] or b"")

    def note(self, export_id: str, what: str, by: str, detail: str = "") -> bool:
        return bool(self._run("note", export_id, what, by, detail))

    def queue_position(self, export_id: str) -> int | None:
        return calls.run(self.client, self.queue_position_call(export_id))

    def queue_position_call(self, export_id: str) -> Call[int | None]:
        """Returns the call that `queue_position` makes."""
        return self._scripts["queue_position"].call(export_id)

    def delete(self, export_id: str, user_id: str | None) -> State | None:
        state = self._run("delete", export_id, user_id or "")
        return State(state.decode()) if state else None

    def deleted_exports(self, *, limit: int = 100) -> tuple[str, ...]:
        with errors.translate_errors():
            ids = cast("list[bytes]", self.client.zrange(self.names("deleted"), 0, limit - 1))
        return tuple(export_id.decode() for export_id in ids)

    def forget_deleted(self, export_id: str) -> bool:
        with errors.translate_errors():
            return bool(self.client.zrem(self.names("deleted"), export_id))

    def sweep(self, *, limit: int = 100, ageing: timedelta = AGEING_PERIOD) -> Swept:
        expired, due, risen, ready, aside = self._run("sweep", limit, records.micros(ageing))
        _log_set_aside(aside)
        return Swept(expired=expired, due=due, risen=risen, ready=ready)

    def expired_files(self, *, limit: int = 100) -> tuple[Export, ...]:
        found = self._run("expired_files", limit)
        return tuple(
            records.show(fields, export_id.decode())
            for export_id, fields in zip(found[::2], found[1::2], strict=True)
        )

    def forget_file(self, export_id: str) -> bool:
        return bool(self._run("forget_file", export_id))

    def trim_lists(self, *, users: int = 10, again: timedelta = _HOUR) -> int:
        _, looked_at = self._run("trim_lists", users, records.micros(again))
        return int(looked_at)

    def mend_lists(self) -> int:
        """Trims all lists at once, whenever that was done last; returns the number of changes."""
        with errors.translate_errors():
            for user, _ in self.client.zscan_iter(self.names("users"), count=1000):
                self.client.zadd(self.names("users"), {user: 0}, xx=True)
            self.client.delete(self.names("trim_all"), self.names("trimmed"))
        changes = 0
        while True:
            some, looked_at = self._run("trim_lists", 100, records.micros(_HOUR))
            changes += int(some)
            if not looked_at:
                return changes

    def count(self, what: str, by: int) -> None:
        with errors.translate_errors():
            self.client.hincrby(self.names("counters"), what, by)

    def counters(self) -> Mapping[str, int]:
        with errors.translate_errors():
            found = cast("dict[bytes, bytes]", self.client.hgetall(self.names("counters")))
        return {name.decode(): int(value) for name, value in found.items()}

    def queue_counts(self) -> QueueCounts:
        with errors.translate_errors():
            pipe = self.client.pipeline(transaction=False)
            pipe.hgetall(self.names("lined"))
            pipe.zcard(self.names("leases"))
            pipe.zcard(self.names("waiting"))
            pipe.llen(self.names("wake"))
            pipe.zcard(self.names("kept"))
            pipe.zcard(self.names("deleted"))
            pipe.get(self.names("since"))
            lined, running, waiting, wakes, kept, deleted, since = pipe.execute()
        return QueueCounts(
            ready=tuple(int(lined.get(b"%d" % level, 0)) for level in PRIORITIES),
            running=running,
            waiting=waiting,
            wakes=wakes,
            kept_files=kept,
            deleted=deleted,
            since=records.moment_or_none(since),
        )

    def cleanup_cursor(self) -> str:
        with errors.translate_errors():
            place = cast("bytes | None", self.client.get(self.names("walk")))
        return place.decode() if place else ""

    def set_cleanup_cursor(self, place: str) -> None:
        with errors.translate_errors():
            self.client.set(self.names("walk"), place)

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        deadline = time.monotonic() + timeout.total_seconds()
        while True:
            left = min(deadline - time.monotonic(), _MAX_BLOCKING_SECONDS)
            with errors.translate_errors():
                # BRPOP treats a timeout of 0 as "no timeout", and rounds a timeout below 1 ms to 0.
                if left > 0.001:
                    popped = self.client.brpop([self.names("wake")], timeout=left)
                    message = cast("bytes | None", popped[1] if popped else None)
                else:
                    message = cast("bytes | None", self.client.rpop(self.names("wake")))
            if message is not None:
                return _wake(message)
            if left <= 0.001:
                return None

    def _run(self, script: str, *arguments: str | bytes | int) -> Any:
        return self._scripts[script](*_safe(arguments))


def _safe(arguments: Iterable[str | bytes | int]) -> Sequence[str | bytes | int]:
    return [codec.clean(one) if isinstance(one, str) else one for one in arguments]


def _log_set_aside(aside: Sequence[bytes]) -> None:
    for export_id, reason in zip(aside[::2], aside[1::2], strict=True):
        log.error(
            "record.unreadable",
            export_id=export_id.decode("utf-8", "replace"),
            reason=reason.decode("utf-8", "replace"),
        )


def _wake(message: bytes) -> Wake:
    """Returns the wake-up in a message; a damaged message wakes a worker as well."""
    level, _, export_id = message.decode("utf-8", "replace").partition(" ")
    return Wake(export_id, int(level) if level in _LEVELS else 0)

"""What operators see of a running installation: processes, queues, waits, webhooks and Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, cast

import msgspec
import redis

from exporter.core import public_text
from exporter.core.exports import PRIORITIES
from exporter.store.redis import errors, records
from exporter.store.redis.keys import BEATS, DEFAULT, SENDERS, WORKERS, KeyNames

MAX_USERS = 50
"""Users of a level, and users with due webhooks, that one overview looks at."""
MAX_WAITING = 200
"""Waiting exports that one overview looks at; those that continue first."""
OLDEST = 10
"""Unfinished exports that an overview names."""
MAX_ENDPOINTS = 200
"""Endpoints whose due webhooks one overview counts."""
_SPEEDS = ("fast", "slow")
_FIELDS = ("user", "spec", "state", "phase", "progress", "error")


Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Level(msgspec.Struct, frozen=True):
    """The ready exports of one priority level; a partition counts as an export."""

    level: int
    ready: int
    oldest_at: Moment | None
    """Since when the oldest is ready, among the users who are served next."""


class Wait(msgspec.Struct, frozen=True):
    """Exports of one source that wait for the same reason."""

    source: str
    reason: str
    exports: int
    next_at: Moment
    """When the first of them continues."""


class Unfinished(msgspec.Struct, frozen=True):
    """An export that has not ended."""

    id: str
    user_id: str
    source: str
    state: str
    phase: str
    created_at: Moment
    progress: float
    error: str | None
    """The reason of the wait."""


class Webhooks(msgspec.Struct, frozen=True):
    """Webhooks that are not delivered yet."""

    events: int
    """Events that are not yet copied for their endpoints."""
    due: int
    """Deliveries whose attempt is due, at the endpoints that are served next."""
    due_since: Moment | None
    """Since when an endpoint is to be served; None if none is."""
    in_flight: int


class Memory(msgspec.Struct, frozen=True):
    """Memory and persistence of Redis; what it does not report is None."""

    used_bytes: int | None
    max_bytes: int | None
    """Size at which Redis refuses writes; None: no limit."""
    append_only: bool | None
    last_write_ok: bool | None
    """Whether the latest writes of the append-only file and of the snapshot succeeded."""
    saved_at: Moment | None
    """Time of the latest snapshot."""
    version: str | None


class Overview(msgspec.Struct, frozen=True):
    """The state of an installation, read in a few round trips and without a scan of keys."""

    processes: Mapping[str, Sequence[str]]
    """The live processes, as `host:pid`, by `workers`, `senders` and `beats`."""
    levels: Sequence[Level]
    """Levels with ready exports, the most urgent first."""
    running: int
    waiting: int
    waits: Sequence[Wait]
    """The waits of the exports that continue first, the most frequent wait first."""
    oldest: Sequence[Unfinished]
    """The ten oldest unfinished exports, the oldest first.

    They are found among the first MAX_WAITING of the running, the waiting and, of each user, the
    ready exports, so they are exact unless more than that many wait or run.
    """
    webhooks: Webhooks
    redis: Memory


class _Source(msgspec.Struct):
    source: str


class Observer:
    """Reads the overview of an installation. Raises StoreUnavailable if Redis does not answer."""

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self._client, self._names = client, names

    def read(self) -> Overview:
        """Returns the overview as of now."""
        names = self._names
        with errors.translate_errors():
            seconds, micros = self._client.time()
            now = seconds * 1_000_000 + micros
            pipe = self._client.pipeline(transaction=False)
            pipe.zrangebyscore(names("alive"), seconds, "+inf")
            pipe.hgetall(names("lined"))
            for level in PRIORITIES:
                pipe.zrange(names("tenants", str(level)), 0, MAX_USERS - 1)
            pipe.zcard(names("leases"))
            pipe.zcard(names("waiting"))
            pipe.zrange(names("waiting"), 0, MAX_WAITING - 1, withscores=True)
            pipe.zrange(names("leases"), 0, MAX_WAITING - 1)
            alive, lined, *rest = pipe.execute()
            tenants, (running, waiting, first_waits, leased) = rest[:-4], rest[-4:]
            ready = self._ready(tenants)
            unfinished = [*leased, *(one for one, _ in first_waits)]
            unfinished += [one for level in ready.values() for one, _ in level]
            return Overview(
                processes=_processes(alive),
                levels=tuple(_levels(lined, ready)),
                running=running,
                waiting=waiting,
                waits=self._waits(first_waits),
                oldest=self._oldest(unfinished),
                webhooks=self._webhooks(now),
                redis=self._memory(),
            )

    def _ready(
        self, tenants: Sequence[Sequence[bytes]]
    ) -> Mapping[int, Sequence[tuple[bytes, float]]]:
        """Returns by level the OLDEST ready exports of each user, with the time since when."""
        asked = [
            (level, user.decode())
            for level, users in zip(PRIORITIES, tenants, strict=True)
            for user in users
        ]
        pipe = self._client.pipeline(transaction=False)
        for level, user in asked:
            pipe.zrange(self._names("ready", str(level), user), 0, OLDEST - 1, withscores=True)
        found: dict[int, list[tuple[bytes, float]]] = {}
        for (level, _), exports in zip(asked, pipe.execute(), strict=True):
            found.setdefault(level, []).extend(exports)
        return found

    def _oldest(self, ids: Sequence[bytes]) -> Sequence[Unfinished]:
        """Returns the oldest of these exports; a partition counts as its export."""
        wholes = list(dict.fromkeys(one.decode().partition("/")[0] for one in ids))
        pipe = self._client.pipeline(transaction=False)
        for one in wholes:
            pipe.hget(self._names("export", one), "created_at")
        known = [
            (created, one) for one, created in zip(wholes, pipe.execute(), strict=True) if created
        ]
        oldest = sorted(known, key=lambda one: int(one[0]))[:OLDEST]
        pipe = self._client.pipeline(transaction=False)
        for _, one in oldest:
            pipe.hmget(self._names("export", one), _FIELDS)
        return tuple(
            Unfinished(
                id=one,
                user_id=(user or b"").decode(),
                source=_source(spec),
                state=(state or b"").decode(),
                phase=(phase or b"").decode(),
                created_at=records.moment(created),
                progress=float(progress or 0),
                error=_reason(error) or None,
            )
            for (created, one), (user, spec, state, phase, progress, error) in zip(
                oldest, pipe.execute(), strict=True
            )
        )

    def _waits(self, waiting: Sequence[tuple[bytes, float]]) -> Sequence[Wait]:
        pipe = self._client.pipeline(transaction=False)
        for export_id, _ in waiting:
            # The id of a partition begins with that of its export, which has the specification.
            whole = export_id.decode().partition("/")[0]
            pipe.hget(self._names("export", whole), "spec")
            pipe.hget(self._names("export", export_id.decode()), "error")
        replies = pipe.execute()
        counts, first = Counter[tuple[str, str]](), dict[tuple[str, str], float]()
        for place, (_, until) in enumerate(waiting):
            spec, error = replies[2 * place : 2 * place + 2]
            kind = _source(spec), _reason(error)
            counts[kind] += 1
            first.setdefault(kind, until)
        return tuple(
            Wait(source, reason, exports, _moment_at(first[source, reason]))
            for (source, reason), exports in counts.most_common()
        )

    def _webhooks(self, now: int) -> Webhooks:
        names = self._names
        pipe = self._client.pipeline(transaction=False)
        pipe.llen(names("outbox"))
        pipe.zcard(names("delivery_leases"))
        for speed in _SPEEDS:
            pipe.zrangebyscore(
                names("turns", speed), "-inf", now, start=0, num=MAX_USERS, withscores=True
            )
        events, in_flight, *turns = pipe.execute()
        served = [
            (speed, user.decode(), at)
            for speed, users in zip(_SPEEDS, turns, strict=True)
            for user, at in users
        ]
        pipe = self._client.pipeline(transaction=False)
        for speed, user, _ in served:
            pipe.zrangebyscore(names("lane", speed, user), "-inf", now, start=0, num=MAX_USERS)
        endpoints = {one.decode() for lane in pipe.execute() for one in lane}
        pipe = self._client.pipeline(transaction=False)
        for endpoint in sorted(endpoints)[:MAX_ENDPOINTS]:
            pipe.zcount(names("due", endpoint), "-inf", now)
        due_since = min((at for *_, at in served), default=None)
        return Webhooks(events, sum(pipe.execute()), _moment(due_since), in_flight)

    def _memory(self) -> Memory:
        try:
            info = cast("Mapping[str, Any]", self._client.info("everything"))
        except redis.ResponseError:
            info = {}  # a user whose ACL has no INFO
        known = [
            info[name] == "ok"
            for name in ("aof_last_write_status", "rdb_last_bgsave_status")
            if name in info
        ]
        saved = info.get("rdb_last_save_time")
        return Memory(
            used_bytes=info.get("used_memory"),
            max_bytes=info.get("maxmemory") or None,
            append_only=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
            last_write_ok=all(known) if known else None,
            saved_at=_moment(saved * 1_000_000) if saved else None,
            version=info.get("redis_version"),
        )


def _levels(
    lined: Mapping[bytes, bytes], ready: Mapping[int, Sequence[tuple[bytes, float]]]
) -> Iterator[Level]:
    for level in reversed(PRIORITIES):
        count = int(lined.get(b"%d" % level, 0))
        if count:
            oldest = min((since for _, since in ready.get(level, ())), default=None)
            yield Level(level, count, _moment(oldest))


def _reason(error: bytes | None) -> str:
    return public_text.without_addresses((error or b"").decode())


def _processes(alive: Sequence[bytes]) -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = {kind: [] for kind in (WORKERS, SENDERS, BEATS)}
    for member in sorted(alive):
        kind, _, process = member.decode().partition(":")
        found.setdefault(kind, []).append(process)
    return found


def _source(spec: bytes | None) -> str:
    try:
        return msgspec.json.decode(spec or b"", type=_Source).source
    except msgspec.MsgspecError:
        return ""


def _moment_at(micros: float) -> datetime:
    return records.moment(b"%d" % int(micros))


def _moment(micros: float | None) -> datetime | None:
    return None if micros is None else _moment_at(micros)

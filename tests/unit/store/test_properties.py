"""Random histories: the store in Redis does what the one in memory does, and keeps its books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import cast

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from exporter.clock import FakeClock
from exporter.core.checkpoints import Checkpoint, Part
from exporter.core.exports import (
    TERMINAL,
    TRANSITIONS,
    Completeness,
    EndReason,
    Export,
    Outcome,
    Partition,
    Result,
    Spec,
    State,
)
from exporter.core.plans import CreditsSpent
from exporter.local.redis import RedisServer
from exporter.store.base import (
    Claim,
    ExportStore,
    Idempotency,
    KeyReused,
    KeySpent,
    RecordPage,
    Verdict,
)
from exporter.store.memory.credit_accounts import MemoryAccounts
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.store import RedisStore
from tests.specs import spec

pytestmark = pytest.mark.external

DATABASE = 4
IDS = [f"e{n}" for n in range(8)]
USERS = ["ann", "bob", "carl"]
NOW, LATER = timedelta(0), timedelta(hours=1)
"""Over at once or never: so the history needs no waiting, and both clocks agree."""

METERED, FREE, GRANTED = "metered", "free", 20
"""Ids of keys: one that has that many credits at first, one that may spend any number."""

durations = st.sampled_from([NOW, LATER, LATER])
ids = st.sampled_from(IDS)
cut_rows = st.lists(st.integers(1, 9), max_size=3)
Deed = State | list[int]
"""What a worker does with what it claimed: it ends it, or cuts it; or rejoins it, if it was cut."""
deeds = st.sampled_from([*[State.FINISHED] * 4, State.FAILED, [4], [4], [2, 7], [9, 1, 3]])
someones = ids | st.integers(0, 5)
"""An export by its id; or, counted backwards, what was claimed lately, partitions too."""
shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.99, 1.0])


def result(rows: int = 0) -> Result:
    completeness = Completeness(Outcome.EMPTY, EndReason.TOTAL_REACHED, 0, 0, 0, 0, 0, 0)
    return Result("k", 1, rows, completeness, Checkpoint(cursor=None).row_counts, 1)


def seen(export: Export | None) -> object:
    """What both stores must agree on: all but the times, of which only the presence."""
    if export is None:
        return None
    times = ["started_at", "completed_at", "stalled_since", "retry_at", "file_expires_at"]
    return (
        msgspec.structs.replace(
            export,
            created_at=None,
            updated_at=None,
            **dict.fromkeys(times),
        ),
        [getattr(export, name) is not None for name in times],
    )


def page(one: RecordPage) -> object:
    return [seen(export) for export in one.exports], one.next_cursor is not None


def created(store: ExportStore, asked: Spec, mark: Idempotency | None) -> object:
    try:
        return seen(store.create(asked, mark))
    except (KeyReused, KeySpent) as error:
        return type(error)
    except CreditsSpent as error:
        return error.needed, error.left


def charged(accounts: MemoryAccounts | Credits, key: str, amount: int) -> object:
    try:
        accounts.charge(key, amount)
    except CreditsSpent as error:
        return error.needed, error.left
    return "paid"


def was_cut(cut: Callable[[], Verdict]) -> object:
    try:
        return cut()
    except ValueError as error:
        return type(error)


def census(store: ExportStore) -> object:
    found = store.queue_counts()
    return msgspec.structs.replace(found, since=None), found.since is not None


class Stores(RuleBasedStateMachine):
    """Every call goes to both stores; their answers and records must be the same."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushdb()
        self.clock = FakeClock()
        self.memory = MemoryStore(self.clock)
        self.redis = RedisStore(self.client)
        self.credits = Credits(self.client)
        self.granted = GRANTED
        for key, left in ((METERED, GRANTED), (FREE, None)):
            self.client.hset("{exporter}:keys", key, "digest")
            self.credits.set(key, left)
            self.memory.accounts.open(key, left)
        self.fences: dict[str, list[tuple[str, str]]] = {}
        self.claimed: list[str] = []
        self.before: dict[str, Export] = {}
        self.furthest: dict[str, float] = {}
        self.hidden: set[str] = set()

    @initialize(count=st.integers(0, 4), deeds=st.lists(deeds, max_size=9))
    def some_exports(self, count: int, deeds: list[Deed]) -> None:
        for export_id in IDS[:count]:
            self.create(export_id, USERS[count % 3], 0, None, METERED, 4, 0)
        self.work(deeds)

    @rule(
        export_id=ids,
        user=st.sampled_from(USERS),
        priority=st.sampled_from([0, 0, 8, 9]),
        mark=st.none() | st.builds(Idempotency, st.sampled_from("kl"), st.sampled_from("ffg")),
        account=st.sampled_from([None, METERED, METERED, FREE]),
        reserved=st.integers(1, 8),
        concurrency=st.sampled_from([0, 0, 1, 2]),
    )
    def create(
        self,
        export_id: str,
        user: str,
        priority: int,
        mark: Idempotency | None,
        account: str | None,
        reserved: int,
        concurrency: int,
    ) -> None:
        asked = spec(
            id=export_id,
            user_id=user,
            limit=reserved,
            priority=priority,
            account=account,
            reserved=reserved,
            concurrency=concurrency,
        )
        self.tick()
        assert created(self.memory, asked, mark) == created(self.redis, asked, mark)

    @rule(lease=durations, tenant_slots=st.integers(0, 2))
    def claim(self, lease: timedelta, tenant_slots: int) -> None:
        self.tick()
        ours = self.memory.claim("w", lease=lease, tenant_slots=tenant_slots)
        theirs = self.redis.claim("w", lease=lease, tenant_slots=tenant_slots)
        if ours is None or theirs is None:
            assert ours is theirs is None
            return
        assert seen(ours.export) == seen(theirs.export)
        assert ours.clean == theirs.clean
        assert all(one.terminal for one in self.redis.partitions(theirs.export.id))
        self.remember(ours, theirs)

    @rule(deeds=st.lists(deeds, min_size=1, max_size=4))
    def work(self, deeds: list[Deed]) -> None:
        """What workers do mostly."""
        for deed in deeds:
            before = len(self.claimed)
            self.claim(LATER, 0)
            self.records_agree_and_never_go_back()
            if len(self.claimed) == before:
                return
            if isinstance(deed, State):
                self.end(0, 1, deed, LATER, 1)
            elif self.redis.partitions(self.claimed[-1]):
                self.rejoin(0, 1)
            else:
                self.cut(0, 1, deed)

    def remember(self, ours: Claim, theirs: Claim) -> None:
        held = self.fences.setdefault(ours.export.id, [])
        counts = [int(claimed.fence.partition("-")[0]) for claimed in (ours, theirs)]
        assert counts[0] == counts[1]
        assert theirs.fence not in {fence for _, fence in held}
        held.append((ours.fence, theirs.fence))
        self.claimed.append(ours.export.id)

    def pick(self, someone: str | int, which: int) -> tuple[str, str, str]:
        """An id, and the latest fence mostly, now and then one from before, or a made up one."""
        if isinstance(someone, int):
            someone = self.claimed[-1 - someone % len(self.claimed)] if self.claimed else IDS[0]
        held = self.fences.get(someone) or [("0-x", "0-x")]
        return someone, *held[max(-which, -len(held))]

    which = st.sampled_from([1, 1, 1, 1, 2])

    @rule(someone=someones, which=which, lease=durations, progress=st.none() | shares)
    def renew(
        self, someone: str | int, which: int, lease: timedelta, progress: float | None
    ) -> None:
        self.tick()
        export_id, ours, theirs = self.pick(someone, which)
        assert self.memory.renew(
            export_id, ours, lease=lease, progress=progress
        ) is self.redis.renew(export_id, theirs, lease=lease, progress=progress)

    @rule(someone=st.integers(0, 1), which=which, rows=cut_rows)
    def cut(self, someone: int, which: int, rows: list[int]) -> None:
        self.tick()
        export_id, ours, theirs = self.pick(someone, which)
        cut = [Partition(place, 0, count, 9) for place, count in enumerate(rows)]
        assert was_cut(lambda: self.memory.cut(export_id, ours, cut)) is was_cut(
            lambda: self.redis.cut(export_id, theirs, cut)
        )

    @rule(someone=someones, which=which)
    def rejoin(self, someone: str | int, which: int) -> None:
        self.tick()
        export_id, ours, theirs = self.pick(someone, which)
        if "/" not in export_id:
            assert self.memory.rejoin(export_id, ours) is self.redis.rejoin(export_id, theirs)

    @rule(
        someone=someones,
        which=which,
        lease=durations,
        progress=shares,
        pages=st.integers(0, 3),
        parts=st.integers(0, 3),
        closing=st.booleans(),
    )
    def commit(
        self,
        someone: str | int,
        which: int,
        lease: timedelta,
        progress: float,
        pages: int,
        parts: int,
        closing: bool,
    ) -> None:
        self.tick()
        export_id, ours, theirs = self.pick(someone, which)
        part = (Part("a", 1),) * parts
        checkpoint = Checkpoint(cursor=pages, pages=pages, rows=pages, parts=part)
        closed = result() if closing else None
        assert self.memory.commit(
            export_id, ours, checkpoint, lease=lease, progress=progress, closing=closed
        ) is self.redis.commit(
            export_id, theirs, checkpoint, lease=lease, progress=progress, closing=closed
        )

    @rule(
        someone=someones,
        which=which,
        clean=st.booleans(),
        retry_in=st.none() | durations,
        reason=st.none() | st.just("429"),
    )
    def release(
        self,
        someone: str | int,
        which: int,
        clean: bool,
        retry_in: timedelta | None,
        reason: str | None,
    ) -> None:
        self.tick()
        export_id, ours, theirs = self.pick(someone, which)
        assert self.memory.release(
            export_id, ours, clean=clean, retry_in=retry_in, reason=reason
        ) is self.redis.release(export_id, theirs, clean=clean, retry_in=retry_in, reason=reason)

    @rule(
        someone=someones,
        which=which,
        state=st.sampled_from(sorted(TRANSITIONS[State.PROCESSING])),
        keep_file=st.none() | durations,
        rows=st.integers(0, 9),
    )
    def end(
        self,
        someone: str | int,
        which: int,
        state: State,
        keep_file: timedelta | None,
        rows: int,
    ) -> None:
        self.tick()
        export_id, ours, theirs = self.pick(someone, which)
        closed = result(rows) if state is State.FINISHED else None
        error = "no" if state is State.FAILED else None
        assert self.memory.end(
            export_id,
            ours,
            state,
            result=closed,
            error=error,
            keep_file=keep_file,
            keep_record=LATER,
        ) is self.redis.end(
            export_id,
            theirs,
            state,
            result=closed,
            error=error,
            keep_file=keep_file,
            keep_record=LATER,
        )

    @rule(key=st.sampled_from([METERED, FREE]), amount=st.integers(0, 5))
    def charge(self, key: str, amount: int) -> None:
        ours = charged(self.memory.accounts, key, amount)
        assert ours == charged(self.credits, key, amount)

    @rule(left=st.integers(0, GRANTED))
    def grant(self, left: int) -> None:
        before = self.credits.balance(METERED)
        self.memory.accounts.set(METERED, left)
        self.credits.set(METERED, left)
        assert before.left is not None
        self.granted += left - before.left

    @rule(export_id=ids | st.just("e0/0"))
    def request_cancel(self, export_id: str) -> None:
        self.tick()
        ours = self.memory.request_cancel(export_id, keep_record=LATER)
        assert seen(ours) == seen(self.redis.request_cancel(export_id, keep_record=LATER))

    @rule(export_id=ids | st.just("e0/0"), user=st.sampled_from(USERS))
    def delete(self, export_id: str, user: str) -> None:
        self.tick()
        ours = self.memory.delete(export_id, user)
        assert ours is self.redis.delete(export_id, user)
        if ours is not None:
            self.hidden.add(export_id)

    @rule(limit=st.sampled_from([1, 100]))
    def clear_away_deleted(self, limit: int) -> None:
        gone = self.memory.deleted_exports(limit=limit)
        assert gone == self.redis.deleted_exports(limit=limit)
        for export_id in gone:
            assert self.memory.forget_deleted(export_id)
            assert self.redis.forget_deleted(export_id)

    @rule(limit=st.sampled_from([1, 100]), ageing=durations)
    def sweep(self, limit: int, ageing: timedelta) -> None:
        self.tick()
        ours = self.memory.sweep(limit=limit, ageing=ageing)
        assert ours == self.redis.sweep(limit=limit, ageing=ageing)

    @rule(export_id=ids)
    def clear_away(self, export_id: str) -> None:
        """The files whose time is over, all but one of which are forgotten."""
        files = [one.id for one in self.memory.expired_files()]
        assert files == [one.id for one in self.redis.expired_files()]
        for file in files:
            if file != export_id:
                self.memory.forget_file(file)
                self.redis.forget_file(file)

    @rule()
    def hear(self) -> None:
        ours = self.memory.next_wake(timeout=NOW)
        theirs = self.redis.next_wake(timeout=NOW)
        assert (ours is None) == (theirs is None)

    @rule(user=st.sampled_from(USERS), limit=st.integers(1, 3))
    def read_lists(self, user: str, limit: int) -> None:
        ours, theirs = self.memory.list(user, limit=limit), self.redis.list(user, limit=limit)
        assert page(ours) == page(theirs)
        if ours.next_cursor and theirs.next_cursor:
            assert page(self.memory.list(user, limit=limit, cursor=ours.next_cursor)) == page(
                self.redis.list(user, limit=limit, cursor=theirs.next_cursor)
            )

    def tick(self) -> None:
        self.clock.advance(0.001)

    def teardown(self) -> None:
        """Every history comes to an end, of which nothing is left."""
        for export_id in IDS:
            self.request_cancel(export_id)
        while self.units():
            self.sweep(100, LATER)
            for export_id in self.units():
                self.end(export_id, 1, State.CANCELED, None, 0)
            self.claim(LATER, 0)
        self.all_is_well()
        for key in ("leases", "waiting", "ageing", "running", "lined", "cut"):
            assert not self.client.exists(f"{{exporter}}:{key}"), key
        assert self.client.keys("{exporter}:ready:*") == []
        assert self.client.keys("{exporter}:export:*/*") == []

    @invariant()
    def all_is_well(self) -> None:
        self.records_agree_and_never_go_back()
        self.partitions_agree_and_are_there_as_long_as_they_are_needed()
        self.the_numbers_agree_and_add_up()
        self.no_credit_is_lost_or_made()
        self.every_live_export_is_in_one_place_and_the_books_agree()

    def records_agree_and_never_go_back(self) -> None:
        for export_id in IDS:
            export = self.redis.get(export_id)
            assert seen(self.memory.get(export_id)) == seen(export)
            before = self.before.get(export_id)
            if export_id in self.hidden:
                assert export is None
            elif before is not None:
                assert export is not None
                assert export.progress >= before.progress
                assert (export.progress == 1.0) == (export.state is State.FINISHED)
                assert export.spec == before.spec
                if before.terminal:
                    assert export == before
                elif export.state is not before.state:
                    assert export.state in TRANSITIONS[before.state]
            if export is not None:
                self.before[export_id] = export

    def partitions_agree_and_are_there_as_long_as_they_are_needed(self) -> None:
        needed, cut = set(), set()
        for export_id in self.live():
            partitions = self.redis.partitions(export_id)
            ours = self.memory.partitions(export_id)
            assert [seen(one) for one in ours] == [seen(one) for one in partitions]
            if partitions:
                cut.add(export_id)
            for one in partitions:
                assert self.memory.get(one.id) is self.redis.get(one.id) is None
                assert one.progress >= self.furthest.get(one.id, 0)
                self.furthest[one.id] = one.progress
                needed.add(f"{{exporter}}:export:{one.id}")
        there = cast("list[bytes]", self.client.keys("{exporter}:export:*/*"))
        assert {key.decode() for key in there} == needed
        after = cast("list[bytes]", self.client.zrange("{exporter}:cut", 0, -1))
        assert {member.decode() for member in after} == cut

    def the_numbers_agree_and_add_up(self) -> None:
        counters = {name: value for name, value in self.redis.counters().items() if value}
        assert self.memory.counters() == counters
        assert census(self.memory) == census(self.redis)
        ended = sum(counters.get(f"exports_{state}", 0) for state in TERMINAL)
        live = len(self.live())
        assert counters.get("exports_created", 0) == ended + live
        assert counters.get("exports_deleted", 0) == len(self.hidden)

    def no_credit_is_lost_or_made(self) -> None:
        metered, free = self.credits.balance(METERED), self.credits.balance(FREE)
        assert self.memory.accounts.balance(METERED) == metered
        assert self.memory.accounts.balance(FREE) == free
        assert metered.left is not None
        assert metered.left >= 0
        assert metered.left + metered.reserved + metered.used == self.granted
        assert (free.left, free.reserved) == (None, 0)
        pipe = self.client.pipeline(transaction=False)
        for export_id in IDS:
            pipe.hmget(f"{{exporter}}:export:{export_id}", ["state", "reserved"])
        unsettled = [(state, int(held)) for state, held in pipe.execute() if held is not None]
        assert {state for state, _ in unsettled} <= {b"queued", b"processing"}
        assert sum(held for _, held in unsettled) == metered.reserved

    def live(self) -> dict[str, str]:
        """The owners of all exports that have not ended, those that nobody may see included."""
        found = {}
        pipe = self.client.pipeline(transaction=False)
        for export_id in IDS:
            pipe.hmget(f"{{exporter}}:export:{export_id}", ["state", "user"])
        for export_id, (state, user) in zip(IDS, pipe.execute(), strict=True):
            if state in (b"queued", b"processing"):
                found[export_id] = user.decode()
        return found

    def units(self) -> dict[str, str]:
        """The owners of all that a worker has or is to have: live partitions, and live exports
        that do not wait for some."""
        found = {}
        for export_id, user in self.live().items():
            partitions = self.redis.partitions(export_id)
            units = [one.id for one in partitions if not one.terminal] or [export_id]
            found.update(dict.fromkeys(units, user))
        return found

    def every_live_export_is_in_one_place_and_the_books_agree(self) -> None:
        places = Counter[str]()
        ready = Counter[str]()
        lines = set()
        for key in cast("list[bytes]", self.client.keys("{exporter}:ready:*")):
            _, _, level, user = key.decode().split(":")
            lines.add((level, user))
            members = cast("list[bytes]", self.client.zrange(key, 0, -1))
            ready.update(member.decode() for member in members)
        places.update(ready)
        tenants = {
            (level, user.decode())
            for level in "0123456789"
            for user in cast(
                "list[bytes]", self.client.zrange(f"{{exporter}}:tenants:{level}", 0, -1)
            )
        }
        leases = cast("list[bytes]", self.client.zrange("{exporter}:leases", 0, -1))
        waiting = cast("list[bytes]", self.client.zrange("{exporter}:waiting", 0, -1))
        places.update(member.decode() for member in leases + waiting)
        units = self.units()
        running = Counter(units[member.decode()] for member in leases)
        ageing = cast("list[bytes]", self.client.zrange("{exporter}:ageing", 0, -1))
        below = {
            export_id
            for export_id in ready
            if self.client.hget(f"{{exporter}}:export:{export_id}", "level") != b"9"
        }

        assert places == Counter(units.keys())
        assert {member.decode() for member in ageing} == below
        assert tenants == lines
        lined = cast("dict[bytes, bytes]", self.client.hgetall("{exporter}:lined"))
        assert sum(map(int, lined.values())) == len(ready)
        assert running == {
            user.decode(): int(count)
            for user, count in cast(
                "dict[bytes, bytes]", self.client.hgetall("{exporter}:running")
            ).items()
        }


def test_any_history_leaves_both_stores_alike_and_every_live_export_in_one_place(
    redis_server: RedisServer,
) -> None:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as client:

        class WithClient(Stores):
            pass

        WithClient.client = client
        run_state_machine_as_test(
            WithClient,
            settings=settings(
                max_examples=25,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )

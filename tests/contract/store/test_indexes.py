"""The indexes of lists agree with the records, whatever happens and whichever version did it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import given as given_any
from hypothesis import strategies as st

from exporter.clock import FakeClock
from exporter.core.exports import Outcome, State
from exporter.local.redis import RedisServer
from exporter.maintenance import cleaning
from exporter.store.base import Claim, ExportStore
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.store import RedisStore
from tests import fast
from tests.contract.store.given import (
    DATABASE,
    KEEP,
    LEASE,
    claim,
    finish,
    partitions_of,
    result,
)
from tests.contract.store.test_filters import counts, listed, make

NOW = timedelta(0)
USERS = ("ann", "bob")
ACTIONS = (
    *("create", "create", "create", "claim", "claim", "finish", "finish", "fail", "cancel"),
    *("delete", "expire", "sweep", "trim", "cut", "wait", "set aside", "force end"),
)
CONDITIONS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    states=st.sets(st.sampled_from(State), max_size=2).map(tuple),
    source=st.sampled_from([None, "board", "other"]),
    outcome=st.sampled_from([None, None, "complete"]),
    metadata=st.sampled_from([{}, {}, {"n": "1"}]),
    text=st.sampled_from(["", "", "al", "beta", "b a", "x"]),
    oldest_first=st.booleans(),
)


class Twins:
    """The two stores, of which one keeps indexes and the other looks at every record."""

    def __init__(self, client: redis.Redis) -> None:
        client.flushdb()
        self.client, self.clock = client, FakeClock()
        self.memory, self.redis = MemoryStore(self.clock), RedisStore(client)
        self.both: tuple[ExportStore, ExportStore] = (self.memory, self.redis)
        self.made = set[str]()

    def do(self, action: str, number: int) -> None:
        export_id, user = f"e{number}", USERS[number % 2]
        if action == "create" and export_id not in self.made:
            self.made.add(export_id)
            name = ("", "alpha beta", "Beta gamma", "al")[number % 4]
            metadata = {"n": str(number % 3)} if number % 2 else {}
            source = ("board", "other")[number % 3 == 0]
            for store in self.both:
                make(store, export_id, user, name=name, metadata=metadata, source=source)
        elif action in ("cancel", "expire"):
            keep = NOW if action == "expire" else KEEP
            for store in self.both:
                store.request_cancel(export_id, keep_record=keep)
        elif action == "delete":
            for store in self.both:
                store.delete(export_id, user)
        elif action == "sweep":
            for store in self.both:
                store.sweep()
        elif action == "trim":
            self.redis.trim_lists(again=NOW)
        elif action == "set aside":
            self.set_aside()
        elif action == "force end":
            self.force_end(export_id)
        elif action != "create":
            self.work(action, keep=NOW if number > 8 else KEEP)

    def work(self, action: str, keep: timedelta) -> None:
        """Both claim the next export, and do the same with it."""
        claims = [store.claim("w", lease=LEASE) for store in self.both]
        for store, claimed in zip(self.both, claims, strict=True):
            if claimed is not None:
                self.work_on(store, claimed, action, keep)

    def work_on(self, store: ExportStore, claimed: Claim, action: str, keep: timedelta) -> None:
        export, fence = claimed.export, claimed.fence
        if action == "finish":
            store.end(
                export.id,
                fence,
                State.FINISHED,
                result=result(),
                keep_file=KEEP,
                keep_record=keep,
            )
        elif action == "fail":
            store.end(export.id, fence, State.FAILED, error="x", keep_record=keep)
        elif action == "wait":
            store.release(export.id, fence, clean=True, retry_in=NOW, reason="busy")
        elif action == "cut" and export.partitions:
            store.rejoin(export.id, fence)
        elif action == "cut" and export.partition is None and export.partitions is None:
            store.cut(export.id, fence, partitions_of(60, 40))

    def set_aside(self) -> None:
        """A worker of another version claims the next export, and cannot read its record."""
        ours = self.memory.claim("w", lease=LEASE)
        if ours is None:
            return
        self.memory.release(ours.export.id, ours.fence, clean=True, retry_in=LEASE)
        self.memory.claim("w", lease=LEASE)
        key = f"{{exporter}}:export:{ours.export.spec.id}"
        whole = cast("bytes", self.client.hget(key, "spec"))
        self.client.hset(key, "spec", "{")
        self.redis.claim("w", lease=LEASE)
        self.client.hset(key, "spec", whole)
        self.client.hdel(key, "unread")  # or its owner could cancel it without a worker

    def force_end(self, export_id: str) -> None:
        """A queued export is canceled whose record no step can change."""
        known = self.memory.get(export_id)
        if known is not None and known.state is State.QUEUED:
            self.client.hset(f"{{exporter}}:export:{export_id}", "level", "?")
            self.do("cancel", int(export_id[1:]))

    def check_books(self) -> None:
        """Each visible export is in each of its lists and indexes once; nothing else is in any."""
        self.redis.count_states(None)
        known = {
            export.id: export
            for number in range(12)
            if (export := self.memory.get(f"e{number}")) is not None
        }
        entries = cast("dict[bytes, bytes]", self.client.hgetall("{exporter}:indexed"))
        assert {name.decode() for name in entries} == known.keys()
        places: set[tuple[str, str]] = set()
        for export_id, export in known.items():
            entry = json.loads(entries[export_id.encode()])
            assert entry[0] == export.user_id
            places.update((f"user:{user}", export_id) for user in (export.user_id,))
            places.add(("all", export_id))
            for user in ("", export.user_id):
                values = [f"state:{export.state}", *entry[2:]]
                places.update((f"index:{len(user)}:{user}:{one}", export_id) for one in values)
        found: set[tuple[str, str]] = set()
        for pattern in ("index:*", "user:*", "all"):
            for key in cast("list[bytes]", self.client.keys(f"{{exporter}}:{pattern}")):
                members = cast("list[bytes]", self.client.zrange(key, 0, -1))
                name = key.decode().removeprefix("{exporter}:")
                found.update((name, member.decode()) for member in members)
        assert found == places


@pytest.fixture
def client_of_twins(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as client:
        yield client


@pytest.mark.external
@given_any(
    actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 11)), max_size=30),
    conditions=CONDITIONS,
    user=st.sampled_from([*USERS, None]),
    limit=st.integers(1, 4),
)
@settings(
    max_examples=fast.examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_indexes_say_what_a_look_at_every_record_says(
    client_of_twins: redis.Redis,
    actions: list[tuple[str, int]],
    conditions: dict[str, Any],
    user: str | None,
    limit: int,
) -> None:
    # Given
    twins = Twins(client_of_twins)
    for number in range(6):
        twins.do("create", number)
    for action, number in actions:
        twins.do(action, number)
    memory, indexed = twins.both
    # When / Then: counts come first, because lists remove what they meet
    assert counts(indexed, user) == counts(memory, user)
    assert listed(indexed, user, limit=limit, **conditions) == listed(memory, user, **conditions)
    assert counts(indexed, user, **conditions) == counts(memory, user, **conditions)
    twins.check_books()


@pytest.mark.external
@pytest.mark.parametrize("action", sorted(set(ACTIONS)))
def test_each_action_of_a_history_happens_in_some(
    client_of_twins: redis.Redis, action: str
) -> None:
    # Given: two ready exports, the next of which is e1
    twins = Twins(client_of_twins)
    for number in (1, 2):
        twins.do("create", number)
    before = [twins.memory.get(f"e{number}") for number in range(12)]
    # When
    twins.do(action, 5 if action == "create" else 1)
    # Then
    if action not in ("sweep", "trim"):
        assert [twins.memory.get(f"e{number}") for number in range(12)] != before
    twins.check_books()


# -- Expired records -------------------------------------------------------------------------------


@pytest.mark.external
def test_expired_exports_are_not_counted_though_nobody_lists_them(client: redis.Redis) -> None:
    # Given: more of them than one call removes
    store = RedisStore(client)
    for number in range(230):
        make(store, f"e{number}")
        if number:
            store.request_cancel(f"e{number}", keep_record=KEEP)
    soon = cast("list[bytes]", client.zrange("{exporter}:expiring", 0, -1))
    # When
    client.delete(*(f"{{exporter}}:export:{one.decode()}" for one in soon))
    client.zadd("{exporter}:expiring", dict.fromkeys(soon, 1))
    # Then
    assert len(soon) == 229
    assert counts(store) == {"queued": 1}
    assert counts(store, None) == {"queued": 1}


@pytest.mark.external
def test_counts_say_that_they_are_not_exact_if_very_many_exports_have_expired(
    client: redis.Redis,
) -> None:
    # Given
    store = RedisStore(client)
    client.zadd("{exporter}:expiring", {f"e{number}": 1 for number in range(1300)})
    # When / Then
    assert not store.count_states("ann").exact
    assert store.count_states("ann").exact


@pytest.mark.external
def test_sweeps_forget_expired_exports_without_any_call_of_their_user(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    make(store, "e", name="short lived", metadata={"a": "b"})
    store.request_cancel("e", keep_record=NOW)
    # When
    store.sweep()
    # Then
    assert not client.keys("*index*")
    assert not client.exists("{exporter}:all", "{exporter}:user:ann", "{exporter}:expiring")


@pytest.mark.external
def test_a_record_whose_end_was_put_off_stays_listed(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for name in ("kept", "put off"):
        make(store, name)
        store.request_cancel(name, keep_record=KEEP)
    client.zadd("{exporter}:expiring", {"kept": 1, "put off": 1})
    client.persist("{exporter}:export:kept")
    # When
    store.sweep()
    # Then
    assert counts(store) == {"canceled": 2}
    assert client.zrange("{exporter}:expiring", 0, -1) == [b"put off"]


# -- Other versions --------------------------------------------------------------------------------


def forget_indexes(client: redis.Redis) -> None:
    """Leaves what a version without indexes has."""
    for key in cast("list[bytes]", client.keys("*index*")):
        client.delete(key)
    client.delete("{exporter}:all", "{exporter}:expiring", "{exporter}:trim_all")
    users = cast("list[bytes]", client.zrange("{exporter}:users", 0, -1))
    client.zadd("{exporter}:users", dict.fromkeys(users, 1))


def clean(store: ExportStore) -> None:
    cleaning._trim_lists(store, lambda: True)


@pytest.mark.external
def test_one_cleaning_indexes_all_exports_of_a_version_without_indexes(
    client: redis.Redis,
) -> None:
    # Given: a user with many, and few other users
    store = RedisStore(client)
    for number in range(620):
        make(store, f"a{number}")
    make(store, "b", "bob")
    finish(store, claim(store))
    forget_indexes(client)
    assert listed(store, source="board") == []
    # When
    clean(store)
    # Then
    assert len(listed(store, source="board")) == 620
    assert counts(store, None) == {"queued": 620, "finished": 1}
    assert listed(store, None, outcome=Outcome.COMPLETE) == ["a0"]
    assert client.zrange("{exporter}:expiring", 0, -1) == [b"a0"]
    assert not client.exists("{exporter}:trimmed")


@pytest.mark.external
def test_an_upgrade_mends_all_lists_whenever_they_were_trimmed(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for number in range(300):
        make(store, f"e{number}", USERS[number % 2])
    clean(store)
    client.delete("{exporter}:all", *cast("list[bytes]", client.keys("*index*")))
    # When
    changes = [store.mend_lists() for _ in range(2)]
    # Then
    assert changes == [300, 0]
    assert len(listed(store, None, source="board")) == 300


@pytest.mark.external
def test_old_exports_of_two_users_that_were_made_at_once_are_all_listed(
    client: redis.Redis,
) -> None:
    # Given: scores that only the lists of their users have once
    store = RedisStore(client)
    for number, user in enumerate(("ann", "ann", "bob", "bob", "carl")):
        make(store, f"e{number}", user)
        client.zadd(f"{{exporter}}:user:{user}", {f"e{number}": 1000 + number % 2})
    forget_indexes(client)
    # When
    clean(store)
    # Then
    everything = sorted(f"e{number}" for number in range(5))
    assert sorted(listed(store, None, limit=1)) == everything
    assert sorted(listed(store, None, limit=1, source="board")) == everything
    assert listed(store, "ann", limit=1) == ["e1", "e0"]


@pytest.mark.external
def test_what_an_older_worker_ends_is_found_by_its_state_and_outcome(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for name in ("finished", "deleted", "queued"):
        make(store, name)
    claim(store)
    # When: it knows of no indexes
    client.hset(
        "{exporter}:export:finished",
        mapping={"state": "finished", "result": msgspec.json.encode(result())},
    )
    client.pexpire("{exporter}:export:finished", KEEP)
    client.hset("{exporter}:export:deleted", "deleted", "1")
    client.zrem("{exporter}:user:ann", "deleted")
    clean(store)
    # Then
    assert counts(store) == counts(store, None) == {"finished": 1, "queued": 1}
    assert listed(store, states=(State.FINISHED,)) == ["finished"]
    assert listed(store, outcome=Outcome.COMPLETE) == ["finished"]
    assert client.zrange("{exporter}:expiring", 0, -1) == [b"finished"]
    assert store.mend_lists() == 0


@pytest.mark.external
def test_a_damaged_record_does_not_keep_others_from_their_lists(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for name in ("damaged", "e"):
        make(store, name)
    client.delete("{exporter}:export:damaged")
    client.set("{exporter}:export:damaged", "text")
    forget_indexes(client)
    # When
    clean(store)
    # Then
    assert listed(store, source="board") == ["e"]

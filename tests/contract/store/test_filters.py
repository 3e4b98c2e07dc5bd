"""Filtered lists and counts: exactly the exports that meet the conditions, in order."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis

from exporter.core.exports import Outcome, State
from exporter.store.base import MAX_COUNTED, ExportStore
from exporter.store.filters import Filters
from exporter.store.redis import store as redis_store
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import (
    KEEP,
    SHORT,
    Elapse,
    claim,
    cut,
    finish,
    known,
    spec,
)


def make(store: ExportStore, export_id: str, user: str = "ann", **fields: Any) -> None:
    store.create(msgspec.structs.replace(spec(export_id, user), **fields))


def listed(
    store: ExportStore, user: str | None = "ann", *, limit: int = 100, **conditions: Any
) -> list[str]:
    """The ids of all pages."""
    filters, cursor, found = Filters(**conditions), None, list[str]()
    while True:
        page = store.list(user, limit=limit, cursor=cursor, filters=filters)
        found += [export.id for export in page.exports]
        cursor = page.next_cursor
        if cursor is None:
            return found


def counts(store: ExportStore, user: str | None = "ann", **conditions: Any) -> dict[str, int]:
    found = store.count_states(user, Filters(**conditions))
    assert found.exact
    return {state: count for state, count in found.counts.items() if count}


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ({"source": "board"}, ["c", "b"]),
        ({"format": "json"}, ["d", "c"]),
        ({"source": "board", "format": "json"}, ["c"]),
        ({"metadata": {"team": "ops"}}, ["d", "b"]),
        ({"metadata": {"team": "ops", "day": "1"}}, ["b"]),
        ({"metadata": {"team": "Ops"}}, []),
        ({"text": "nightly"}, ["d", "b"]),
        ({"text": "ÄRZ night"}, ["b"]),
        ({"text": "n"}, ["d", "b"]),
        ({"text": "ightly"}, []),
        ({"text": "nightly", "source": "other"}, ["d"]),
        ({"source": "none"}, []),
        ({"oldest_first": True, "format": "json"}, ["c", "d"]),
    ],
)
def test_a_list_has_the_exports_that_meet_all_conditions(
    store: ExportStore, conditions: dict[str, Any], found: list[str]
) -> None:
    # Given
    make(store, "b", name="Nightly: Ärzte", metadata={"team": "ops", "day": "1"})
    make(store, "c", format="json")
    make(store, "d", source="other", format="json", name="nightly", metadata={"team": "ops"})
    make(store, "e", "bob", name="nightly")
    # When / Then
    assert listed(store, **conditions) == found
    assert listed(store, limit=1, **conditions) == found
    assert sum(counts(store, **conditions).values()) == len(found)


def test_states_and_outcomes_are_those_of_now(store: ExportStore) -> None:
    # Given: one export in each state
    for name in ("finished", "failed", "canceled late", "processing", "canceled", "queued"):
        make(store, name)
    finish(store, claim(store))
    for state in (State.FAILED, State.CANCELED):
        claimed = claim(store)
        store.end(claimed.export.id, claimed.fence, state, error="x", keep_record=KEEP)
    claim(store)
    store.request_cancel("canceled", keep_record=KEEP)
    # When / Then
    assert listed(store, states=(State.QUEUED,)) == ["queued"]
    assert listed(store, states=(State.PROCESSING,)) == ["processing"]
    assert listed(store, states=(State.CANCELED, State.FAILED)) == [
        "canceled",
        "canceled late",
        "failed",
    ]
    assert listed(store, outcome=Outcome.COMPLETE) == ["finished"]
    assert counts(store) == {
        "queued": 1,
        "processing": 1,
        "finished": 1,
        "failed": 1,
        "canceled": 2,
    }
    assert counts(store, outcome="complete") == {"finished": 1}
    assert counts(store, "bob") == {}


def test_an_operator_lists_and_counts_the_exports_of_all_users(store: ExportStore) -> None:
    # Given
    make(store, "a")
    make(store, "b", "bob", source="other")
    make(store, "c", "carl")
    # When / Then
    assert listed(store, None) == ["c", "b", "a"]
    assert listed(store, None, limit=1, source="other") == ["b"]
    assert listed(store, "bob") == ["b"]
    assert counts(store, None) == {"queued": 3}


def test_a_time_of_creation_bounds_the_list(store: ExportStore, elapse: Elapse) -> None:
    # Given
    for name in "abc":
        make(store, name)
        elapse(timedelta(0))
    second, third = known(store, "b").created_at, known(store, "c").created_at
    # When / Then
    assert listed(store, created_from=second) == ["c", "b"]
    assert listed(store, created_to=second) == ["a"]
    assert listed(store, created_from=second, created_to=third, oldest_first=True) == ["b"]
    assert counts(store, created_from=second) == {"queued": 2}


def test_a_cursor_belongs_to_its_filters_and_its_order(store: ExportStore) -> None:
    # Given
    for name in "abc":
        make(store, name)
    cursor = store.list("ann", limit=1, filters=Filters(source="board")).next_cursor
    assert cursor is not None
    # When / Then
    for other in (Filters(), Filters(source="x"), Filters(source="board", oldest_first=True)):
        with pytest.raises(ValueError, match="other filters or another order"):
            store.list("ann", limit=1, cursor=cursor, filters=other)
    assert store.list("ann", limit=1, cursor=cursor, filters=Filters(source="board")).exports


def test_deleted_exports_and_partitions_are_in_no_list(store: ExportStore) -> None:
    # Given
    cut(store, "whole", 5, 5)
    make(store, "deleted", name="gone")
    store.delete("deleted", "ann")
    # When / Then
    every: list[dict[str, Any]] = [{}, {"text": "gone"}, {"source": "board"}]
    for conditions in every:
        for user in ("ann", None):
            assert "deleted" not in listed(store, user, **conditions)
    assert counts(store) == {"processing": 1}
    assert listed(store, states=(State.PROCESSING,)) == ["whole"]


def test_expired_exports_leave_all_lists(store: ExportStore, elapse: Elapse) -> None:
    # Given
    make(store, "e", name="short lived", metadata={"a": "b"})
    store.request_cancel("e", keep_record=SHORT)
    # When
    elapse(SHORT)
    # Then
    assert listed(store, None, states=(State.CANCELED,)) == []
    assert listed(store, metadata={"a": "b"}) == []
    assert counts(store) == {}
    if isinstance(store, RedisStore):
        assert not store.client.keys("*index*")
        assert not store.client.exists("{exporter}:all")


def test_users_whose_ids_resemble_keys_are_kept_apart(store: ExportStore) -> None:
    # Given
    make(store, "a", "ann:source")
    make(store, "b", "ann")
    # When / Then
    assert listed(store, "ann:source", source="board") == ["a"]
    assert listed(store, "ann", source="board") == ["b"]


@pytest.mark.external
def test_a_long_walk_takes_several_calls_and_counting_says_when_it_stopped(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    store = RedisStore(client)
    for number in range(30):
        make(store, f"e{number}", source="board", format="csv" if number else "json")
    monkeypatch.setattr(redis_store, "_WALK_STEPS", 7)
    # When / Then: words that no index has are looked for in the names
    assert listed(store, text="x") == []
    assert listed(store, limit=4) == [f"e{number}" for number in reversed(range(30))]
    assert counts(store, source="board") == {"queued": 30}
    monkeypatch.setattr(redis_store, "MAX_COUNTED", 14)
    stopped = store.count_states("ann", Filters(source="board"))
    assert not stopped.exact
    assert Counter(stopped.counts)[State.QUEUED] == 14
    assert MAX_COUNTED > 14


@pytest.mark.external
def test_exports_of_a_version_without_indexes_are_indexed_as_lists_are_trimmed(
    client: redis.Redis,
) -> None:
    # Given: what a release without indexes has left
    store = RedisStore(client)
    for name in "abc":
        make(store, name, name="old")
    finish(store, claim(store))
    for key in client.keys("*index*"):
        client.delete(key)
    client.delete("{exporter}:all")
    assert listed(store) == ["c", "b", "a"]
    assert listed(store, source="board") == []
    # When
    store.trim_lists(again=timedelta(0))
    # Then
    assert listed(store, source="board") == ["c", "b", "a"]
    assert listed(store, None, outcome="complete") == ["a"]
    assert counts(store) == {"queued": 2, "finished": 1}

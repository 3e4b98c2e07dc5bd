"""One request to create, tried many times, is one export."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from exporter.store.base import ExportStore, Idempotency, KeyReused, KeySpent
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import SHORT, Elapse, claim, finish, known, race, spec

MARK = Idempotency(key="k", fingerprint="f")


def test_the_second_try_of_a_request_is_answered_with_the_first_ones_export_as_it_stands(
    store: ExportStore,
) -> None:
    # Given
    first = store.create(spec("first"), MARK)
    finish(store, claim(store))

    # When
    second = store.create(spec("second"), MARK)

    # Then
    assert first.id == second.id == "first"
    assert second == known(store, "first")
    assert second.terminal
    assert store.get("second") is None
    assert len(store.list("ann", limit=10).exports) == 1
    assert store.sweep().ready == 0


@pytest.mark.parametrize("how", ["canceled", "finished", "deleted"])
def test_a_key_until_the_end_creates_another_export_then(store: ExportStore, how: str) -> None:
    # Given
    mark = Idempotency("k", "f", until_ended=True)
    store.create(spec("first"), mark)
    assert store.create(spec("second"), mark).id == "first"
    if how == "canceled":
        store.request_cancel("first", keep_record=timedelta(hours=1))
    elif how == "finished":
        finish(store, claim(store))
    else:
        store.delete("first", "ann")

    # When
    ids = [store.create(spec(one), mark).id for one in ("third", "fourth", "third")]

    # Then
    assert ids == ["third"] * 3
    assert store.get("fourth") is None


def test_a_key_that_comes_with_another_request_creates_nothing(store: ExportStore) -> None:
    # Given
    store.create(spec("first"), MARK)

    # When
    with pytest.raises(KeyReused, match="'k'"):
        store.create(spec("second"), Idempotency("k", "other"))

    # Then
    assert store.get("second") is None
    assert known(store, "first").spec == spec("first")


def test_keys_of_two_users_never_meet(store: ExportStore) -> None:
    # Given users and keys that would be alike if they were only put side by side
    names = [("ann", "k"), ("bob", "k"), ("ann:k", "k"), ("ann", "k:k")]

    # When
    made = [
        store.create(spec(f"{user} {key}", user), Idempotency(key, "f")).id for user, key in names
    ]

    # Then
    assert made == [f"{user} {key}" for user, key in names]


def test_a_key_whose_export_is_deleted_or_expired_creates_nothing_again(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("deleted"), MARK)
    store.delete("deleted", "ann")
    store.create(spec("expired"), Idempotency("other", "f"))
    store.request_cancel("expired", keep_record=SHORT)
    elapse(SHORT)

    # When / Then
    for key in ("k", "other"):
        with pytest.raises(KeySpent, match="is deleted or expired"):
            store.create(spec("again"), Idempotency(key, "f"))
    assert store.get("again") is None


def test_a_key_is_forgotten_when_its_time_is_over(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("first"), Idempotency("k", "f", ttl=SHORT))
    assert store.create(spec("second"), Idempotency("k", "f", ttl=SHORT)).id == "first"

    # When
    elapse(SHORT)

    # Then
    assert store.create(spec("second"), Idempotency("k", "other")).id == "second"


def test_of_racing_tries_one_creates(store: ExportStore) -> None:
    # When
    made = race(6, lambda number: store.create(spec(f"e{number}"), MARK).id)

    # Then
    assert len(made) == 6
    assert len(set(made)) == 1
    assert [export.id for export in store.list("ann", limit=10).exports] == made[:1]
    assert store.counters()["exports_replayed"] == 5


def test_a_key_costs_redis_the_same_however_long_it_is_and_a_day_at_most(
    client: redis.Redis,
) -> None:
    # Given
    store = RedisStore(client)

    # When
    store.create(spec("e", "ü" * 300), Idempotency("k" * 255, "f" * 64))

    # Then
    (name,) = client.keys("{exporter}:idempotency:*")
    assert len(name) < 100
    assert timedelta(hours=23) < timedelta(milliseconds=client.pttl(name)) <= timedelta(hours=24)

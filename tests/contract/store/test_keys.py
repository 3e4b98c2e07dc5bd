"""What is kept of API keys in a real Redis: their plans, what they may spend, and their end."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
import redis

from exporter.core.plans import Balance, Plan
from exporter.store.redis.api_keys import ApiKey, KeyRing
from exporter.store.redis.credit_accounts import Credits, UnknownKey

TEAM = Plan(None, features=frozenset({"export", "search"}), priority_ceiling=5, concurrency=3)


def made(ring: KeyRing, plan: Plan = TEAM, balance: int | None = None) -> tuple[str, ApiKey]:
    """A new key and what is known of it."""
    secret = ring.create("ann", plan=plan, balance=balance)
    key = ring.find(secret)
    assert key is not None
    return secret, key


def test_a_key_is_unlimited_unless_it_was_told_otherwise(client: redis.Redis) -> None:
    # Given
    ring = KeyRing(client)

    # When
    key = ring.find(ring.create("ann"))

    # Then
    assert key is not None
    assert key.plan == Plan(key.id)
    assert Credits(client).balance(key.id) == Balance(left=None, used=0)


def test_a_key_from_before_there_were_plans_is_unlimited(client: redis.Redis) -> None:
    # Given: as an earlier version wrote it
    ring = KeyRing(client)
    secret, key = made(ring, balance=5)
    (name,) = client.keys("{exporter}:key:*")
    old = msgspec.json.decode(client.get(name) or b"")
    del old["plan"]
    client.set(name, msgspec.json.encode(old))
    client.delete(f"{{exporter}}:account:{key.id}")

    # When
    found = ring.find(secret)

    # Then
    assert found is not None
    assert found.plan == Plan(key.id)
    assert list(ring.list()) == [found]


def test_a_key_carries_its_plan_and_knows_who_pays(client: redis.Redis) -> None:
    # Given
    ring = KeyRing(client)

    # When
    _, key = made(ring, balance=0)

    # Then: with nothing left it is metered all the same
    assert key.plan == msgspec.structs.replace(TEAM, key_id=key.id, metered=True)
    assert [one.plan for one in ring.list()] == [key.plan]


@pytest.mark.parametrize(
    ("plan", "balance", "said"),
    [
        (
            Plan(None, features=frozenset({"export", "fly"})),
            None,
            "feature fly: give one of export",
        ),
        (
            Plan(None, priority_ceiling=10),
            None,
            "priority of at most 10 is out of range: give 0 to 9",
        ),
        (Plan(None, concurrency=-1), None, "-1 slices at once"),
        (TEAM, -1, "-1 credits: give 0 to"),
        (TEAM, 10**16, "credits: give 0 to"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_and_nothing_is_made(
    client: redis.Redis, plan: Plan, balance: int | None, said: str
) -> None:
    # Given
    ring = KeyRing(client)

    # When
    with pytest.raises(ValueError, match=said):
        ring.create("ann", plan=plan, balance=balance)

    # Then
    assert client.keys() == []


def test_changing_a_plan_changes_what_was_named_and_nothing_else(client: redis.Redis) -> None:
    # Given
    ring = KeyRing(client)
    secret, key = made(ring, balance=5)
    steps = [
        ({"concurrency": 0}, (TEAM.features, 5, 0)),
        ({"priority_ceiling": 0}, (TEAM.features, 0, 0)),
        ({"features": ["bulk"]}, (frozenset({"bulk"}), 0, 0)),
        ({"features": None, "concurrency": 7}, (None, 0, 7)),
    ]
    for changes, expected in steps:
        # When
        assert ring.set(key.id, **changes)  # type: ignore[arg-type]

        # Then
        found = ring.find(secret)
        assert found is not None
        plan = found.plan
        assert (plan.features, plan.priority_ceiling, plan.concurrency) == expected
        assert (plan.key_id, plan.metered) == (key.id, True)
        assert msgspec.structs.replace(found, plan=key.plan) == key
    with pytest.raises(ValueError, match="feature fly"):
        ring.set(key.id, features=["fly"])
    assert ring.find(secret) == found
    assert not ring.set("nobody", concurrency=1)


def test_changes_at_the_same_time_all_last_and_none_revives_a_revoked_key(
    client: redis.Redis,
) -> None:
    # Given
    ring = KeyRing(client)
    secret, key = made(ring)
    changes: list[dict[str, Any]] = [
        {"concurrency": 9},
        {"priority_ceiling": 1},
        {"features": ["pipeline"]},
    ]
    for leave in (False, True):
        threads = [
            threading.Thread(target=ring.set, args=(key.id,), kwargs=change) for change in changes
        ]

        # When
        for thread in threads:
            thread.start()
        if leave:
            ring.revoke(key.id)
        for thread in threads:
            thread.join()

        # Then
        found = ring.find(secret)
        if leave:
            assert found is None
        else:
            assert found is not None
            assert found.plan == Plan(key.id, frozenset({"pipeline"}), 1, 9)
    assert client.keys() == []


def test_credits_are_set_added_and_lifted_and_the_plan_follows(client: redis.Redis) -> None:
    # Given
    ring, accounts = KeyRing(client), Credits(client)
    secret, key = made(ring)

    def metered() -> bool:
        found = ring.find(secret)
        assert found is not None
        return found.plan.metered

    # When / Then
    assert not metered()
    with pytest.raises(ValueError, match="has no balance to add 5 credits to"):
        accounts.add(key.id, 5)
    accounts.set(key.id, 10)
    assert metered()
    accounts.charge(key.id, 4)
    accounts.add(key.id, 500)
    assert accounts.balance(key.id) == Balance(left=506, used=4)
    accounts.set(key.id, 0)
    assert accounts.balance(key.id) == Balance(left=0, used=4)
    accounts.set(key.id, None)
    assert not metered()
    assert accounts.balance(key.id) == Balance(left=None, used=4)


@pytest.mark.parametrize("amount", [-1, 10**16])
def test_amounts_that_no_key_can_have_are_refused(client: redis.Redis, amount: int) -> None:
    # Given
    accounts = Credits(client)
    _, key = made(KeyRing(client), balance=5)

    # When
    for give in (accounts.set, accounts.add, accounts.charge):
        with pytest.raises(ValueError, match="credits: give 0 to"):
            give(key.id, amount)

    # Then
    assert accounts.balance(key.id) == Balance(left=5, used=0)


def test_a_key_that_is_not_there_gets_no_account(client: redis.Redis) -> None:
    # Given
    accounts = Credits(client)
    _, key = made(KeyRing(client), balance=5)
    KeyRing(client).revoke(key.id)

    # When
    for give in (accounts.set, accounts.add):
        with pytest.raises(UnknownKey, match=f"no key has the id '{key.id}'"):
            give(key.id, 5)

    # Then
    assert client.keys() == []


@pytest.mark.parametrize("value", [b"\xff", b"{}", b'{"a":' * 900 + b"1" + b"}" * 900])
def test_a_key_whose_record_is_damaged_is_left_out_and_others_work(
    client: redis.Redis, value: bytes
) -> None:
    # Given
    ring = KeyRing(client)
    damaged, _ = made(ring)
    sound, key = made(ring)
    first = next(
        one for one in client.scan_iter("{exporter}:key:*") if one[15:27] != key.id.encode()
    )
    client.set(first, value)

    # When
    found = ring.list()

    # Then
    assert [one.id for one in found] == [key.id]
    assert ring.find(sound) is not None
    assert ring.find(damaged) is None

"""Records that this version cannot read, because another one wrote them or they are damaged."""

from __future__ import annotations

from typing import cast

import pytest
import redis

from exporter.core.exports import State
from exporter.core.plans import Balance
from exporter.store.base import Verdict
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.store import MAX_UNREADABLE_CLAIMS, RedisStore
from tests.contract.store.given import LEASE, checkpoint, claim, cut, finish, known, spec


def end_wait(client: redis.Redis, export_id: str) -> None:
    """Let the time come for which an export waits."""
    assert client.zadd("{exporter}:waiting", {export_id: 0}, xx=True, ch=True) == 1


UNREADABLE = {
    "a spec that is no spec": {"spec": b'{"id": 5}'},
    "a spec that is no JSON": {"spec": b"\xff"},
    "a word that this version has not": {"checkpoint": b'{"cursor":null,"rows":"many"}'},
    "a number that is none": {"attempts": b"often"},
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_record_that_this_version_cannot_read_fails_in_the_end_and_blocks_nobody(
    client: redis.Redis, damage: dict[str, bytes]
) -> None:
    # Given: first in line, and paid for
    store, ring, accounts = RedisStore(client), KeyRing(client), Credits(client)
    key = ring.find(ring.create("ann", balance=10))
    assert key is not None
    store.create(spec("strange", account=key.id, reserved=10, priority=9))
    store.create(spec("sound"))
    for field, value in damage.items():
        client.hset("{exporter}:export:strange", field, value)

    # When: the one behind it is claimed in the same breath
    claimed = claim(store)

    # Then
    assert claimed.export.id == "sound"
    finish(store, claimed)
    for tries in range(1, MAX_UNREADABLE_CLAIMS):
        # And it is given back as it was found, each lease, for a worker of another version
        assert client.hmget("{exporter}:export:strange", ["phase", "clean", "unread"]) == [
            b"waiting",
            b"1",
            b"%d" % tries,
        ]
        end_wait(client, "strange")
        assert store.claim("worker-1", lease=LEASE) is None
    state, error = client.hmget("{exporter}:export:strange", ["state", "error"])
    assert state == b"failed"
    assert b"this version of the exporter cannot read the export's record" in (error or b"")
    assert accounts.balance(key.id) == Balance(left=10, used=0)
    assert store.sweep().ready == 0
    assert (store.queue_counts().running, store.queue_counts().waiting) == (0, 0)


def test_a_worker_that_can_read_a_record_goes_on_where_others_could_not(
    client: redis.Redis,
) -> None:
    # Given
    store = RedisStore(client)
    store.create(spec("e"))
    whole = client.hget("{exporter}:export:e", "spec")
    assert whole is not None
    client.hset("{exporter}:export:e", "spec", b"{}")
    for _ in range(MAX_UNREADABLE_CLAIMS - 1):
        assert store.claim("worker-1", lease=LEASE) is None
        end_wait(client, "e")

    # When
    client.hset("{exporter}:export:e", "spec", whole)
    claimed = claim(store)

    # Then
    assert claimed.clean
    assert claimed.export.error is not None
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.5)
    finish(store, claimed)
    assert known(store, "e").state is State.FINISHED


def test_a_partition_that_nobody_can_read_fails_and_its_export_learns_why(
    client: redis.Redis,
) -> None:
    # Given
    store = RedisStore(client)
    cut(store, "e", 60, 40)
    first, second = claim(store), claim(store)
    store.commit("e/0", first.fence, checkpoint(), lease=LEASE, progress=0.5)
    store.release("e/0", first.fence, clean=True)
    client.hset("{exporter}:export:e/0", mapping={"checkpoint": b"{", "attempts": b"often"})

    # When
    for _ in range(MAX_UNREADABLE_CLAIMS):
        assert store.claim("worker-1", lease=LEASE) is None
        client.zadd("{exporter}:waiting", {"e/0": 0}, xx=True)

    # Then
    assert store.renew("e/1", second.fence, lease=LEASE) is Verdict.CANCEL
    assert store.end("e/1", second.fence, State.CANCELED, keep_record=LEASE)
    whole = claim(store)
    assert whole.export.id == "e"
    partitions = store.partitions("e")
    assert [one.state for one in partitions] == [State.FAILED, State.CANCELED]
    assert "this version of the exporter cannot read" in (partitions[0].error or "")


def test_a_worker_that_knows_no_partitions_finds_none_that_it_can_read(
    client: redis.Redis,
) -> None:
    # Given: it reads the spec out of the record that it claimed
    store = RedisStore(client)

    # When
    cut(store, "e", 60)

    # Then
    assert client.hget("{exporter}:export:e/0", "spec") is None
    assert claim(store).export.spec == spec("e")


def test_what_such_a_worker_ended_is_put_right_by_a_sweep(client: redis.Redis) -> None:
    # Given three exports: of one the only partition was ended and nobody told, one was ended with
    # its partition left behind, and one is as it is to be
    store = RedisStore(client)
    for export_id in ("left alone", "left over", "sound"):
        cut(store, export_id, 60)
        claim(store)
    for export_id in ("left alone/0", "left over/0"):
        client.hset(f"{{exporter}}:export:{export_id}", "state", "failed")
        client.zrem("{exporter}:leases", export_id)
    client.hset("{exporter}:export:left over", "state", "finished")
    client.zadd("{exporter}:cut", {"left alone": 0, "left over": 0, "sound": 0}, xx=True)

    # When
    store.sweep()

    # Then
    assert claim(store).export.id == "left alone"
    assert store.claim("worker-1", lease=LEASE) is None
    left = cast("list[bytes]", client.keys("{exporter}:export:*/*"))
    assert sorted(left) == [b"{exporter}:export:left alone/0", b"{exporter}:export:sound/0"]
    assert store.sweep().ready == 0


def test_a_record_from_before_there_were_partitions_is_of_an_export_that_was_never_cut(
    client: redis.Redis,
) -> None:
    # Given
    store = RedisStore(client)
    store.create(spec("e"))

    # When
    export = known(store, "e")

    # Then
    assert (
        not {b"partition", b"partitions", b"whole"} & client.hgetall("{exporter}:export:e").keys()
    )
    assert (export.partition, export.partitions) == (None, None)

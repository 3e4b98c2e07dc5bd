"""An installation with an export, an endpoint and a delivery in every state that there is.

It uses the stores only as the release before could: that release made its records with this module,
too. `python -m tests.contract.store.releases.installation FILE` writes them to a file.
"""

from __future__ import annotations

import itertools
import secrets
import sys
import tempfile
from datetime import timedelta
from functools import partial
from pathlib import Path
from unittest import mock

import redis

from exporter.core.events import EVENTS
from exporter.core.exports import Hook, State, WrongAnswers
from exporter.core.plans import Plan
from exporter.core.rates import Rate
from exporter.store.base import Claim, Idempotency
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.rate_budgets import RedisBudgets
from exporter.store.redis.rate_limits import RateLimits
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import KEEP, LEASE, checkpoint, partitions_of, result, spec
from tests.contract.store.webhook_desk import URL, Desk

NONE = timedelta(0)


def key(store: RedisStore, name: str) -> str:
    """Returns the key of that name; release 0.2.0 had no prefix to choose."""
    names = getattr(store, "names", None)
    return names(name) if names is not None else f"exporter:{name}"


def build(client: redis.Redis) -> None:
    """Makes the installation in an empty database; two calls differ in their times alone."""
    count = itertools.count()
    with mock.patch.object(secrets, "token_hex", lambda size: f"{next(count):0{2 * size}x}"):
        _webhooks(Desk(client))
        _exports(RedisStore(client), _keys(client))
        Desk(client).spread()
        RedisStore(client).create(spec("its event waits"))
        RateLimits(client).acquire("ann", Rate(3, 3600))
        budgets, rate = RedisBudgets(client), Rate(1, 60)
        budgets.open("board", rate).reserve()
        budgets.open_for_api("board", rate).reserve()
        budgets.open("board", rate).pause_for(90)


def _keys(client: redis.Redis) -> str:
    """Creates API keys and returns the id of a metered one."""
    ring = KeyRing(client)
    plan = Plan(
        key_id=None,
        features=frozenset({"export"}),
        priority_ceiling=5,
        concurrency=2,
        limits={"create_rate": Rate(5, 60), "queued_exports": 7},
    )
    with mock.patch.object(secrets, "token_urlsafe", lambda size: f"secret-{size}"):
        found = ring.find(ring.create("ann", name="metered", plan=plan, balance=1000))
    with mock.patch.object(secrets, "token_urlsafe", lambda size: f"another-{size}"):
        ring.create("bob", ("read",))
    assert found is not None
    Credits(client).charge(found.id, 3)
    return found.id


def _claimed(store: RedisStore, export_id: str) -> Claim:
    """Creates and claims an export, the only ready one of the highest priority."""
    store.create(spec(export_id, priority=9))
    claimed = store.claim("worker-1", lease=LEASE)
    assert claimed is not None
    assert claimed.export.id == export_id
    return claimed


def _exports(store: RedisStore, account: str) -> None:
    held = {
        name: _claimed(store, name).fence
        for name in (
            *("claimed", "committed", "completing", "asked to cancel", "released", "waiting"),
            *("rejoined", "finished", "file gone", "failed", "canceled"),
            *("deleted while claimed", "deleted", "unreadable", "overdue", "cut", "cut to the end"),
        )
    }
    for name in ("committed", "completing", "released", "waiting", "overdue"):
        closing = result() if name == "completing" else None
        store.commit(name, held[name], checkpoint(2, 1), lease=LEASE, progress=0.5, closing=closing)
    store.renew("claimed", held["claimed"], lease=LEASE, progress=0.1)
    store.request_cancel("asked to cancel", keep_record=KEEP)
    store.release("released", held["released"], clean=False)
    wrong = WrongAnswers("a page without rows", 2)
    store.release(
        "waiting",
        held["waiting"],
        clean=True,
        retry_in=LEASE,
        reason="upstream",
        wrong_answers=wrong,
    )
    for name in ("finished", "file gone", "deleted"):
        store.end(
            *(name, held[name], State.FINISHED),
            result=result(3),
            keep_file=KEEP,
            keep_record=KEEP,
        )
    store.forget_file("file gone")
    store.delete("deleted", "ann")
    store.delete("deleted while claimed", "ann")
    store.end("failed", held["failed"], State.FAILED, error="no such page", keep_record=KEEP)
    store.end("canceled", held["canceled"], State.CANCELED, keep_record=KEEP)
    store._run("set_aside", "unreadable", held["unreadable"], "1", 60_000_000, "a later format")
    store.client.zadd(key(store, "leases"), {"overdue": 1})
    store.sweep()
    _partitions(store, held)
    store.create(
        spec(
            *("queued", "bob", 3),
            account=account,
            reserved=10,
            concurrency=2,
            webhook=Hook(URL, ("export.finished",)),
        ),
        Idempotency("key", "fingerprint", KEEP),
    )
    store.create(spec("queued long ago", "bob"))
    store.sweep(ageing=NONE)


def _partitions(store: RedisStore, held: dict[str, str]) -> None:
    for name in ("cut", "cut to the end", "rejoined"):
        store.cut(name, held[name], partitions_of(100, 200, 300))
    for claimed in _all_claims(store):
        id_, fence = claimed.export.id, claimed.fence
        whole, _, place = id_.partition("/")
        if not place:
            store.release(id_, fence, clean=True)
        elif whole == "cut to the end" or place == "0":
            store.end(id_, fence, State.FINISHED, result=result(2), keep_record=KEEP)
        elif whole == "rejoined":
            store.end(id_, fence, State.FAILED, error="drift", keep_record=KEEP)
        elif place == "1":
            store.commit(id_, fence, checkpoint(), lease=LEASE, progress=0.3)
        else:
            store.release(id_, fence, clean=True, retry_in=LEASE, reason="slow")
    for claimed in _all_claims(store):
        if claimed.export.id == "rejoined":
            store.rejoin("rejoined", claimed.fence)
        else:
            store.release(claimed.export.id, claimed.fence, clean=True)


def _all_claims(store: RedisStore) -> list[Claim]:
    claim = partial(store.claim, "worker-2", lease=LEASE)
    return list(iter(claim, None))


def _webhooks(desk: Desk) -> None:
    plain = desk.endpoint("ann", ["export.queued"])
    ordered = desk.endpoints.create(
        "bob", f"{URL}/bob", events=EVENTS, ordered=True, include_download_url=True, description="B"
    )
    desk.endpoints.rotate(plain.id, "ann", grace=LEASE)
    desk.endpoints.get_or_create("ann", f"{URL}/one")
    off = desk.endpoint("carl", ["export.queued"])
    gone = desk.endpoint("dora", ["export.queued"])
    desk.queue("for carl", user="carl")
    desk.queue("for dora", user="dora")
    desk.queue("delivered", "dead", "failed once", "in flight", "set aside", "pending")
    for claimed in desk.all_claims():
        match claimed.delivery.export_id:
            case "delivered":
                desk.deliver(claimed)
            case "dead":
                desk.give_up(claimed, health="well")
            case "failed once":
                desk.fail(claimed, LEASE)
            case "set aside":
                desk.outbox.set_aside_attempt(claimed, ValueError("a later format"))
            case "for dora":
                desk.give_up(claimed, health="gone")
    for claimed in desk.all_claims():
        if claimed.delivery.export_id == "pending":
            desk.fail(claimed, NONE)
    desk.endpoints.disable(off.id, "carl")
    desk.deliveries.send_test(plain)
    desk.queue("first in order", "second in order", user="bob")
    for name in ("for carl", "for dora", "delivered", "dead", "failed once", "in flight"):
        desk.store.request_cancel(name, keep_record=KEEP)
    for name in ("set aside", "pending", "first in order", "second in order"):
        desk.store.request_cancel(name, keep_record=KEEP)
    assert gone.id != ordered.id
    desk.store.create(spec("its event is set aside", "bob"))
    event = next(one for one in desk.outbox.peek() if one.subject_id == "its event is set aside")
    while desk.outbox.peek()[0] != event:
        assert desk.outbox.fan_out(desk.outbox.peek()[0], {})
    desk.outbox.set_aside(event, ValueError("a later format"))
    desk.store.request_cancel("its event is set aside", keep_record=KEEP)


def _write(file: Path) -> None:
    from exporter.local import ports
    from exporter.local.redis import RedisServer
    from tests.contract.store.releases.dump import dump, text

    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), ports.find_free(1)[0])
        with server, redis.Redis.from_url(server.url) as client:
            build(client)
            file.write_text(text(dump(client)), "utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))

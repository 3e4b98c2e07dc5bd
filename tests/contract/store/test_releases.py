"""While an upgrade runs, the release before and this one work on the same records.

Its scripts, and an installation that it made, are frozen in `releases/0.2.0`. Each operation has
the same effect by its scripts and by those of today, whichever release made the records: so one
release may claim what the other commits, ends, delivers or settles.
"""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from unittest import mock

import msgspec
import pytest
import redis

from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Partition, Result, Spec, State, WrongAnswers
from exporter.core.rates import Rate
from exporter.local.redis import RedisServer
from exporter.store import codec
from exporter.store.base import Idempotency
from exporter.store.redis import script_loader
from exporter.store.redis.api_keys import ApiKey, KeyRing
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.rate_budgets import RedisBudgets
from exporter.store.redis.rate_limits import RateLimits
from exporter.webhooks import signatures
from exporter.webhooks.deliveries import Attempt, DeliveryState
from exporter.webhooks.outbox import Claimed
from tests.contract.store.given import (
    DATABASE,
    KEEP,
    LEASE,
    checkpoint,
    partitions_of,
    result,
    spec,
)
from tests.contract.store.releases import installation
from tests.contract.store.releases.dump import (
    Dump,
    dump,
    load,
    read_records,
    timeless,
    without_times,
)
from tests.contract.store.webhook_desk import TRY, URL, Desk, attempt

BEFORE = Path(__file__).parent / "releases" / "0.2.0"
SHIFT = "table.insert(ARGV, 1, string.match(KEYS[1], ':%w+:(.*)$'))\n"
"""Gives a script of 0.2.0 its name as an argument; today's get a key instead."""
ADDED: Sequence[tuple[str, object]] = (
    *(("checksums", None), ("name", ""), ("metadata", {}), ("page_rows", 0), ("page_bytes", 0)),
    *(("created_by", None), ("retry_of", None), ("schedule_id", None), ("types", {})),
)
"""Fields that 0.2.0 does not write, with the values by which they mean the same as missing."""
WITH_NAME = ("acquire", "pause", "reserve")
NEWER = frozenset(
    {"window", "index", "walk", "list_exports", "count_states", "note", "queue_position"}
    | {"take_delivery"}
)
"""Scripts that 0.2.0 has as parts of others, or does without."""
INDEXES = (
    *("{exporter}:all", "{exporter}:indexed", "{exporter}:index:", "{exporter}:expiring"),
    *("{exporter}:trim_all", "{exporter}:trimmed", "{exporter}:roomy"),
)
"""Keys of which 0.2.0 knows nothing; today's lists work without them, too."""
WITH_WINDOWS = "local function before()\n%s\nend\nreturn {{}, unpack(before())}\n"
"""Puts the windows of no rate limit before the answer of `create`; 0.2.0 counted elsewhere."""
SECRET = "whsec_" + "A" * 44
read_today = script_loader.read


def rename(key: str) -> str:
    """Returns today's name of a key of release 0.2.0."""
    return key.replace("exporter:", "{exporter}:", 1)


def read_before(package: str, name: str) -> str:
    if name in NEWER:
        return "" if name == "window" else read_today(package, name)
    package_folder = "webhooks" if package.endswith("webhooks") else "store"
    folder = BEFORE / package_folder
    text = (folder / f"{name}.lua").read_text("utf-8").replace("'exporter:", "'{exporter}:")
    if name == "create":
        return WITH_WINDOWS % text
    return (SHIFT if name in WITH_NAME else "") + text


# -- Operations ------------------------------------------------------------------------------------

OfExport = Callable[[Desk, str, str], object]
EXPORTS: Mapping[str, OfExport] = {
    "get": lambda desk, id_, fence: desk.store.get(id_),
    "renew": lambda desk, id_, fence: desk.store.renew(id_, fence, lease=LEASE, progress=0.6),
    "commit": lambda desk, id_, fence: desk.store.commit(
        id_, fence, checkpoint(3, 2), lease=LEASE, progress=0.7
    ),
    "complete": lambda desk, id_, fence: desk.store.commit(
        id_, fence, checkpoint(3, 2), lease=LEASE, progress=0.7, closing=result()
    ),
    "release": lambda desk, id_, fence: desk.store.release(id_, fence, clean=True),
    "wait": lambda desk, id_, fence: desk.store.release(
        id_, fence, clean=False, retry_in=LEASE, reason="upstream"
    ),
    "finish": lambda desk, id_, fence: desk.store.end(
        id_, fence, State.FINISHED, result=result(5), keep_file=KEEP, keep_record=KEEP
    ),
    "fail": lambda desk, id_, fence: desk.store.end(
        id_, fence, State.FAILED, error="upstream", keep_record=KEEP
    ),
    "end canceled": lambda desk, id_, fence: desk.store.end(
        id_, fence, State.CANCELED, keep_record=KEEP, charged=1
    ),
    "set aside": lambda desk, id_, fence: desk.store._run(
        "set_aside", id_, fence, "1", 1000, "a later format"
    ),
    "cut": lambda desk, id_, fence: desk.store.cut(id_, fence, partitions_of(100, 200)),
    "partitions": lambda desk, id_, fence: desk.store.partitions(id_),
    "rejoin": lambda desk, id_, fence: desk.store.rejoin(id_, fence),
    "request cancel": lambda desk, id_, fence: desk.store.request_cancel(id_, keep_record=KEEP),
    "delete": lambda desk, id_, fence: desk.store.delete(id_, "ann"),
    "forget file": lambda desk, id_, fence: desk.store.forget_file(id_),
}


def deliveries(desk: Desk) -> list[str]:
    return sorted(name.decode().split(":", 2)[2] for name in desk.keys("delivery:*"))


def fence_of(desk: Desk, name: str) -> str:
    found = cast("bytes | None", desk.client.hget(f"{{exporter}}:{name}", "fence"))
    return found.decode() if found else "none"


def settle(desk: Desk, **answer: Any) -> Iterator[object]:
    for id_ in deliveries(desk):
        delivery = desk.known(id_)
        endpoint = desk.endpoints.get_many([delivery.endpoint_id])[delivery.endpoint_id]
        claimed = Claimed(delivery, endpoint, fence_of(desk, f"delivery:{id_}"), slow=False)
        yield desk.outbox.settle(claimed, attempt(500), **answer)


def set_aside_deliveries(desk: Desk) -> Iterator[object]:
    for id_ in deliveries(desk):
        nonce = fence_of(desk, f"delivery:{id_}")
        desk.outbox._set_aside_delivery(id_, nonce, ValueError("later"))
        yield id_


def endpoints(desk: Desk, change: Callable[[str, str], object]) -> list[object]:
    found = (desk.endpoints.list(user) for user in ("ann", "bob", "carl", "dora"))
    return [change(one.id, one.user_id) for user in found for one in user]


def create(desk: Desk) -> Iterator[object]:
    again = Idempotency("key", "fingerprint", KEEP)
    yield desk.store.create(spec("again", "bob"), again)
    yield desk.store.create(spec("more", "ann", 5))


def claim(desk: Desk) -> list[object]:
    return list(iter(lambda: desk.store.claim("worker-3", lease=LEASE), None))


def charges(desk: Desk) -> Iterator[object]:
    accounts = Credits(desk.client)
    for key in KeyRing(desk.client).list():
        accounts.charge(key.id, 4, refundable=True)
        accounts.refund(key.id, 3, 1)
        yield accounts.balance(key.id)
        accounts.set(key.id, 50)
        accounts.add(key.id, 5)
        yield accounts.balance(key.id)
        accounts.set(key.id, None)


def rates(desk: Desk) -> Iterator[object]:
    for _ in range(3):
        yield RateLimits(desk.client).acquire("ann", Rate(3, 3600)).allowed
    budgets = RedisBudgets(desk.client)
    for source, make in itertools.product(("board", "new"), (budgets.open, budgets.open_for_api)):
        budget = make(source, Rate(1, 60))
        yield budget.reserve() > 0
        budget.pause_for(30)
        yield budget.reserve() > 0


def one_event(desk: Desk, *, aside: bool) -> object:
    event, *_ = desk.outbox.peek()
    if aside:
        return desk.outbox.set_aside(event, ValueError("later"))
    return desk.outbox.fan_out(event, {one.id: b"{}" for one in desk.endpoints.list("ann")})


Operation = Callable[[Desk], object]
OPERATIONS: Mapping[str, Operation] = {
    "create": lambda desk: list(create(desk)),
    "claim": claim,
    "sweep": lambda desk: desk.store.sweep(ageing=timedelta(0)),
    "expired files": lambda desk: desk.store.expired_files(),
    "trim lists": lambda desk: desk.store.trim_lists(),
    "lists": lambda desk: [desk.store.list(user, limit=50) for user in ("ann", "bob", "carl")],
    "keys": lambda desk: KeyRing(desk.client).list(),
    "charges": lambda desk: list(charges(desk)),
    "rates": lambda desk: list(rates(desk)),
    "make endpoints": lambda desk: [
        desk.endpoints.create("ann", URL),
        desk.endpoints.get_or_create("ann", f"{URL}/one"),
        desk.endpoints.get_or_create("dora", f"{URL}/new"),
    ],
    "rotate": lambda desk: endpoints(desk, desk.endpoints.rotate),
    "disable": lambda desk: endpoints(desk, desk.endpoints.disable),
    "enable": lambda desk: endpoints(desk, desk.endpoints.enable),
    "delete endpoints": lambda desk: endpoints(desk, desk.endpoints.delete),
    "fan out": lambda desk: one_event(desk, aside=False),
    "set an event aside": lambda desk: one_event(desk, aside=True),
    "claim deliveries": lambda desk: list(iter(lambda: desk.outbox.claim(lease=TRY), None)),
    "delivered": lambda desk: list(settle(desk, state=DeliveryState.DELIVERED, health="well")),
    "try again": lambda desk: list(
        settle(desk, state=DeliveryState.PENDING, health="failed", delay=TRY, rest=TRY)
    ),
    "give up": lambda desk: list(
        settle(desk, state=DeliveryState.DEAD, health="gone", gave_up="enough")
    ),
    "set deliveries aside": lambda desk: list(set_aside_deliveries(desk)),
    "redeliver": lambda desk: [tried(desk.deliveries.redeliver, id_) for id_ in deliveries(desk)],
    "send tests": lambda desk: [
        tried(desk.deliveries.send_test, one) for one in desk.endpoints.list("ann")
    ],
    "sweep deliveries": lambda desk: desk.outbox.sweep(),
}


def on_all_exports(operation: OfExport) -> Operation:
    def run(desk: Desk) -> object:
        names = sorted(name.decode() for name in desk.keys("export:*"))
        ids = [name.split(":", 2)[2] for name in names]
        fences = [fence_of(desk, f"export:{id_}") for id_ in ids]
        return [tried(operation, desk, *one) for one in zip(ids, fences, strict=True)]

    return run


def tried(call: Callable[..., object], *arguments: object) -> object:
    try:
        return call(*arguments)
    except Exception as error:  # noqa: BLE001 - what is raised is a result, too
        return repr(error)


ALL = {**OPERATIONS, **{name: on_all_exports(one) for name, one in EXPORTS.items()}}


# -- Tests -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_before() -> Dump:
    return read_records(BEFORE / "records.json", rename)


@pytest.fixture(scope="module")
def made_today(redis_server: RedisServer) -> Dump:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as client:
        client.flushdb()
        installation.build(client)
        return dump(client)


@pytest.fixture
def unsafe(client: redis.Redis) -> Iterator[redis.Redis]:
    """A client of a Redis that does not wait for its disk, which would take most of the time."""
    client.config_set("appendfsync", "no")
    yield client
    client.config_set("appendfsync", "always")


def outcome(
    client: redis.Redis, kept: Dump, later: timedelta, read: Callable[..., str], run: Operation
) -> tuple[object, object]:
    """Returns the result and all records after an operation, without times."""
    client.flushdb()
    load(client, kept, later=later)
    count = itertools.count(1000)
    with (
        mock.patch.object(secrets, "token_hex", lambda size: f"{next(count):0{2 * size}x}"),
        mock.patch.object(signatures, "new_secret", return_value=SECRET),
        mock.patch.object(script_loader, "read", read),
    ):
        answer = re.sub(r"datetime\.datetime\([^)]*\)", "T", repr(run(Desk(client))))
    return without_times(answer), without_additions(timeless(dump(client)))


def without_additions(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a dump without what 0.2.0 knows nothing of: the indexes of lists, and activity."""
    for _, value, _ in kept.values():
        if isinstance(value, dict):
            value.pop("activity", None)
    return {name: one for name, one in kept.items() if not name.startswith(INDEXES)}


def without_sizes(text: str) -> str:
    """Returns a dump without the sizes of specs, which have more fields today."""
    text = re.sub(r'("stored_bytes": )"\d+"', r'\1"N"', text)
    text = re.sub(r'(stored_bytes:\w+": \["string", )"\d+"', r'\1"N"', text)
    return re.sub(r'\["\d{3,} ', '["N ', text)


@pytest.mark.external
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("maker", ["made_before", "made_today"])
def test_each_operation_has_the_same_effect_in_both_releases(
    unsafe: redis.Redis, request: pytest.FixtureRequest, maker: str, name: str
) -> None:
    # Given an installation just now, and one whose leases and waits have run out
    kept: Dump = request.getfixturevalue(maker)
    for later in (timedelta(0), timedelta(minutes=30))[: 2 if name in OPERATIONS else 1]:
        # When
        before = outcome(unsafe, kept, later, read_before, ALL[name])
        today = outcome(unsafe, kept, later, read_today, ALL[name])
        # Then
        assert today == before


@pytest.mark.external
def test_this_release_makes_the_records_that_the_release_before_makes(
    made_before: Dump, made_today: Dump
) -> None:
    # Given
    random = re.compile(r"whsec_[A-Za-z0-9+/=]+")
    # When
    before, today = (
        random.sub("X", without_sizes(json.dumps(without_additions(timeless(kept)))))
        for kept in (made_before, made_today)
    )
    # Then
    assert parsed(json.loads(today)) == parsed(json.loads(before))


def parsed(value: Any) -> Any:
    """Returns a value with its JSON parsed, in which the order of fields does not matter."""
    if isinstance(value, str) and value.startswith("{"):
        return parsed(json.loads(value))
    if isinstance(value, dict):
        return {name: parsed(one) for name, one in value.items() if (name, one) not in ADDED}
    return [parsed(one) for one in value] if isinstance(value, list) else value


def test_every_script_of_the_release_before_is_kept_and_run() -> None:
    # Given
    kept = {file.stem for file in BEFORE.rglob("*.lua")}
    run: set[str] = set()

    def note(package: str, name: str) -> str:
        run.add(name)
        return read_before(package, name)

    # When
    with mock.patch.object(script_loader, "read", note):
        desk = Desk(redis.Redis())
        for store in (Credits, RateLimits, RedisBudgets):
            store(desk.client)
    # Then
    assert run - NEWER == kept


STORED: Mapping[str, type] = {
    "spec": Spec,
    "checkpoint": Checkpoint,
    "closing": Result,
    "result": Result,
    "partition": Partition,
    "wrong_answers": WrongAnswers,
}


def test_no_field_of_stored_json_is_lost_or_changed(made_before: Dump) -> None:
    # Given
    found: list[tuple[type, str]] = []
    for name, (_, value, _) in made_before["keys"].items():
        if name.startswith("{exporter}:key:"):
            found.append((ApiKey, value))
        elif name.startswith("{exporter}:delivery:") and "attempts" in value:
            found += [(Attempt, text) for text in value["attempts"].split("\n")]
        elif name.startswith("{exporter}:export:"):
            found += [(STORED[one], text) for one, text in value.items() if one in STORED]
    # When
    again = [codec.encode(msgspec.json.decode(text, type=kind)) for kind, text in found]
    # Then: a reader of the release before finds what it wrote; more fields may follow
    assert {kind for kind, _ in found} == {*STORED.values(), ApiKey, Attempt}
    for (_, text), new in zip(found, again, strict=True):
        assert within(json.loads(text), json.loads(new))


def within(old: Any, new: Any) -> bool:
    if isinstance(old, dict):
        return all(name in new and within(one, new[name]) for name, one in old.items())
    if isinstance(old, list):
        return len(old) <= len(new) and all(map(within, old, new))
    return bool(old == new)

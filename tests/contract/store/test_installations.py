"""Installations with different prefixes share one database of one Redis, and one slot each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from kombu import Connection, Exchange, Message, Queue
from redis.crc import key_slot

from exporter.cli.doctor import process_checks, redis_checks
from exporter.cli.doctor.checks import Problem
from exporter.local import ports
from exporter.local import redis as local_redis
from exporter.local.redis import RedisServer
from exporter.settings import Settings
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import DATABASE, LEASE
from tests.contract.store.releases import installation
from tests.contract.store.releases.dump import Dump, dump, load, timeless
from tests.contract.store.test_releases import ALL, tried
from tests.contract.store.webhook_desk import Desk
from tests.waiting import until
from workers.app import app as celery_app
from workers.presence import Presence
from workers.routing import QUEUE

pytestmark = pytest.mark.external

OTHER = KeyNames("exporter:b")


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return redis_server.url.replace("/0", f"/{DATABASE}")


def renamed(kept: Dump, root: str) -> Dump:
    keys = {root + name.removeprefix(DEFAULT.root): one for name, one in kept["keys"].items()}
    return {**kept, "keys": keys}


def only(client: redis.Redis, names: KeyNames) -> object:
    """The records of one installation."""
    kept = timeless(dump(client))
    return {key: value for key, value in kept.items() if key.startswith(names.root)}


def kombu(url: str, names: KeyNames) -> Connection:
    """A connection as a worker of that installation has it."""
    options = celery_app.conf.broker_transport_options | {"global_keyprefix": names.root}
    return Connection(url, transport_options=options)


def test_no_operation_sees_or_changes_the_records_of_another_installation(
    client: redis.Redis,
) -> None:
    # Given two installations alike, whose leases, waits and files run out later
    installation.build(client)
    kept = dump(client)
    client.flushdb()
    load(client, kept)
    load(client, renamed(kept, OTHER.root))
    before = only(client, OTHER)
    # When all that there is to do is done in one of them
    for run in ALL.values():
        tried(run, Desk(client))
    # Then
    assert only(client, OTHER) == before
    # And the other still has all its work
    store = RedisStore(client, OTHER)
    claims = list(iter(lambda: store.claim("w", lease=LEASE), None))
    assert "its event waits" in {claimed.export.id for claimed in claims}


def test_messages_and_commands_stay_within_an_installation(client: redis.Redis, url: str) -> None:
    # Given
    queue = Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE)
    with kombu(url, DEFAULT) as here, kombu(url, OTHER) as there:
        got: list[str] = []

        def note(name: str, _body: object, message: Message) -> None:
            got.append(name)
            message.ack()

        broadcast = Exchange("celery.pidbox", type="fanout", auto_delete=True)
        listeners = [
            connection.Consumer(
                Queue(f"{name}.celery.pidbox", broadcast, auto_delete=True),
                callbacks=[partial(note, name)],
            )
            for name, connection in (("here", here), ("there", there))
        ]
        for one in listeners:
            one.consume()
        # When a doorbell is left unacknowledged, others wait, and a command is sent
        for priority in range(10):
            here.Producer().publish({}, routing_key=QUEUE, declare=[queue], priority=priority)
        for _ in range(3):
            here.Producer().publish({}, exchange=broadcast, declare=[broadcast])
            for connection in (here, there):
                drain(connection)
        taken = queue.bind(here.channel()).get()
        # Then
        assert taken is not None
        assert queue.bind(there.channel()).get() is None
        assert set(got) == {"here"}
        keys = cast("list[bytes]", client.keys("*"))
        assert {b"{exporter}:unacked", b"{exporter}:_kombu.binding.exporter"} <= {*keys}
        assert {key_slot(key) for key in keys} == {
            key_slot(b"{exporter}"),
            key_slot(b"{exporter:b}"),
        }
        channels = cast("list[bytes]", client.pubsub_channels())
        assert all(one.startswith((b"{exporter}:/", b"{exporter:b}:/")) for one in channels)
        taken.reject()


def drain(connection: Connection) -> None:
    try:
        while True:
            connection.drain_events(timeout=0.2)
    except TimeoutError:
        pass


def test_the_doctor_counts_the_processes_of_its_own_installation(
    client: redis.Redis, url: str
) -> None:
    # Given
    Presence(RedisStore(client, OTHER)).show()
    client.set(DEFAULT("schema"), 2)
    # When
    other = Settings(redis_url=url, redis_prefix=OTHER.prefix)
    # Then
    assert process_checks.workers(other) == "1 alive"
    assert redis_checks.has_records(other) == "version 1, with the prefix exporter:b"
    with pytest.raises(Problem, match="no worker is alive"):
        process_checks.workers(Settings(redis_url=url))
    with pytest.raises(Problem, match="the records have version 2"):
        redis_checks.has_records(Settings(redis_url=url))


# -- One slot --------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Redis Cluster of one node, which refuses a command or script over several slots."""
    port, bus = ports.find_free(2)
    # By default the bus has the port plus 10,000, which may be too high.
    options = f"cluster-enabled yes\ncluster-port {bus}\nprotected-mode"
    config = local_redis._CONFIG.replace("protected-mode", options)
    monkeypatch.setattr(local_redis, "_CONFIG", config)
    with (
        RedisServer(tmp_path, port) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        command: Any = client.execute_command
        command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: "cluster_state:ok" in str(command("CLUSTER", "INFO")), 10, "the cluster")
        yield server.url


def test_all_work_is_done_on_a_cluster_and_stays_in_one_slot(cluster: str) -> None:
    # Given
    with redis.Redis.from_url(cluster) as client, kombu(cluster, DEFAULT) as connection:
        installation.build(client)
        # When
        results = {name: tried(run, Desk(client)) for name, run in ALL.items()}
        queue = Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE)
        connection.Producer().publish({}, routing_key=QUEUE, declare=[queue], priority=3)
        message = queue.bind(connection.channel()).get()
        # Then
        command: Any = client.execute_command
        keys = list(client.scan_iter("*", 1000))
        assert message is not None
        assert "slot" not in str(results).lower()
        assert len(keys) > 100
        assert {command("CLUSTER", "KEYSLOT", key) for key in keys} == {key_slot(b"exporter")}
        message.ack()

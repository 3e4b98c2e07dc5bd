"""What Redis refuses is translated into a remedy, whichever version refuses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from exporter.errors import StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.redis import errors

PASSWORD = "secret1"

pytestmark = pytest.mark.external


def full(client: redis.Redis) -> object:
    client.config_set("maxmemory", 1)
    try:
        return client.set("a", "b" * 100)
    finally:
        client.config_set("maxmemory", 0)


def full_within_a_script(client: redis.Redis) -> object:
    client.config_set("maxmemory", 1)
    try:
        return client.eval("return redis.call('SET', KEYS[1], 'b')", 1, "a")
    finally:
        client.config_set("maxmemory", 0)


def replica(client: redis.Redis) -> object:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    try:
        return client.set("a", "b")
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


def limited(client: redis.Redis) -> object:
    client.execute_command("ACL", "SETUSER", "default", "-set")  # type: ignore[no-untyped-call]
    try:
        return client.set("a", "b")
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("refused", "url_password", "remedy"),
    [
        (full, PASSWORD, "Redis is full"),
        (full_within_a_script, PASSWORD, "Redis is full"),
        (replica, PASSWORD, "this Redis is a replica"),
        (limited, PASSWORD, "extend its ACL"),
        (redis.Redis.ping, "", "Redis requires a password"),
        (redis.Redis.ping, "wrong", "Redis rejected the user or password"),
    ],
)
def test_each_refusal_names_its_remedy(
    tmp_path: Path,
    refused: Callable[[redis.Redis], object],
    url_password: str,
    remedy: str,
) -> None:
    # Given
    with (
        RedisServer(tmp_path, ports.find_free(1)[0], PASSWORD) as server,
        redis.Redis.from_url(server.url.replace(f":{PASSWORD}@", f":{url_password}@")) as client,
        # When, then
        pytest.raises(StoreUnavailable, match=remedy),
        errors.translate_errors(),
    ):
        refused(client)

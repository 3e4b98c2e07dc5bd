"""What the commands say of a Redis that is full, read-only, down or used by another program."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import pytest
import redis
from typer.testing import CliRunner

from exporter import settings
from exporter.cli import console
from exporter.cli.main import app
from exporter.local.redis import RedisServer
from exporter.store.redis.api_keys import KeyRing

DATABASE = 12
"""Of the test run's Redis."""
COMMANDS = [
    ("keys", "create", "--user", "ann", "--name", ":key: of [red]ann", "--credits", "7"),
    ("keys", "list"),
    ("keys", "set", "KEY", "--credits", "+5", "--max-priority", "3"),
    ("keys", "revoke", "KEY"),
    ("endpoints", "create", "--user", "ann", "https://93.184.215.14/:key:"),
    ("endpoints", "list", "--user", "ann"),
    ("endpoints", "rotate", "we_0a"),
]
EMOJI = re.compile("[\u2600-\u27bf\U0001f300-\U0001faff]")


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """Lets each test have its own variables, in this process."""
    settings.load.cache_clear()
    yield
    settings.load.cache_clear()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    url = redis_server.url.removesuffix("/0") + f"/{DATABASE}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield client
        client.config_set("maxmemory", 0)
        client.replicaof("NO", "ONE")
        client.flushdb()


def make_full(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def make_replica(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", "9")


def make_foreign(client: redis.Redis) -> None:
    """Gives every key of the service another type, but for the version, which is checked before."""
    for key in set(client.scan_iter()) - {b"{exporter}:schema"}:
        client.delete(key)
        client.set(key, "x")


CONDITIONS = {
    "full": (make_full, "Redis is full: raise maxmemory"),
    "replica": (make_replica, "this Redis is a replica"),
    "foreign": (make_foreign, "another program writes into this database of Redis"),
}


def check_text(text: str, secrets: list[str]) -> None:
    assert not EMOJI.search(text), text
    for quoted in (
        "Command #",
        "pipeline",
        "HSET",
        "script:",
        "user_script",
        "Traceback",
        *secrets,
    ):
        assert quoted not in text, text


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_error_of_redis_is_one_line_that_says_what_to_do(
    client: redis.Redis, redis_server: RedisServer, command: tuple[str, ...], condition: str
) -> None:
    # Given
    secret = KeyRing(client).create("ann", name=":key:")
    (key,) = KeyRing(client).list()
    url = redis_server.url.removesuffix("/0") + f"/{DATABASE}"
    runner = CliRunner(env={"EXPORTER_REDIS_URL": url})
    runner.invoke(app, ["endpoints", "create", "--user", "ann", "https://93.184.215.14/"])
    spoil, said = CONDITIONS[condition]
    spoil(client)

    # When
    arguments = [key.id if one == "KEY" else one for one in command]
    result = runner.invoke(app, arguments)

    # Then
    check_text(result.output, [secret, hashlib.sha256(secret.encode()).hexdigest()])
    if result.exit_code:
        assert result.exit_code == 1, result.output
        assert said in result.output or "no endpoint has the id" in result.output, result.output
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_redis_that_is_down_is_named_without_an_emoji() -> None:
    # Given
    runner = CliRunner(env={"EXPORTER_REDIS_URL": "redis://127.0.0.1:9/0", "COLUMNS": "200"})
    for command in COMMANDS[:2]:
        # When
        result = runner.invoke(app, list(command))

        # Then
        assert result.exit_code == 1
        check_text(result.output, [])
        assert "127.0.0.1:9" in result.output
        assert len(result.stderr.strip().splitlines()) == 1


def test_a_text_of_a_user_is_shown_as_it_is(
    client: redis.Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(console.out, "width", 200)
    name = ":key: :fire: [red]x[/]"
    KeyRing(client).create("ann", name=name)
    url = redis_server.url.removesuffix("/0") + f"/{DATABASE}"

    # When
    result = CliRunner(env={"EXPORTER_REDIS_URL": url}).invoke(app, ["keys", "list"])

    # Then
    assert name in result.output

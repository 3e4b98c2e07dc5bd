"""The version of the records: refused if it is newer, and reached from 0.2.0 by an upgrade."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from exporter import settings
from exporter.cli.main import app
from exporter.core.exports import State
from exporter.errors import ConfigurationError
from exporter.local import ports, stack
from exporter.local.redis import RedisServer
from exporter.store.redis import schema
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.keys import DEFAULT, KeyNames
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import DATABASE
from tests.contract.store.releases.dump import Dump, dump, load, read_records, timeless
from tests.waiting import until

pytestmark = pytest.mark.external

NEWER = "the records have version 2, and this release knows none above 1"
OLD = "release 0.2.0 or earlier.*run `exporter upgrade`"


@pytest.fixture
def old() -> Dump:
    """An installation of release 0.2.0."""
    return read_records(Path(__file__).parent / "releases" / "0.2.0" / "records.json")


def upgraded(old: Dump) -> Mapping[str, object]:
    """Its records under their new names."""
    kept = timeless(old)
    return {name.replace("exporter:", "{exporter}:", 1): one for name, one in kept.items()}


def records(client: redis.Redis) -> Mapping[str, object]:
    return {key: one for key, one in timeless(dump(client)).items() if key != "{exporter}:schema"}


def test_the_first_process_writes_the_version_and_others_accept_it(client: redis.Redis) -> None:
    # When
    warnings = [schema.check(client, DEFAULT) for _ in range(2)]
    # Then
    assert warnings == [[], []]
    assert client.get("{exporter}:schema") == b"1"


def test_records_of_a_newer_release_are_refused(client: redis.Redis) -> None:
    # Given
    client.set("{exporter}:schema", 2)
    # When / Then
    with pytest.raises(ConfigurationError, match=NEWER):
        RedisStore(client).check()
    assert client.get("{exporter}:schema") == b"2"


def test_a_version_of_another_program_is_refused(client: redis.Redis) -> None:
    # Given
    client.set("{exporter}:schema", "x")
    # When / Then
    with pytest.raises(ConfigurationError, match=r"'x' and not a version: another program"):
        RedisStore(client).check()
    assert client.get("{exporter}:schema") == b"x"


@pytest.mark.parametrize("prefix", ["exporter", "staging"])
def test_records_of_the_release_before_are_refused_until_they_are_upgraded(
    client: redis.Redis, old: Dump, prefix: str
) -> None:
    # Given
    load(client, old)
    # When / Then
    with pytest.raises(ConfigurationError, match=OLD):
        RedisStore(client, KeyNames(prefix)).check()
    assert timeless(dump(client)) == timeless(old)


def test_an_upgrade_keeps_every_record_and_its_life_and_is_safe_twice(
    client: redis.Redis, old: Dump
) -> None:
    # Given
    load(client, old)
    # When
    renamed = [schema.upgrade(client, DEFAULT) for _ in range(2)]
    # Then
    assert renamed == [len(old["keys"]), 0]
    assert records(client) == upgraded(old)
    assert schema.check(client, DEFAULT) == []
    # And no value names a key: only doorbells, which the sweep rings again, were elsewhere
    assert not [value for _, value, _ in old["keys"].values() if "exporter:" in str(value)]


def test_what_the_release_before_accepted_is_worked_off_after_the_upgrade(
    client: redis.Redis, old: Dump
) -> None:
    # Given an installation all of whose wake-ups and messages are lost
    load(client, old)
    client.delete("exporter:wake")
    # When
    schema.upgrade(client, DEFAULT)
    store = RedisStore(client)
    ready = store.sweep().ready
    # Then
    assert ready > 5
    assert client.llen("{exporter}:wake") == ready
    assert len(list(iter(lambda: store.claim("w", lease=settings.MIN_LEASE), None))) == ready
    waiting = store.get("its event waits")
    assert waiting is not None
    assert waiting.state is State.PROCESSING
    assert {key.user_id for key in KeyRing(client).list()} == {"ann", "bob"}


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_interrupted_upgrade_is_refused_and_goes_on(
    client: redis.Redis, old: Dump, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    # Given
    load(client, old)
    monkeypatch.setattr(schema, "_BATCH", 100)
    execute = redis.client.Pipeline.execute
    done = 0

    def interrupt(pipe: redis.client.Pipeline, raise_on_error: bool = True) -> list[object]:
        nonlocal done
        done += 1
        if done > after:
            raise Interrupted
        return execute(pipe, raise_on_error)

    # When
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(redis.client.Pipeline, "execute", interrupt)
        schema.upgrade(client, DEFAULT)
    # Then
    with pytest.raises(ConfigurationError, match=OLD):
        RedisStore(client).check()
    schema.upgrade(client, DEFAULT)
    assert records(client) == upgraded(old)


def test_an_upgrade_waits_for_the_processes_of_the_release_before(
    client: redis.Redis, old: Dump
) -> None:
    # Given
    load(client, old)
    client.set("exporter:senders:host:7", "1", ex=15)
    # When / Then
    with pytest.raises(schema.StillRunning, match=r"1 processes .*senders:host:7"):
        schema.upgrade(client, DEFAULT)
    assert client.exists("exporter:keys")
    schema.upgrade(client, DEFAULT, force=True)
    assert records(client) != {}
    assert client.keys("exporter:*") == [b"exporter:senders:host:7"]


def test_what_an_old_process_writes_afterwards_is_named_and_never_overwrites(
    client: redis.Redis, old: Dump
) -> None:
    # Given
    load(client, old)
    schema.upgrade(client, DEFAULT)
    client.hset("exporter:keys", "id", "digest")
    # When
    (warning,) = schema.check(client, DEFAULT)
    # Then
    assert "a process of release 0.2.0 or earlier runs beside this release" in warning
    with pytest.raises(ConfigurationError, match=r"1 keys exist under .*exporter:keys"):
        schema.upgrade(client, DEFAULT)
    new = {"exporter:keys": ["hash", {"id": "digest"}, "for ever"]}
    assert records(client) == {**upgraded(old), **new}


@pytest.fixture
def command(
    redis_server: RedisServer, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs `exporter` with the Redis of this test."""
    monkeypatch.setenv("EXPORTER_REDIS_URL", redis_server.url.replace("/0", f"/{DATABASE}"))
    settings.load.cache_clear()

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, arguments)
        return done.exit_code, done.output

    yield run
    settings.load.cache_clear()


@pytest.mark.parametrize("arguments", [("keys", "list"), ("endpoints", "list", "--user", "ann")])
def test_a_command_refuses_newer_records_with_code_78(
    client: redis.Redis, command: Callable[..., tuple[int, str]], arguments: tuple[str, ...]
) -> None:
    # Given
    client.set("{exporter}:schema", 2)
    # When
    code, text = command(*arguments)
    # Then
    assert (code, NEWER in text) == (os.EX_CONFIG, True)


@pytest.mark.parametrize("process", ["api", "worker"])
def test_no_process_starts_on_newer_records(
    client: redis.Redis, command: Callable[..., tuple[int, str]], tmp_path: Path, process: str
) -> None:
    # Given
    client.set("{exporter}:schema", 2)
    # When
    done = subprocess.run(
        [sys.executable, "-m", "exporter.cli", process],
        cwd=tmp_path,
        env=os.environ | {"BOARD_KEY": "k"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Then
    assert (done.returncode, NEWER in done.stderr) == (os.EX_CONFIG, True), done.stderr


def test_the_local_stack_upgrades_its_own_records(
    redis_server: RedisServer, client: redis.Redis, old: Dump, tmp_path: Path
) -> None:
    # Given the records of a stack that was killed a moment ago
    load(client, old)
    client.set("exporter:workers:host:7", "1", ex=15)
    # When
    stack._load_api_key(tmp_path / "api_key", redis_server.url.replace("/0", f"/{DATABASE}"))
    # Then
    assert schema.check(client, DEFAULT) == []
    assert {key.user_id for key in KeyRing(client).list()} == {"ann", "bob", "local"}


def test_an_api_that_started_without_redis_ends_when_it_finds_newer_records(
    tmp_path: Path,
) -> None:
    # Given an API that runs although its Redis, which has newer records, does not
    port = ports.find_free(1)[0]
    with RedisServer(tmp_path, port) as server, redis.Redis.from_url(server.url) as client:
        client.set("{exporter}:schema", 2)
        server.kill()
        api_port = ports.find_free(1)[0]
        api = subprocess.Popen(
            [sys.executable, "-m", "exporter.cli", "api", "--port", str(api_port)],
            cwd=tmp_path,
            env=os.environ | {"BOARD_KEY": "k", "EXPORTER_REDIS_URL": server.url},
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: is_open(api_port), 60, "the API")
        # When
        server.start()
        _, said = api.communicate(timeout=60)
    # Then
    assert (api.returncode, NEWER in said) == (os.EX_CONFIG, True), said


def is_open(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_the_upgrade_is_a_command(
    client: redis.Redis, command: Callable[..., tuple[int, str]], old: Dump
) -> None:
    # Given
    load(client, old)
    # When
    refused, _ = command("keys", "list")
    code, text = command("upgrade")
    accepted, listed = command("keys", "list")
    # Then
    assert (refused, code, accepted) == (os.EX_CONFIG, 0, 0)
    assert f"renamed {len(old['keys'])} keys" in text
    assert "metered" in listed

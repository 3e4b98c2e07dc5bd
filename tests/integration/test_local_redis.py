"""The embedded Redis keeps what it acknowledged."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import redis

from exporter.errors import ConfigurationError
from exporter.local import ports
from exporter.local import redis as local_redis
from exporter.local.children import ChildError
from exporter.local.redis import RedisServer
from exporter.store.redis import versions


def test_what_was_acknowledged_survives_kill_9_and_another_port(tmp_path: Path) -> None:
    # Given
    with (
        RedisServer(tmp_path, ports.find_free(1)[0]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        for number in range(100):
            client.set(f"key:{number}", number)
        # When
        server.kill()

    # Then
    with (
        RedisServer(tmp_path, ports.find_free(1)[0]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.dbsize() == 100


def test_it_is_set_up_to_lose_nothing_and_to_be_reached_from_this_machine_only(
    tmp_path: Path,
) -> None:
    # Given
    with (
        RedisServer(tmp_path, ports.find_free(1)[0]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        # When
        config = client.config_get("*")

        # Then
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "always"
        assert config["maxmemory-policy"] == "noeviction"
        assert config["save"] == ""
        assert config["bind"] == "127.0.0.1"


def test_a_folder_with_blanks_and_quotes_in_its_name_works(tmp_path: Path) -> None:
    # Given
    folder = tmp_path / 'my "own" data'

    # When
    with (
        RedisServer(folder, ports.find_free(1)[0]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.set("a", 1)

    # Then
    assert (folder / "redis").is_dir()
    assert list((folder / "redis").glob("append*"))


def test_a_port_that_another_redis_holds_is_an_error_not_a_success(tmp_path: Path) -> None:
    # Given
    with RedisServer(tmp_path / "one", ports.find_free(1)[0]) as one:
        port = int(one.url.rpartition(":")[2].partition("/")[0])

        # When, then
        with pytest.raises(ChildError, match="Address already in use"):
            RedisServer(tmp_path / "two", port).start()


def test_data_of_a_newer_redis_is_refused_instead_of_starting_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a machine whose only server is an old one
    server = tmp_path / "bin" / "redis-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\necho Redis server v=6.2.14 sha=0\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}:/usr/bin:/bin")
    monkeypatch.setattr(local_redis, "_WHEEL", "no_such_wheel")
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)

    # When, then
    with pytest.raises(ConfigurationError, match="was written by Redis 7 or later"):
        RedisServer(tmp_path, ports.find_free(1)[0]).start()


def test_a_server_with_a_password_refuses_those_who_do_not_show_it(tmp_path: Path) -> None:
    # Given
    port = ports.find_free(1)[0]
    with (
        RedisServer(tmp_path, port, "secret1") as server,
        redis.Redis(port=port) as stranger,
        redis.Redis.from_url(server.url) as client,
    ):
        # When, then
        with pytest.raises(redis.AuthenticationError):
            stranger.get("a")
        assert server.url == f"redis://:secret1@127.0.0.1:{port}/0"
        assert client.set("a", 1)


def test_only_their_owner_can_read_its_data_its_log_and_its_password(tmp_path: Path) -> None:
    # Given a user whose files are readable by all
    before = os.umask(0o022)
    try:
        with (
            RedisServer(tmp_path, ports.find_free(1)[0], "secret1") as server,
            redis.Redis.from_url(server.url) as client,
        ):
            # When
            client.set("a", 1)
    finally:
        os.umask(before)

    # Then
    folder = tmp_path / "redis"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"redis.conf", "appendonly.aof.1.incr.aof"} <= {path.name for path in files}
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*files, server.log]} == {0o600}


def test_the_server_that_is_installed_has_no_known_holes(tmp_path: Path) -> None:
    # Given
    with (
        RedisServer(tmp_path, ports.find_free(1)[0]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        # When
        info = client.info("server")

    # Then
    assert versions.find_hole(info) is None

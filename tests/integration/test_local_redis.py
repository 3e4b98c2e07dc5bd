"""The embedded Redis keeps what it acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from exporter.errors import ConfigurationError
from exporter.local import ports
from exporter.local.children import ChildError
from exporter.local.redis import RedisServer


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
    # Given
    monkeypatch.setenv("PATH", "/nonexistent")
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)

    # When, then
    with pytest.raises(ConfigurationError, match="was written by Redis 7 or later"):
        RedisServer(tmp_path, ports.find_free(1)[0]).start()

"""A Redis with known security holes is named, with the version that has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
import redis

from exporter.store.redis import durability, versions


def of_redis(version: str) -> Mapping[str, str]:
    return {"redis_version": version}


def of_valkey(version: str) -> Mapping[str, str]:
    return {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": version}


@pytest.mark.parametrize(
    ("info", "remedy"),
    [
        (of_redis("6.2.14"), "Redis 6.2.14 is older than 6.2.20"),
        (of_redis("6.2.19"), "older than 6.2.20"),
        (of_redis("5.0.14"), "older than 6.2.20"),
        (of_redis("7.0.15"), "older than 7.2.11"),
        (of_redis("7.2.10"), "older than 7.2.11"),
        (of_redis("7.4.5"), "older than 7.4.6"),
        (of_redis("8.0.3"), "older than 8.0.4"),
        (of_redis("8.2.1"), "older than 8.2.2"),
        (of_valkey("7.2.12"), "Valkey 7.2.12 is older than 7.2.13"),
        (of_valkey("8.0.5"), "older than 8.0.9"),
        (of_valkey("8.1.3"), "older than 8.1.7"),
        (of_valkey("9.0.3"), "older than 9.0.4"),
    ],
)
def test_a_version_with_known_holes_is_named_with_the_first_one_without(
    info: Mapping[str, str], remedy: str
) -> None:
    # When
    hole = versions.find_hole(info)

    # Then
    assert hole is not None
    assert remedy in hole.text
    assert "CVE-" in hole.text


@pytest.mark.parametrize(
    "info",
    [
        *map(of_redis, ("6.2.20", "7.2.11", "7.4.6", "8.0.4", "8.2.2", "8.4.0", "10.0.0")),
        *map(of_valkey, ("7.2.13", "8.0.9", "8.1.7", "9.0.4", "9.1.0", "10.0.0")),
        {"redis_version": "7.2.4", "server_name": "valkey"},
        of_redis("unstable"),
        {},
    ],
)
def test_a_version_without_known_holes_and_one_that_is_not_known_are_not_named(
    info: Mapping[str, str],
) -> None:
    # When, then
    assert versions.find_hole(info) is None


class Reporting:
    """A Redis of one version that keeps everything."""

    def __init__(self, version: str) -> None:
        self._version = version

    def info(self, section: str) -> Mapping[str, Any]:
        return {
            "redis_version": self._version,
            "maxmemory_policy": "noeviction",
            "aof_enabled": 1,
        }

    def config_get(self, name: str) -> Mapping[str, str]:
        return {name: "always"}


@pytest.mark.parametrize(("version", "expected"), [("6.2.14", 1), ("8.2.2", 0)])
def test_the_check_at_start_and_of_doctor_warns_of_known_holes(version: str, expected: int) -> None:
    # Given
    client = cast("redis.Redis", Reporting(version))

    # When
    found = durability.persistence(client)

    # Then
    assert len([one for one in found if "known security holes" in one.text]) == expected

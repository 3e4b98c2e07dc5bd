"""A Redis that does not report what decides about durability, or cannot be used, is named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, cast

import pytest
import redis

from exporter.store.redis import durability

KEPT = {"maxmemory_policy": "noeviction", "aof_enabled": 1}


class Reporting:
    """A Redis that answers INFO and CONFIG GET with these fields."""

    def __init__(self, info: Mapping[str, Any], config: Mapping[str, str]) -> None:
        self._info, self._config = info, config

    def info(self, _section: str) -> Mapping[str, Any]:
        return self._info

    def config_get(self, _name: str) -> Mapping[str, str]:
        return self._config


@pytest.mark.parametrize(
    ("info", "config", "named"),
    [
        ({"redis_version": "8.2.2"}, {}, "INFO has no maxmemory_policy and no aof_enabled"),
        (
            {"maxmemory_policy": "noeviction"},
            {"appendfsync": "always"},
            "it is unknown whether Redis keeps an append-only file (INFO has no aof_enabled)",
        ),
        (
            {"aof_enabled": 1},
            {"appendfsync": "always"},
            "it is unknown whether Redis evicts keys (INFO has no maxmemory_policy)",
        ),
        (KEPT, {}, "CONFIG GET has no appendfsync"),
        (KEPT | {"used_memory": 95, "maxmemory": 100}, {}, "has used 95% of its maxmemory"),
    ],
)
def test_what_is_not_reported_or_scarce_is_a_warning(
    info: Mapping[str, Any], config: Mapping[str, str], named: str
) -> None:
    # When
    found = durability.persistence(cast("redis.Redis", Reporting(info, config)))
    # Then
    assert any(named in one.text for one in found)
    assert not any(one.is_permanent for one in found)


@pytest.mark.parametrize("name", ["redis_mode", "server_mode"])
@pytest.mark.parametrize(("mode", "named"), [("cluster", "Cluster"), ("sentinel", "Sentinel")])
def test_a_cluster_and_a_sentinel_are_refused(name: str, mode: str, named: str) -> None:
    # Given
    client = Reporting(KEPT | {name: mode}, {"appendfsync": "always"})
    # When
    (found,) = durability.persistence(cast("redis.Redis", client))
    # Then
    assert named in found.text
    assert found.is_permanent


def test_the_share_of_memory_is_the_one_at_which_no_export_is_created() -> None:
    # Given

    script = resources.files("exporter.store.redis").joinpath("scripts/create.lua")
    common = resources.files("exporter.store.redis").joinpath("scripts/common.lua")
    # When / Then
    text = script.read_text("utf-8") + common.read_text("utf-8")
    assert f"FULL_SHARE = {durability.FULL_SHARE}" in text

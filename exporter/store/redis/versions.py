"""Known security holes of Redis and Valkey versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from exporter.store.redis.diagnosis import Diagnosis

_Version = tuple[int, int, int]


class _Fix(NamedTuple):
    """The first release of each maintained branch without a hole, oldest first."""

    hole: str
    releases: tuple[_Version, ...]


_FIXES = {
    # A Lua script runs machine code of its author in the server.
    "Redis": _Fix("CVE-2025-49844", ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2))),
    # A client that waits in a blocking command is used after it was freed.
    "Valkey": _Fix("CVE-2026-23479", ((7, 2, 13), (8, 0, 9), (8, 1, 7), (9, 0, 4))),
}


def find_hole(info: Mapping[str, Any]) -> Diagnosis | None:
    """Returns the known hole of the server that answered this INFO; None if it has none."""
    name, text = _server(info)
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    if found is None:
        return None
    major, minor, patch = (int(part) for part in found.groups())
    fix = _FIXES[name]
    # A branch that is not listed and older than a listed one is no longer maintained.
    fixed = next((one for one in fix.releases if one[:2] >= (major, minor)), None)
    if fixed is None or (major, minor, patch) >= fixed:
        return None
    return Diagnosis(
        f"{name} {text} is older than {'.'.join(map(str, fixed))} and has known security holes, "
        f"such as {fix.hole}, unless its distributor mended them",
        "update it",
    )


def name(info: Mapping[str, Any]) -> str:
    """Returns the name and version of the server that answered this INFO, for people.

    >>> name({"redis_version": "7.2.4", "valkey_version": "9.1.0"})
    'Valkey 9.1.0'
    """
    server, version = _server(info)
    return f"{server} {version}" if version else f"{server} of unknown version"


def _server(info: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the name and the version of the server; the version is empty if unknown.

    Valkey reports the Redis version that it is compatible with as `redis_version`.
    """
    if "valkey_version" in info or info.get("server_name") == "valkey":
        return "Valkey", str(info.get("valkey_version", ""))
    return "Redis", str(info.get("redis_version", ""))

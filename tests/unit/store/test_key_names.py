"""All keys of an installation have its prefix, so no store may be made without it."""

from __future__ import annotations

import ast
from pathlib import Path

from exporter.store.redis.keys import KeyNames

STORES = {
    *("RedisStore", "connect", "KeyRing", "RateLimits", "RedisBudgets", "Credits"),
    *("Endpoints", "Deliveries", "Outbox"),
}
"""Classes whose second argument are the names, and `RedisStore.connect`."""


def test_a_name_begins_with_the_hash_tag() -> None:
    assert KeyNames("a:b")("ready", "9", "ann") == "{a:b}:ready:9:ann"


def test_every_store_of_the_service_is_given_the_names_of_its_keys() -> None:
    # Given
    files = [file for folder in ("exporter", "workers") for file in Path(folder).rglob("*.py")]
    # When
    calls = [
        (str(file), node.lineno, len(node.args))
        for file in files
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and _name(node.func) in STORES
    ]
    # Then
    assert len(calls) > 10
    assert [call for call in calls if call[2] < 2] == []


def _name(called: ast.expr) -> str:
    if isinstance(called, ast.Attribute):
        owner = called.value
        is_store = isinstance(owner, ast.Name) and owner.id == "RedisStore"
        return "connect" if called.attr == "connect" and is_store else ""
    return called.id if isinstance(called, ast.Name) else ""
